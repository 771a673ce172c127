"""Work that waits for the cluster before a process has begun, and that nobody has to wait for who ends it."""

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

T = TypeVar("T")


class ToldToEnd(Exception):
    """The process is to end, and its work was not done yet."""


@contextmanager
def told_by_signals(end: Callable[[], object]) -> Iterator[None]:
    """Call `end` at each SIGTERM and SIGINT as long as the block runs, on the event loop that runs it."""
    loop, numbers = asyncio.get_running_loop(), (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, end)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def unless_told_to_end(work: Callable[[], T], told: Coroutine[Any, Any, object]) -> T:
    """The result of `work`, which is done on a thread of its own.

    Errors: those of the work, and ToldToEnd when `told` ends first. The thread is then left behind: one of
    the event loop's own would have to end before the loop does, and waiting for a cluster that does not
    answer can take it half a minute.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(setter: Callable[[Any], None], outcome: Any) -> None:
        if not done.done():
            setter(outcome)

    def tell(setter: Callable[[Any], None], outcome: Any) -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, setter, outcome)

    def run() -> None:
        try:
            tell(done.set_result, work())
        except Exception as error:
            tell(done.set_exception, error)

    threading.Thread(target=run, name="eddy-preparing", daemon=True).start()
    telling = asyncio.ensure_future(told)
    try:
        first: list[asyncio.Future[Any]] = [done, telling]
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            raise ToldToEnd
        return done.result()
    finally:
        telling.cancel()
        done.cancel()
