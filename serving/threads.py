"""Where work of requests is done: on the view's thread, or beside it."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from eddy.serving.view import MaterialisedView

T = TypeVar("T")


class Threads(Protocol):
    """A service, as far as its threads are concerned."""

    async def look_up(self, work: Callable[[MaterialisedView], T]) -> T:
        """Do work on the view's thread, on which lists wait for it: it must not take long."""

    def beside(self, work: Callable[[], T]) -> Awaitable[T]:
        """Do work on copies, beside the view's thread."""
