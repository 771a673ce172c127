"""Ids in requests. In a path an id may hold slashes: everything between the path's fixed parts is the id."""

from typing import Annotated

from fastapi import Path

from eddy.serving.catalogue.filter_language import encodable_field

UserId = Annotated[str, Path(min_length=1, description="The user's id, percent-encoded.")]

ItemInPath = Annotated[str, Path(min_length=1, description="The item's id, percent-encoded.")]

ItemId = Annotated[str, encodable_field]
"""An item's id in a query or a body."""
