"""Item statistics: decays that neither overflow nor depend on when they are asked, sums that replace."""

from collections import Counter

import numpy as np
import pytest

from eddy.models.config import DAY_MS
from eddy.models.errors import EddyError
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.scoring.partition_statistics import TRANSITION_HALF_LIFE_MS
from eddy.models.vocabulary import Catalogue

pytestmark = pytest.mark.unit

LIVES = (DAY_MS, 14 * DAY_MS)
NONE = np.full((1, 1), -1)
T0 = 1_370_000_000_000


def events(rng: np.random.Generator, n: int, items: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        rng.integers(items, size=n),
        T0 + np.sort(rng.integers(0, 30 * DAY_MS, n)),
        rng.integers(-1, items, (n, 3)),
    )


def test_a_count_halves_after_one_half_life() -> None:
    statistics = Statistics(LIVES, 4)
    statistics.count_events(0, np.array([2]), np.array([T0]), NONE)
    np.testing.assert_allclose(statistics.popularity(3, T0)[:, 2], [1, 1])
    np.testing.assert_allclose(statistics.popularity(3, T0 + DAY_MS)[0, 2], 0.5)
    np.testing.assert_allclose(statistics.popularity(3, T0 + 14 * DAY_MS)[1, 2], 0.5)


def test_popularity_equals_the_sum_over_all_events() -> None:
    item, time, previous = events(np.random.default_rng(1), 500)
    statistics = Statistics(LIVES, 4)
    for part in np.array_split(np.arange(500), 7):
        statistics.count_events(0, item[part], time[part], previous[part])
    now = float(time[-1] + DAY_MS)
    for f, life in enumerate(LIVES):
        expected = np.bincount(item, np.exp2((time - now) / life), minlength=20)
        np.testing.assert_allclose(statistics.popularity(20, now)[f], expected)


def test_decades_do_not_overflow() -> None:
    statistics = Statistics(LIVES, 4)
    for year in range(40):
        time = T0 + year * 365 * DAY_MS
        statistics.count_events(0, np.array([1, 2]), np.array([time, time]), np.array([[2], [1]]))
    counts = statistics.popularity(3, float(time))
    np.testing.assert_allclose(counts[0, 1:], 1, rtol=1e-6)
    index, share = statistics.transitions(np.array([[1]]), float(time))
    assert index[0, 0, 0] == 2
    assert 0 < share[0, 0, 0] < 1


def test_decades_before_what_was_counted_do_not_overflow() -> None:
    """The last event of a user may lie long before those of others (leave-one-out)."""
    statistics = Statistics(LIVES, 4)
    time = T0 + 60 * 365 * DAY_MS
    statistics.count_events(0, np.array([1, 2]), np.array([time, time]), np.array([[2], [1]]))
    index, share = statistics.transitions(np.array([[1]]), float(T0))
    assert index[0, 0, 0] == 2
    assert 0 < share[0, 0, 0] <= 1
    assert np.isfinite(statistics.popularity(3, float(T0))).all()


def test_partitions_add_up_to_the_whole() -> None:
    item, time, previous = events(np.random.default_rng(2), 300)
    whole, parts = Statistics(LIVES, 64), Statistics(LIVES, 64)
    whole.count_events(0, item, time, previous)
    for partition in range(3):
        mine = np.arange(300) % 3 == partition
        parts.count_events(partition, item[mine], time[mine], previous[mine])
    now = float(time[-1])
    np.testing.assert_allclose(parts.popularity(20, now), whole.popularity(20, now))
    np.testing.assert_allclose(table(parts, now), table(whole, now), rtol=1e-4, atol=1e-6)


def table(statistics: Statistics, now: float, items: int = 20) -> np.ndarray:
    """Shares of transitions as a dense matrix [from, to]."""
    index, share = statistics.transitions(np.arange(items)[:, None], now)
    dense = np.zeros((items, items))
    for source in range(items):
        filled = index[source, 0] >= 0
        np.add.at(dense[source], index[source, 0][filled], share[source, 0][filled])
    return dense


def test_transition_counts_equal_a_dictionary_while_there_is_room() -> None:
    item, time, previous = events(np.random.default_rng(3), 400)
    statistics = Statistics(LIVES, 32)
    for part in np.array_split(np.arange(400), 9):
        statistics.count_events(0, item[part], time[part], previous[part])
    now = float(time[-1])
    counts = np.zeros((20, 20))
    for target, when, earlier in zip(item, time, previous, strict=True):
        for lag, source in enumerate(earlier, start=1):
            if source not in (-1, target):  # a repeat is the pointer's business
                counts[source, target] += 2.0 ** ((when - now) / TRANSITION_HALF_LIFE_MS) / lag
    expected = counts / (counts.sum(axis=1, keepdims=True) + 1)
    np.testing.assert_allclose(table(statistics, now), expected, rtol=1e-4)


def test_frequent_successors_survive_a_full_table() -> None:
    rng = np.random.default_rng(4)
    target = np.where(rng.random(4000) < 0.6, rng.integers(1, 4, 4000), rng.integers(4, 500, 4000))
    statistics = Statistics(LIVES, 8)
    for part in np.array_split(np.arange(4000), 40):
        statistics.count_events(0, target[part], np.full(len(part), T0), np.zeros((len(part), 1), np.int64))
    index, share = statistics.transitions(np.array([[0]]), float(T0))
    best = index[0, 0][np.argsort(-share[0, 0])[:3]]
    assert set(best.tolist()) == {1, 2, 3}


