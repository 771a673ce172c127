"""Views of the server as tests bring them about."""

from __future__ import annotations

from eddy.models.registry import Version
from eddy.serving.view import MaterialisedView
from eddy.stream.engine.numbering import numbering_steps


def put_version(view: MaterialisedView, version: Version, epoch: int) -> None:
    """Have a view score with a version, by the steps in which the service brings it there."""
    for step in numbering_steps(version, view.names):
        step()
    new = view.new_version(version, epoch)
    assert view.put_version(new, new.build())
