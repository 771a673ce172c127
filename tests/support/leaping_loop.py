"""A clock for tests that leaps: it stands still while there is something to do, and is at the next timer as
soon as there is not. So timeouts, polls and intervals of any length pass in microseconds, in the same order
on a machine of any speed.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any

PATIENCE_S = 300.0
"""How long a test may take by the leaping clock."""


class _LeapingSelector(selectors.DefaultSelector):
    """Asks the loop whether there is anything to wait for."""

    loop: LeapingLoop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is not None and timeout > 0:
            if self.loop.at_work:
                timeout = None  # until a thread is done
            else:
                self.loop.now_s += timeout
                timeout = 0
        return super().select(timeout)


class LeapingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock is not the machine's."""

    def __init__(self) -> None:
        selector = _LeapingSelector()
        selector.loop = self
        self.now_s = 0.0
        self.at_work = 0
        """calls under way on other threads"""
        super().__init__(selector)

    def time(self) -> float:
        return self.now_s

    def leap(self, seconds: float) -> None:
        """Let so much time pass although threads may be at work. May be called on any thread."""

        def pass_time() -> None:
            self.now_s += seconds

        self.call_soon_threadsafe(pass_time)

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future = super().run_in_executor(executor, func, *args)
        self.at_work += 1

        def done(_: object) -> None:
            self.at_work -= 1

        future.add_done_callback(done)
        return future


def in_leaping_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test that awaits, with a clock that leaps."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        async def in_time() -> None:
            async with asyncio.timeout(PATIENCE_S):
                await test(**fixtures)

        with asyncio.Runner(loop_factory=LeapingLoop) as runner:
            runner.run(in_time())

    return run
