"""Answers in JSON."""

import asyncio
import gzip
from collections.abc import Mapping

import msgspec
from fastapi import Request, Response

COMPRESSED_BYTES = 10_000
"""From which on a large answer is worth compressing."""


def json_answer(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer with this content: a dataclass, as the route's description says it."""
    return Response(msgspec.json.encode(content), status, headers, "application/json")


async def large_answer(request: Request, content: object) -> Response:
    """An answer that may be large: a dataclass, or JSON; compressed, beside other requests, if its caller
    accepts that.
    """
    body = content if isinstance(content, bytes) else await asyncio.to_thread(msgspec.json.encode, content)
    headers = {"vary": "Accept-Encoding"}
    if len(body) >= COMPRESSED_BYTES and _accepts_gzip(request):
        body = await asyncio.to_thread(gzip.compress, body, 5)
        headers["content-encoding"] = "gzip"
    return Response(body, headers=headers, media_type="application/json")


def _accepts_gzip(request: Request) -> bool:
    for part in request.headers.get("accept-encoding", "").split(","):
        coding, _, weight = part.partition(";")
        if coding.strip().lower() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
