"""Processes that have a log's events among them agree on its rows."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from eddy.models.logs import column_store
from eddy.models.logs.column_store import IN_MEMORY, ColumnStore
from eddy.models.logs.events import Events, Origin
from eddy.models.training.distributed import Group
from eddy.models.training.group_log import GroupLog, arrivals, gathered
from tests.support.training import log

pytestmark = pytest.mark.unit


class Meeting:
    """Where threads that stand for processes exchange values."""

    def __init__(self, size: int) -> None:
        self._barrier = threading.Barrier(size, timeout=60)
        self._told: list[Any] = [None] * size

    def exchange(self, rank: int, value: Any) -> list[Any]:
        self._told[rank] = value
        self._barrier.wait()
        told = list(self._told)
        self._barrier.wait()
        return told


@dataclass(frozen=True)
class ThreadGroup(Group):
    meeting: Meeting = field(default_factory=lambda: Meeting(1))

    def total(self, array: Any) -> Any:
        return np.sum(self.meeting.exchange(self.rank, array), axis=0)

    def each(self, number: int) -> Any:
        return np.array(self.meeting.exchange(self.rank, number))

    def to_first(self, value: Any) -> list[Any] | None:
        told = self.meeting.exchange(self.rank, value)
        return told if self.first else None


@pytest.mark.parametrize("times", [1, 5, 1000])
@pytest.mark.parametrize("of_all", [0, 120])
def test_a_row_of_all_events_is_found_in_each_process_whatever_the_ties(of_all: int, times: int) -> None:
    size, count = 3, 300
    rng = np.random.default_rng(times)
    time = np.concatenate([np.sort(rng.integers(times, size=part)) for part in (of_all, count - of_all)])
    owner = rng.integers(size, size=count)
    events = replace(log(owner, owner), timestamp=time, origin=Origin((), np.arange(count)))
    rows = np.arange(of_all, count + 1)
    meeting = Meeting(size)

    def of_process(rank: int) -> tuple[np.ndarray, np.ndarray]:
        own = events.take(owner == rank)
        begin = int((owner[:of_all] == rank).sum())
        return GroupLog(own, ThreadGroup(rank, size, meeting=meeting)).own_rows(rows, begin, of_all)

    with ThreadPoolExecutor(size) as threads:
        found = list(threads.map(of_process, range(size)))
    for rank, (own_rows, times_there) in enumerate(found):
        before = np.concatenate([[0], np.cumsum(owner == rank)])
        assert own_rows.tolist() == before[rows].tolist()
        assert times_there.tolist() == time[np.minimum(rows, count - 1)].tolist()


@pytest.mark.parametrize("limit_bytes", [None, 0])
def test_the_first_process_gets_the_picked_events_of_all_in_order_slice_by_slice(
    limit_bytes: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(column_store, "SLICE_ROWS", 7)
    size, count, first = 3, 300, 200
    rng = np.random.default_rng(0)
    time = np.concatenate([np.sort(rng.integers(20, size=part)) for part in (first, count - first)])
    user = rng.integers(9, size=count)
    owner = np.where(user < 6, 0, 1 + user % 2)  # processes have different numbers of events
    picked = rng.random(9) < 0.5
    every = replace(
        log(user, rng.integers(5, size=count)), timestamp=time, origin=Origin((), np.arange(count))
    )
    expected = every.take(picked[user])
    meeting = Meeting(size)

    def of_process(rank: int) -> tuple[Events, int] | None:
        store = ColumnStore(limit_bytes) if limit_bytes is not None else IN_MEMORY
        own = replace(every.take(owner == rank), store=store)
        begin = int((owner[:first] == rank).sum())
        return gathered(GroupLog(own, ThreadGroup(rank, size, meeting=meeting)), picked[own.user], begin)

    with ThreadPoolExecutor(size) as threads:
        together, *others = threads.map(of_process, range(size))
    assert others == [None, None]
    assert together is not None
    events, begin = together
    assert begin == picked[user[:first]].sum()
    for name in ("user", "item", "timestamp", "type", "value"):
        assert np.array_equal(getattr(events, name), getattr(expected, name), equal_nan=name == "value")
    assert np.array_equal(arrivals(events), arrivals(expected))
