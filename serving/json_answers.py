"""Answers in JSON."""

from collections.abc import Mapping

import msgspec
from fastapi import Response


def json_answer(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer with this content: a dataclass, as the route's description says it."""
    return Response(msgspec.json.encode(content), status, headers, "application/json")
