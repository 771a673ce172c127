"""How late the event loop is: the part of a request's wait that no queue shows.

Under more requests than can be read, they wait in their sockets. The loop then works through all sockets that
are ready before it comes back to its timers, and so a timer tells how long a request waits on either side of
the queue of questions.
"""

import asyncio

_TICK_S = 0.02


class LoopLag:
    """A timer that is due every 20 ms, and how late it is."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._late_s = 0.0
        self._due = self._loop.time() + _TICK_S
        self._timer = self._loop.call_at(self._due, self._tick)

    def seconds(self) -> float:
        """How late it was, or is already."""
        return max(self._late_s, self._loop.time() - self._due)

    def _tick(self) -> None:
        now = self._loop.time()
        self._late_s = now - self._due
        self._due = now + _TICK_S
        self._timer = self._loop.call_at(self._due, self._tick)

    def stop(self) -> None:
        """No timer any more."""
        self._timer.cancel()
