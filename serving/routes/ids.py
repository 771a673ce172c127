"""Ids in requests. In a path an id may hold slashes: everything between the path's fixed parts is the id."""

from typing import Annotated

from fastapi import Path
from pydantic import AfterValidator


def encodable(text: str) -> str:
    """The text itself. Errors: ValueError when it cannot be written in UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is no Unicode text") from None
    return text


UserId = Annotated[str, Path(min_length=1, description="The user's id, percent-encoded.")]

ItemId = Annotated[str, AfterValidator(encodable)]
"""An item's id in a query or a body."""
