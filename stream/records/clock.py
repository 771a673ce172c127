"""The stream clock: what "now" means for decays and time gaps."""

import time

from eddy.models.config import DAY_MS


def wall_ms() -> int:
    """Wall clock, ms since 1970."""
    return time.time_ns() // 1_000_000


class StreamClock:
    """The greatest accepted event time, moved on by wall time for up to a day where the stream is live.

    A stream is live when its latest event, as it was taken in, was within a day of the wall clock. So a
    replay of an old log lives in the log's own time and does not change by waiting, a live stream does not
    stand still between events, and a stream that falls silent stands still a day after its latest event.
    Guarantee: `now` never falls, whatever events, silence and the wall clock do. All times are in ms.
    """

    def __init__(self) -> None:
        self._latest = -1
        self._live = False
        self._now = -1

    def observe(self, event_time: int, wall: int) -> None:
        """Take in the time of an accepted event, and the wall clock's."""
        if event_time > self._latest:
            self._latest = event_time
            self._live = abs(wall - event_time) < DAY_MS

    def now(self, wall: int) -> int:
        """The stream's now; -1 before the first event."""
        moved_on = min(wall, self._latest + DAY_MS) if self._live else self._latest
        self._now = max(self._now, self._latest, moved_on)
        return self._now


__all__ = ["DAY_MS", "StreamClock", "wall_ms"]