def test_an_export_put_in_place_twice_counts_once_and_survives_another_numbering() -> None:
    item, time, previous = events(np.random.default_rng(5), 200)
    hashes = np.arange(100, 120, dtype=np.uint64)
    exporter, importer = Statistics(LIVES, 8), Statistics(LIVES, 8)
    exporter.count_events(3, item, time, previous)
    exported = exporter.export_partition(3, hashes)
    catalogue = Catalogue()
    order = catalogue.add(hashes[::-1])
    for _ in range(2):
        importer.replace_partition(3, exported, catalogue)
    now = float(time[-1])
    imported = importer.popularity(20, now)[:, order[::-1]]
    np.testing.assert_allclose(imported, exporter.popularity(20, now))
    numbers = order[::-1]
    np.testing.assert_allclose(
        table(importer, now)[np.ix_(numbers, numbers)], table(exporter, now), rtol=1e-5
    )


def test_a_replaced_partition_goes_on_counting() -> None:
    item, time, previous = events(np.random.default_rng(6), 200)
    catalogue = Catalogue(np.arange(100, 120, dtype=np.uint64))
    straight, restored = Statistics(LIVES, 32), Statistics(LIVES, 32)
    straight.count_events(0, item[:100], time[:100], previous[:100])
    restored.replace_partition(0, straight.export_partition(0, catalogue.hashes), catalogue)
    for statistics in (straight, restored):
        statistics.count_events(0, item[100:], time[100:], previous[100:])
    now = float(time[-1])
    np.testing.assert_allclose(restored.popularity(20, now), straight.popularity(20, now))
    np.testing.assert_allclose(table(restored, now), table(straight, now), rtol=1e-5)


def test_malformed_exports_are_refused_and_change_nothing() -> None:
    statistics = Statistics(LIVES, 8)
    item, time, previous = events(np.random.default_rng(7), 50)
    catalogue = Catalogue(np.arange(100, 120, dtype=np.uint64))
    statistics.count_events(0, item, time, previous)
    good = statistics.export_partition(0, catalogue.hashes)
    before = statistics.popularity(20, T0)
    for broken in ({**good, "count": good["count"][:-1]}, {k: v for k, v in good.items() if k != "item"}):
        with pytest.raises(EddyError, match="partition 0"):
            statistics.replace_partition(0, broken, catalogue)
    np.testing.assert_array_equal(statistics.popularity(20, T0), before)


def test_successors_are_the_most_counted_of_all_partitions_together() -> None:
    statistics = Statistics((), 3)
    followed = {0: [1, 1, 2, 2, 2, 3, 3, 3, 3], 1: [1, 1, 1, 1, 4], 2: [5]}
    for partition, items in followed.items():
        for item in items:
            statistics.count_events(partition, np.array([item]), np.array([T0]), np.array([[0]]))
    index, share = statistics.successors_of(np.array([0, -1, 9]), float(T0))
    assert dict(zip(index[0].tolist(), (share[0] * (15 + 1)).round().tolist(), strict=True)) == {
        1: 6,
        3: 4,
        2: 3,
    }
    assert index[1:].tolist() == [[-1] * 3] * 2
    assert share[1:].sum() == 0


def test_newcomers_take_the_smallest_places_that_they_outweigh() -> None:
    """Item 0 was followed by 1, three times, and by 2, once; then by 3 and 4 twice each, at the same time."""
    statistics = Statistics((), 2)
    for followed in ([1, 1, 1, 2], [3, 4, 4, 3]):
        statistics.count_events(0, np.array(followed), np.full(4, T0), np.zeros((4, 1), np.int64))
    index, share = statistics.successors_of(np.array([0]), float(T0))
    counts = dict(zip(index[0].tolist(), (share[0] * (8 + 1)).round().tolist(), strict=True))
    assert counts == {1: 3 - 2, 3: 2}  # 3 took the place of 2, and 4 wore down 1


@pytest.mark.parametrize("seed", range(4))
def test_each_newcomer_meets_the_slot_of_its_rank(seed: int) -> None:
    """Item 0 is followed by others again and again, with many ties; four of them have slots."""
    rng, statistics, slots = np.random.default_rng(seed), Statistics((), 4), [(-1, 0.0)] * 4
    for _ in range(50):
        followed = rng.integers(1, 12, rng.integers(1, 16))
        previous = np.zeros((len(followed), 1), np.int64)
        statistics.count_events(0, followed, np.full(len(followed), T0), previous)
        slots = offered(slots, Counter(followed.tolist()))
        part = statistics.partition(0)
        assert [*zip(part.successor[0].tolist(), part.count[0].tolist(), strict=True)] == slots


def offered(slots: list[tuple[int, float]], counted: Counter[int]) -> list[tuple[int, float]]:
    """(successor, count) of each slot, once the followers were counted."""
    slots = [(item, count + counted.pop(item, 0)) for item, count in slots]
    newcomers = sorted(counted.items(), key=lambda pair: -pair[1])
    for place, (item, weight) in zip(
        sorted(range(len(slots)), key=lambda at: slots[at][1]), newcomers, strict=False
    ):
        old, count = slots[place]
        slots[place] = (item, float(weight)) if old < 0 or count <= weight else (old, count - weight)
    return slots
