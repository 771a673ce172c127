"""A fetch waits at the broker only where that gathers many records."""

from __future__ import annotations

import pytest

from eddy.stream.worker.fetch_pace import AT_ONCE, BUSY_PER_S, IN_CHUNKS, FetchPace


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("per_s", "patience"), [(100, AT_ONCE), (5_000, IN_CHUNKS)])
def test_the_rate_decides_whether_the_broker_waits_for_more(per_s: int, patience: tuple[int, int]) -> None:
    clock = Clock()
    pace = FetchPace(clock)
    for _ in range(200):
        clock.now += 0.01
        said = pace.after(per_s // 100)
    assert said == patience


def test_a_stream_that_falls_quiet_is_answered_at_once_again() -> None:
    clock = Clock()
    pace = FetchPace(clock)
    assert pace.after(10_000) == IN_CHUNKS
    clock.now += 5.0
    assert pace.after(0) == AT_ONCE


def test_one_event_of_an_idle_stream_does_not_make_the_next_wait() -> None:
    assert BUSY_PER_S > 2
    assert FetchPace(Clock()).after(1) == AT_ONCE
