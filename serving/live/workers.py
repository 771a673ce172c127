"""All workers, by what they tell of themselves on `metrics`.

A worker's counts go on from its start, so that two of its reports say what happened between them. Who has
ended says so; who was killed is gone when nothing has been heard for a while, and forgotten later.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eddy.serving.live.answers import WorkerNow
from eddy.stream.records.worker_reports import DURATIONS_MS, Reported, WorkerReport

GONE_MS = 10_000
"""A worker that has told nothing for so long is gone."""

FORGOTTEN_MS = 3_600_000
"""A worker that is gone for so long is shown no more."""

MAX_WORKERS = 4_096
"""So many are known at most; beyond, whoever told least lately is forgotten."""


@dataclass
class _Worker:
    """What a worker has told: lately, and before that since the same start."""

    newest: WorkerReport
    heard: int
    """ms since 1970, when the cluster took the report in"""
    before: WorkerReport | None = None
    counted: WorkerReport | None = None
    """up to which its counts were taken by `Workers.take_interval`"""

    def events_per_s(self) -> float | None:
        """Events applied per second between the last two reports."""
        if self.before is None:
            return None
        seconds = (self.newest.told_at - self.before.told_at) / 1000
        return max(self.newest.applied - self.before.applied, 0) / seconds if seconds > 0 else None


@dataclass(frozen=True)
class Interval:
    """What all workers have done since the interval before."""

    freshness: NDArray[np.int64]
    """records by DURATIONS_MS"""
    dead: int


class Workers:
    """See the module."""

    def __init__(self) -> None:
        self._workers: dict[str, _Worker] = {}

    def take(self, said: Reported, heard: int) -> None:
        """Take in a record that the cluster had at `heard` (ms)."""
        name, report = said
        if report is None:
            self._workers.pop(name, None)
            return
        known = self._workers.pop(name, None)
        if known is not None and known.newest.instance == report.instance:
            known.before = known.newest if report.told_at > known.newest.told_at else known.before
            known.newest, known.heard = report, heard
            self._workers[name] = known
        else:
            self._workers[name] = _Worker(report, heard)
        if len(self._workers) > MAX_WORKERS:
            del self._workers[next(iter(self._workers))]

    def now(self, wall: int) -> list[WorkerNow]:
        """The workers by name, as of a time (ms)."""
        for name in [name for name, worker in self._workers.items() if wall - worker.heard > FORGOTTEN_MS]:
            del self._workers[name]
        return [_shown(name, self._workers[name], wall) for name in sorted(self._workers)]

    def take_interval(self, wall: int) -> Interval:
        """What those workers that are not gone have counted since the last call. What a worker had counted
        when it was first heard of is not of this interval.
        """
        freshness, dead = np.zeros(len(DURATIONS_MS) + 1, np.int64), 0
        for worker in self._workers.values():
            counted, worker.counted = worker.counted, worker.newest
            if counted is not None and wall - worker.heard <= GONE_MS:
                freshness += np.array(worker.newest.freshness) - np.array(counted.freshness)
                dead += worker.newest.dead - counted.dead
        return Interval(np.maximum(freshness, 0), max(dead, 0))


def _shown(name: str, worker: _Worker, wall: int) -> WorkerNow:
    report, gone = worker.newest, wall - worker.heard > GONE_MS
    return WorkerNow(
        worker=name,
        partitions=report.partitions,
        state="gone" if gone else report.state,
        progress=None if gone else report.progress,
        events_per_s=0.0 if gone else worker.events_per_s(),
        lag=report.lag,
        epoch=report.epoch,
        rows=report.rows,
        rows_of_older_epochs=report.rows_of_older_epochs,
        seen_ms_ago=max(wall - worker.heard, 0),
    )


def without_worker(workers: Sequence[WorkerNow], partitions: int) -> list[int]:
    """The partitions that no worker has."""
    owned = {number for worker in workers if worker.state != "gone" for number in worker.partitions}
    return [number for number in range(partitions) if number not in owned]


__all__ = ["FORGOTTEN_MS", "GONE_MS", "MAX_WORKERS", "Interval", "Workers", "without_worker"]
