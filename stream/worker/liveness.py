"""Liveness measured by progress: a worker is alive when its committed offsets move, not when its process
runs.

Kafka consumers have been seen to fall silent for ever after a broker's outage, while everything looked alive.
A worker ends itself, to be restarted by its supervisor, when its committed offsets stand still although the
cluster answers and has more records.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from eddy.models.errors import EddyError
from eddy.stream.worker.transport import Reading


@dataclass(frozen=True)
class Standing:
    """How far the work on one partition has come, in offsets."""

    done: int | None
    """the next record to apply or to commit; None before the first one"""
    reading: Reading | None
    """None while the consumer has no position in the partition"""
    start: int
    """where the log begins; earlier records were removed"""
    end: int

    @property
    def left(self) -> int:
        """How many offsets are left to do; 0 where nothing is left to read. Offsets that retention removed do
        not count, nor do those that the consumer passes over, such as transaction markers at the log's end.
        """
        done = max(self.done or 0, self.start)
        reading = self.reading
        if reading is not None and (reading.handed is None or reading.handed <= done):
            done = max(done, reading.position)
        return max(self.end - done, 0)


class StallWatch:
    """Measures for how many seconds nothing was committed although records were left."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._committed: dict[int, int | None] = {}
        self._since: float | None = None

    def stalled_seconds(self, standings: Mapping[int, Standing], now: float | None = None) -> float:
        """Seconds since the last commit, or since records were left to do; 0 while none are.

        `standings`: of the owned partitions, with `done` as committed; empty when the cluster did not answer,
        since that is no stall of the worker. Errors: EddyError when the limit is exceeded.
        """
        now = time.monotonic() if now is None else now
        committed = {number: standing.done for number, standing in standings.items()}
        behind = {number: standing.left for number, standing in standings.items() if standing.left}
        if committed != self._committed or not behind:
            self._committed, self._since = committed, None
            return 0.0
        if self._since is None:
            self._since = now
        stalled = now - self._since
        if stalled > self.limit_s:
            raise EddyError(
                f"committed offsets have not moved for {stalled:.0f} s although partitions "
                f"{sorted(behind)} have {sum(behind.values())} records more; ending, to be restarted by a "
                "supervisor"
            )
        return stalled
