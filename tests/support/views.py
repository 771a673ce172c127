"""Views of the server as tests bring them about."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from eddy.models.registry import Version
from eddy.serving.view import MaterialisedView
from eddy.stream.engine.numbering import numbering_steps

T = TypeVar("T")


class AtOnce:
    """Does all work of a server's threads (`eddy.serving.threads`) where it is asked for."""

    def __init__(self, view: MaterialisedView) -> None:
        self.view = view

    async def look_up(self, work: Callable[[MaterialisedView], T]) -> T:
        """See `Threads`."""
        return work(self.view)

    async def beside(self, work: Callable[[], T]) -> T:
        """See `Threads`."""
        return work()


def put_version(view: MaterialisedView, version: Version, epoch: int) -> None:
    """Have a view score with a version, by the steps in which the service brings it there."""
    for step in numbering_steps(version, view.names):
        step()
    new = view.new_version(version, epoch)
    assert view.put_version(new, new.build())
