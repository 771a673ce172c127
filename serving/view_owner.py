"""One at a time: whoever touches the view does so alone, on a thread of its own or, if it is short, at once.

To hand work to a thread and to wait for its result costs more than most answers do, and two threads in one
interpreter take turns that both wait for: with 10,000 items lists took three times as long that way. So short
work is done on the event loop, unless the thread is at work; what takes longer, or waits, does not stop the
connections of others.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TypeVar

import torch

T = TypeVar("T")

SHORT_S = 0.004
"""Work that is expected to take no longer may be done on the event loop."""


class ViewOwner:
    """See the module. It is used from the event loop of the thread that makes it."""

    def __init__(self) -> None:
        torch.set_num_threads(1)  # of this thread, where short work is done
        self._thread = ThreadPoolExecutor(1, "eddy-serving", torch.set_num_threads, (1,))
        self._at_work = Lock()

    async def do(self, work: Callable[[], T]) -> T:
        """Do work on the thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._alone, work)

    async def do_soon(self, work: Callable[[], T], expected_s: float = 0.0) -> T:
        """Do work that is expected to take so many seconds: at once if it is short and the thread is not at
        work, else on the thread.
        """
        if expected_s > SHORT_S or not self._at_work.acquire(blocking=False):
            return await self.do(work)
        try:
            return work()
        finally:
            self._at_work.release()

    def _alone(self, work: Callable[[], T]) -> T:
        with self._at_work:
            return work()

    def close(self) -> None:
        """Wait for the work under way."""
        self._thread.shutdown()
