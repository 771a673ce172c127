"""What "now" means: the log's own time for an old log, the wall's for a live stream."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from eddy.stream.records.clock import DAY_MS, StreamClock

WALL = 1_700_000_000_000


def test_an_old_log_does_not_age_by_waiting() -> None:
    clock = StreamClock()
    clock.observe(1_380_000_000_000, WALL)
    assert {clock.now(WALL + wait) for wait in (0, 1, DAY_MS, 365 * DAY_MS)} == {1_380_000_000_000}


def test_a_live_stream_moves_on_between_events() -> None:
    clock = StreamClock()
    clock.observe(WALL - 5_000, WALL)
    assert clock.now(WALL + 60_000) == WALL + 60_000


def test_there_is_no_now_before_the_first_event() -> None:
    assert StreamClock().now(WALL) == -1


@given(times=st.lists(st.integers(0, WALL + 3_600_000), min_size=1, max_size=20))
def test_late_events_never_move_it_back(times: list[int]) -> None:
    clock, seen = StreamClock(), list[int]()
    for time in times:
        clock.observe(time, WALL)
        seen.append(clock.now(WALL))
        assert seen[-1] >= max(times[: len(seen)])
    assert seen == sorted(seen)


def test_after_a_day_of_silence_a_live_stream_stands_still_where_it_is() -> None:
    clock = StreamClock()
    clock.observe(WALL, WALL)
    assert clock.now(WALL + DAY_MS - 1) == WALL + DAY_MS - 1
    assert {clock.now(WALL + wait) for wait in (DAY_MS, DAY_MS + 1, 30 * DAY_MS)} == {WALL + DAY_MS}


@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 2 * DAY_MS),  # silence
            st.integers(-2 * DAY_MS, 3_600_000) | st.none(),  # the next event's time from the wall's, if any
            st.integers(-60_000, 60_000),  # the wall clock is set
        ),
        max_size=40,
    )
)
def test_now_never_falls_over_a_simulated_week_or_more(steps: list[tuple[int, int | None, int]]) -> None:
    clock, wall, latest, before = StreamClock(), WALL, -1, -1
    for silence, from_wall, set_by in steps:
        wall += silence + set_by
        if from_wall is not None:
            clock.observe(wall + from_wall, wall)
            latest = max(latest, wall + from_wall)
        now = clock.now(wall)
        assert now >= max(before, latest)
        assert now <= latest + DAY_MS, "no further than a day of silence takes it"
        before = now
