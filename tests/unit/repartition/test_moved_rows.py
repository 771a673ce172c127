"""Rows and item statistics under another partition count: what moves, and that sums stay sums."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from eddy.models.config import DAY_MS
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.scoring.partition_statistics import TRANSITION_HALF_LIFE_MS
from eddy.models.vocabulary import Catalogue
from eddy.stream.repartition.moved_rows import moved_rows, moved_statistics
from eddy.stream.state.item_statistics import StatisticsReader
from eddy.stream.state.rows import decode_rows, encode_rows
from tests.support.engines import Happening, assert_same_rows, batch, new_engine, random_version, stored_rows

LIVES = (DAY_MS, 14 * DAY_MS)
ITEMS, OLD = 40, 4
NOW = 2_000_000_000_000
Sums = dict[tuple[int, ...], float]


def catalogue() -> Catalogue:
    return Catalogue(np.arange(1, ITEMS + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))


def counted(successors: int, seed: int = 0) -> Statistics:
    """Four partitions whose events lie months apart, so that each has a reference of its own."""
    rng = np.random.default_rng(seed)
    statistics = Statistics(LIVES, successors)
    for number in range(OLD):
        for _ in range(3):
            time = NOW - (OLD - number) * 90 * DAY_MS + np.sort(rng.integers(0, DAY_MS, 200))
            previous = rng.integers(-1, ITEMS, (200, 2))
            statistics.count_events(number, rng.integers(0, ITEMS, 200), time, previous)
    return statistics


def sums(statistics: Statistics, hashes: NDArray[np.uint64], now: int = NOW) -> tuple[Sums, Sums, Sums]:
    """Over all partitions, as of `now`: popularity by half-life and item, transitions by pair, totals."""
    popularity: Sums = defaultdict(float)
    pairs: Sums = defaultdict(float)
    totals: Sums = defaultdict(float)
    for number in statistics.partitions:
        one: dict[str, Any] = dict(statistics.export_partition(number, hashes))
        for f, life in enumerate(statistics.half_lives_ms):
            weight = 2.0 ** ((float(one["reference"][f]) - now) / life)
            for item, value in zip(one["item"].tolist(), one["popularity"][f].tolist(), strict=True):
                popularity[f, item] += value * weight
        decay = 2.0 ** ((float(one["transition_reference"][0]) - now) / TRANSITION_HALF_LIFE_MS)
        for row, source in enumerate(one["source"].tolist()):
            totals[(source,)] += float(one["total"][row]) * decay
            for name, count in zip(one["successor"][row].tolist(), one["count"][row].tolist(), strict=True):
                if name:
                    pairs[source, name] += count * decay
    return dict(popularity), dict(pairs), dict(totals)


def read_again(statistics: Statistics, partitions: int) -> tuple[Statistics, Catalogue]:
    reader = StatisticsReader(Statistics(statistics.half_lives_ms, statistics.successors), Catalogue())
    moved = moved_statistics(statistics, catalogue(), partitions)
    assert all(number < partitions for number in moved)
    for number, records in moved.items():
        reader.apply_records(number, records)
    return reader.statistics, reader.catalogue


@pytest.mark.parametrize("partitions", [1, 3, 4, 8])
def test_popularities_transitions_and_totals_are_the_same_sums_over_any_number_of_partitions(
    partitions: int,
) -> None:
    before = counted(successors=ITEMS)
    after, names = read_again(before, partitions)
    assert len(after.partitions) == min(partitions, OLD)
    for expected, found in zip(sums(before, catalogue().hashes), sums(after, names.hashes), strict=True):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_where_partitions_together_have_more_successors_than_are_kept_the_most_counted_stay() -> None:
    before = counted(successors=8)
    after, names = read_again(before, 1)
    _, pairs, totals = sums(before, catalogue().hashes)
    _, kept, kept_totals = sums(after, names.hashes)
    assert kept_totals == pytest.approx(totals, rel=1e-4)
    for source in {source for source, _ in pairs}:
        most = sorted((count for (one, _), count in pairs.items() if one == source), reverse=True)[:8]
        found = sorted((count for (one, _), count in kept.items() if one == source), reverse=True)
        assert found == pytest.approx(most, rel=1e-4)


def test_a_partition_without_counts_is_left_out_and_counting_goes_on_from_what_was_moved() -> None:
    before = Statistics(LIVES, 8)
    assert moved_statistics(before, catalogue(), 8) == {}
    before.count_events(2, np.array([1]), np.array([NOW]), np.array([[0]]))
    assert set(moved_statistics(before, catalogue(), 8)) == {2}
    after, names = read_again(before, 8)
    item = names.find(catalogue().hashes[[1]])
    after.count_events(2, item, np.array([NOW]), np.full((1, 1), -1))
    assert after.popularity(len(names), NOW)[0, item[0]] == pytest.approx(2.0)


def test_a_half_life_that_a_partition_lacks_is_summed_over_the_others_and_tells_of_no_idle_item() -> None:
    before, wider = Statistics(LIVES[:1], 8), Statistics(LIVES, 8)
    event = np.array([1]), np.array([NOW]), np.full((1, 1), -1)
    before.count_events(0, *event)
    before.widen(LIVES, 8)
    before.count_events(1, *event)
    after, names = read_again(before, 1)
    wider.count_events(0, *event)
    item = names.find(catalogue().hashes[[1]])
    assert after.popularity(len(names), NOW)[:, item[0]].tolist() == [2, 1]
    assert after.lacking(0) == ()
    later = float(NOW + 600 * DAY_MS)
    assert not after.partitions[0].idle_items(len(names), later, 590 * DAY_MS).any()
    assert wider.partitions[0].idle_items(2, later, 590 * DAY_MS).all()


def test_a_moved_row_keeps_all_but_its_place(tmp_path: Path) -> None:
    engine = new_engine(random_version(tmp_path))
    happenings = [Happening(f"u{i % 3}", f"item-{i % 7}", 1_000 + i) for i in range(200)]
    engine.apply([batch(happenings, range(200))])
    before = stored_rows(engine)
    new_topic = bytes(range(16, 32))
    records = moved_rows(list(zip(before.user, encode_rows(before), strict=True)), new_topic, 5)
    (after,) = decode_rows([user or b"" for user, _ in records], [value or b"" for _, value in records])
    assert after.topic_id == new_topic
    assert (after.partition == 5).all()
    assert (after.offset == -1).all()
    assert_same_rows(replace(after, offset=before.offset), before)
