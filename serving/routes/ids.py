"""Ids in requests. In a path an id may hold slashes: everything between the path's fixed parts is the id."""

from typing import Annotated

from fastapi import Path
from pydantic import AfterValidator
from starlette.convertors import PathConvertor, register_url_convertor


class _AnyText(PathConvertor):
    """The rest of a path, line breaks included, which the framework's own convertor leaves out."""

    regex = "(?s:.*)"


register_url_convertor("path", _AnyText())


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is no Unicode text") from None
    return text


UserId = Annotated[str, Path(min_length=1, description="The user's id, percent-encoded.")]

ItemId = Annotated[str, AfterValidator(_encodable)]
"""An item's id in a query or a body."""
