"""Events on their way into the item statistics."""

from __future__ import annotations

import numpy as np
import pytest

from eddy.models.scoring.item_statistics import Statistics
from eddy.stream.engine.statistics_buffer import StatisticsBuffer

pytestmark = pytest.mark.unit


def add(buffer: StatisticsBuffer, first: int, n: int, lags: int = 2) -> None:
    """Add events first … first + n - 1 of partition 0; the item is the offset."""
    offset = np.arange(first, first + n)
    previous = np.tile(offset[:, None] + 1, (1, lags))
    buffer.add_events(np.zeros(n, np.int32), offset, offset, 1000 + offset, previous)


def test_a_tap_gives_every_event_that_is_counted_after_it_was_begun_and_no_other() -> None:
    buffer = StatisticsBuffer(Statistics((1000,), 4))
    buffer.begin_partition(0, -1)
    add(buffer, 0, 5)
    assert buffer.begin_tap(0) == 4
    add(buffer, 3, 5)  # two of them again
    buffer.flush()
    add(buffer, 8, 2)
    tapped = buffer.end_tap(0)
    assert tapped is not None
    assert np.concatenate([counted.item for counted in tapped]).tolist() == [5, 6, 7, 8, 9]
    assert buffer.end_tap(0) is None


def test_a_tap_ends_with_its_partition() -> None:
    buffer = StatisticsBuffer(Statistics((1000,), 4))
    buffer.begin_partition(0, -1)
    buffer.begin_tap(0)
    buffer.forget_partition(0)
    buffer.begin_partition(0, -1)
    assert buffer.end_tap(0) is None


def test_tapped_items_keep_up_with_new_numbers() -> None:
    buffer = StatisticsBuffer(Statistics((1000,), 4))
    buffer.begin_tap(0)
    add(buffer, 0, 3)
    buffer.flush()
    buffer.renumber(np.array([2, -1, 0, 1]))
    (counted,) = buffer.end_tap(0) or []
    assert counted.item.tolist() == [2, -1, 0]


def test_events_of_versions_that_look_at_other_numbers_of_items_before_them_are_counted_together() -> None:
    mixed, apart = Statistics((), 4), Statistics((), 4)
    for statistics, at_once in ((mixed, True), (apart, False)):
        buffer = StatisticsBuffer(statistics)
        for first, lags in ((0, 1), (5, 3), (10, 0)):
            add(buffer, first, 5, lags)
            if not at_once:
                buffer.flush()
        buffer.flush()
    for ours, theirs in zip(
        mixed.successors_of(np.arange(16), 0.0), apart.successors_of(np.arange(16), 0.0), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
