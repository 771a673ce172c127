"""Processes that have a log's events among them agree on its rows."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from eddy.models.logs.events import Origin
from eddy.models.training.distributed import Group
from eddy.models.training.group_log import GroupLog
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
