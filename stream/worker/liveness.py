"""Liveness that means something: progress of the committed offsets, not just a process that breathes.

Kafka consumers have been seen to go quiet for ever after a broker's outage while everything looks alive. A
worker whose committed offsets stand still although there is something left to read, and the cluster answers,
ends itself for its supervisor.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from eddy.models.errors import EddyError
from eddy.stream.worker.transport import Reading


@dataclass(frozen=True)
class Standing:
    """Where the work on one partition stands; offsets."""

    done: int | None
    """the next one to apply or to commit, None before the first record"""
    reading: Reading | None
    """None while the consumer has no position"""
    start: int
    """of the log: what was before is gone"""
    end: int

    @property
    def left(self) -> int:
        """How many are left; 0 where nothing is left to read. What retention has removed does not count, nor
        what is passed over in reading, like the markers of transactions at the log's end.
        """
        done = max(self.done or 0, self.start)
        reading = self.reading
        if reading is not None and (reading.handed is None or reading.handed <= done):
            done = max(done, reading.position)
        return max(self.end - done, 0)


class StallWatch:
    """Feed it how partitions stand; it says how long nothing was committed. Times in seconds."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._committed: dict[int, int | None] = {}
        self._since: float | None = None

    def stalled_seconds(self, standings: Mapping[int, Standing], now: float | None = None) -> float:
        """Seconds without progress although something is left; 0 while there is nothing.

        `standings`: of the owned partitions, as to commits; empty when the cluster did not answer (which is
        not a stall of ours). Errors: EddyError beyond the limit.
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
