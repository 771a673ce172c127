"""Item statistics for several versions: each reads what it would have counted alone, and what comes later
is as if it had been counted from the beginning.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eddy.models.config import DAY_MS, HOUR_MS
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.vocabulary import Catalogue
from tests.support.engines import Happening, batch, new_engine, random_version

pytestmark = pytest.mark.unit

ITEMS, PARTITIONS = 30, 3
T0 = 1_370_000_000_000
OWN, MORE = (HOUR_MS, 6 * DAY_MS), (DAY_MS, 6 * DAY_MS, 60 * DAY_MS)
HASHES = np.arange(100, 100 + ITEMS, dtype=np.uint64)


def count(statistics: Statistics, seed: int, events: int, after_ms: int = 0) -> float:
    """Count random events, the same for the same seed; returns the time of the last one."""
    rng = np.random.default_rng(seed)
    time = T0 + after_ms + np.sort(rng.integers(0, 30 * DAY_MS, events))
    item, previous = rng.integers(ITEMS, size=events), rng.integers(-1, ITEMS, (events, 3))
    partition = rng.integers(PARTITIONS, size=events)
    for number in range(PARTITIONS):
        mine = partition == number
        statistics.count_events(number, item[mine], time[mine], previous[mine])
    return float(time[-1])


def fill(statistics: Statistics, counted_with: Statistics) -> None:
    """Take what the partitions lack over from statistics that have counted the same with it."""
    for number in list(statistics.partitions):
        arrays = counted_with.export_partition(number, HASHES)
        statistics.fill_partition(number, arrays, Catalogue(HASHES), since=-np.inf)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), events=st.integers(1, 400))
def test_a_version_reads_from_wider_statistics_to_the_bit_what_it_would_count_alone(
    seed: int, events: int
) -> None:
    alone, wide = Statistics(OWN, 8), Statistics(MORE, 8)
    wide.widen(OWN, 4)
    now = count(alone, seed, events)
    count(wide, seed, events)
    index = np.array([[3, 4], [29, 0]])
    assert wide.half_lives_ms == (DAY_MS, 6 * DAY_MS, 60 * DAY_MS, HOUR_MS)
    np.testing.assert_array_equal(wide.popularity(ITEMS, now, OWN), alone.popularity(ITEMS, now))
    np.testing.assert_array_equal(wide.popularity_of(index, now, OWN), alone.popularity_of(index, now))
    for theirs, ours in zip(
        wide.successors_of(index[0], now, 8), alone.successors_of(index[0], now), strict=True
    ):
        np.testing.assert_array_equal(theirs, ours)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), before=st.integers(1, 300), after=st.integers(1, 300))
def test_half_lives_that_are_filled_in_are_as_if_counted_from_the_start(
    seed: int, before: int, after: int
) -> None:
    grown, from_the_start = Statistics(OWN, 8), Statistics((*OWN, DAY_MS, 60 * DAY_MS), 8)
    now = count(grown, seed, before)
    count(from_the_start, seed, before)
    grown.widen(MORE, 8)
    lacked = {number: grown.lacking(number) for number in grown.partitions}
    assert {lives for number, lives in lacked.items() if grown.partitions[number].has_counted} <= {
        (DAY_MS, 60 * DAY_MS)
    }
    assert not grown.popularity(ITEMS, now, [DAY_MS]).any(), "what is not known yet counts as nothing"
    apart = Statistics((DAY_MS, 60 * DAY_MS), 1)
    count(apart, seed, before)
    fill(grown, apart)
    assert not any(map(grown.lacking, range(PARTITIONS)))
    now = count(grown, seed + 1, after, after_ms=31 * DAY_MS)
    count(from_the_start, seed + 1, after, after_ms=31 * DAY_MS)
    np.testing.assert_allclose(
        grown.popularity(ITEMS, now, [*OWN, *MORE]),
        from_the_start.popularity(ITEMS, now, [*OWN, *MORE]),
        rtol=1e-9,
    )


def test_partitions_without_events_lack_nothing_and_count_with_all_that_is_asked_for() -> None:
    statistics = Statistics(OWN, 8)
    statistics.partition(2)
    statistics.widen(MORE, 16)
    now = count(statistics, 1, 50)
    assert [statistics.lacking(number) for number in range(PARTITIONS)] == [()] * PARTITIONS
    assert not any(map(statistics.lacks_successors, range(PARTITIONS)))
    assert statistics.popularity(ITEMS, now, [60 * DAY_MS]).any()


def test_a_version_with_fewer_successors_reads_the_most_counted_ones_of_the_longer_lists() -> None:
    wide = Statistics((), 16)
    now = count(wide, 2, 800)
    source = np.arange(ITEMS)
    all_of_them, shares = wide.successors_of(source, now)
    index, share = wide.successors_of(source, now, 3)
    for row in range(ITEMS):
        best = np.sort(shares[row])[::-1][:3]
        np.testing.assert_array_equal(np.sort(share[row])[::-1], best)
        assert set(index[row].tolist()) <= set(all_of_them[row].tolist())


def test_added_places_for_successors_fill_as_if_they_had_been_there_while_there_is_room() -> None:
    grown, from_the_start = Statistics((), 29), Statistics((), 64)
    for after, seed in ((0, 3), (31 * DAY_MS, 4)):
        now = count(grown, seed, 300, after)
        count(from_the_start, seed, 300, after)
        grown.widen((), 64)
        for number in range(PARTITIONS):
            if grown.lacks_successors(number):
                grown.add_successors(number)
    for ours, theirs in zip(
        grown.successors_of(np.arange(ITEMS), now), from_the_start.successors_of(np.arange(ITEMS), now),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_array_equal(ours, theirs)


def test_partitions_with_other_numbers_of_successors_add_up() -> None:
    equal, mixed = Statistics((), 64), Statistics((), 29)
    now = count(equal, 5, 400)
    count(mixed, 5, 400)
    mixed.widen((), 64)
    mixed.add_successors(1)
    index, share = mixed.successors_of(np.arange(ITEMS), now, 5)
    expected, expected_share = equal.successors_of(np.arange(ITEMS), now, 5)
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_array_equal(share, expected_share)


def test_no_item_is_idle_by_a_half_life_whose_events_do_not_reach_back_as_far() -> None:
    """The shortest half-life decides, and it was filled in from a log that begins a day ago."""
    for since, idle in ((-np.inf, True), (T0 + 29 * DAY_MS, False)):
        statistics, apart, item = Statistics((60 * DAY_MS,), 8), Statistics((DAY_MS,), 1), np.array([1])
        statistics.count_events(0, item, np.array([T0]), np.full((1, 1), -1))
        statistics.widen((DAY_MS,), 8)
        arrays = apart.export_partition(0, HASHES)
        statistics.fill_partition(0, arrays, Catalogue(HASHES), since)
        now = float(T0 + 30 * DAY_MS)
        assert statistics.idle_items(2, now, 40 * DAY_MS).tolist() == [True, idle]


def test_the_lists_of_an_engine_are_the_same_when_its_statistics_also_serve_another_version(
    tmp_path: Path,
) -> None:
    version = random_version(tmp_path)
    alone, shared = new_engine(version, emit="every"), new_engine(version, emit="every")
    shared.statistics.widen((*MORE, DAY_MS + 1), 8)
    rng = np.random.default_rng(6)
    for begin in range(0, 400, 40):
        happenings = [
            Happening(f"u{rng.integers(5)}", f"item-{rng.integers(9)}", T0 + (begin + i) * HOUR_MS)
            for i in range(40)
        ]
        events = [batch(happenings, range(begin, begin + 40))]
        (made_alone,), (made_shared,) = (engine.apply(events).lists for engine in (alone, shared))
        for ours, theirs in zip(made_alone.topk(), made_shared.topk(), strict=True):
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize("compiled", [True, False])
def test_a_version_scores_with_the_best_of_longer_lists_of_successors(tmp_path: Path, compiled: bool) -> None:
    """One engine has long lists, the other has the best of these as lists of its own length."""
    version = random_version(tmp_path)
    long, short = new_engine(version, emit="every"), new_engine(version, emit="every")
    long.statistics.widen((), 24)
    rng = np.random.default_rng(7)
    happenings = [
        Happening(f"u{rng.integers(5)}", f"item-{rng.integers(ITEMS)}", T0 + i * HOUR_MS) for i in range(500)
    ]
    for engine in (long, short):
        engine.newest.ranker.scorer.compiled = compiled
        engine.apply([batch(happenings[:480], range(480))])
        engine.statistics_buffer.flush()
    arrays = long.statistics.export_partition(0, long.names.catalogue.hashes)
    best = np.argsort(-arrays["count"], axis=1, kind="stable")[:, :8]
    assert (arrays["successor"] != 0).sum(axis=1).max() > 8
    for column in ("successor", "count"):
        arrays[column] = np.take_along_axis(arrays[column], best, axis=1)
    short.statistics.replace_partition(0, arrays, short.names.catalogue)
    events = [batch(happenings[480:], range(480, 500))]
    (by_long,), (by_short,) = (engine.apply(events).lists for engine in (long, short))
    ours, theirs = by_long.topk(), by_short.topk()
    np.testing.assert_array_equal(ours.item.numpy(), theirs.item.numpy())
    np.testing.assert_allclose(ours.score.numpy(), theirs.score.numpy(), rtol=1e-5)
