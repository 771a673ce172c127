"""Ids in requests. In a path an id may hold slashes: everything between the path's fixed parts is the id."""

from typing import Annotated

from fastapi import Path
from starlette.convertors import PathConvertor, register_url_convertor

from eddy.serving.catalogue.filter_language import encodable_field


class _AnyText(PathConvertor):
    """The rest of a path, line breaks included, which the framework's own convertor leaves out."""

    regex = "(?s:.*)"


register_url_convertor("path", _AnyText())

UserId = Annotated[str, Path(min_length=1, description="The user's id, percent-encoded.")]

ItemInPath = Annotated[str, Path(min_length=1, description="The item's id, percent-encoded.")]

ItemId = Annotated[str, encodable_field]
"""An item's id in a query or a body."""
