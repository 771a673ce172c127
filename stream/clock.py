"""The stream clock: what "now" means for decays and time gaps."""

import time

from models.config import DAY_MS


def wall_ms() -> int:
    """Wall clock, ms since 1970."""
    return time.time_ns() // 1_000_000


class StreamClock:
    """The greatest accepted event time, moved on by wall time only when within a day of it.

    So a replay of an old log lives in the log's own time and does not change by waiting, and a live stream
    does not stand still between events. Times in ms.
    """

    def __init__(self) -> None:
        self._latest = -1
        self._seen_at = 0

    def observe(self, event_time: int, wall: int) -> None:
        """Take in the time of an accepted event."""
        if event_time > self._latest:
            self._latest = event_time
            self._seen_at = wall

    def now(self, wall: int) -> int:
        """The stream's now; -1 before the first event."""
        if self._latest >= 0 and abs(wall - self._latest) < DAY_MS:
            return max(self._latest, wall)
        return self._latest


__all__ = ["DAY_MS", "StreamClock", "wall_ms"]
