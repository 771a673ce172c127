"""Liveness that means something: progress of the committed offsets, not just a process that breathes.

Kafka consumers have been seen to go quiet for ever after a broker's outage while everything looks alive. A
worker whose committed offsets stand still although the log has more, and the cluster answers, ends itself
for its supervisor.
"""

import logging
import time
from collections.abc import Mapping

from models.errors import EddyError

log = logging.getLogger("eddy.worker")


MARKERS = 8
"""Offsets at a log's end that may be markers of other programs' transactions: nothing to read or commit."""


class StallWatch:
    """Feed it what was committed and where the log ends; it says how long nothing moved. Times in seconds."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._committed: dict[int, int] = {}
        self._since: float | None = None

    def observe(
        self, committed: Mapping[int, int | None], ends: Mapping[int, int], now: float | None = None
    ) -> float:
        """Seconds without progress although there is something to read; 0 while there is none.

        `ends`: log ends by owned partition, empty when the cluster did not answer (which is not a stall of
        ours). Errors: EddyError beyond the limit.
        """
        now = time.monotonic() if now is None else now
        known = {number: at for number, at in committed.items() if at is not None}
        behind = {number: end - known.get(number, 0) for number, end in ends.items()}
        behind = {number: records for number, records in behind.items() if records > MARKERS}
        if known != self._committed or not behind:
            self._committed, self._since = known, None
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
