"""Errors as the API tells them: problem details in JSON (RFC 9457), whoever found the error.

{"type": "about:blank", "title": "Bad Request", "status": 400, "detail": "k: must be at least 1"}
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from eddy.serving.admission import RETRY_AFTER, Overloaded

PROBLEM_TYPE = "application/problem+json"

TOLD_FAULTS = 10
"""So many things that are wrong with a request are told; a request can have a hundred thousand."""


class Problem(BaseModel):
    """Why a request was refused or could not be answered."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    type: str = "about:blank"
    title: str
    status: int
    detail: str


def problem_bytes(status: int, detail: str, **members: object) -> bytes:
    """A problem as JSON. members: what it says beside the members that every problem has."""
    told = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail)
    return msgspec.json.encode({**told.model_dump(), **members})


def problem(
    status: int, detail: str, headers: Mapping[str, str] | None = None, **members: object
) -> Response:
    """A response that tells of a problem; members: as `problem_bytes`."""
    return Response(problem_bytes(status, detail, **members), status, headers, PROBLEM_TYPE)


def failure(error: Exception) -> Response:
    """A response when something failed that nobody foresaw."""
    return problem(500, f"the server failed to answer ({type(error).__name__}); its log says more")


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What the API's description says of these statuses of a route."""
    content = {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content} for status in sorted(statuses)
    }


def answer_with_problems(app: FastAPI) -> None:
    """Let every error of an application be answered as a problem: the framework's, and the refusal of a
    question that would wait for too long.
    """

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return problem(error.status_code, str(error.detail), error.headers)

    async def misunderstood(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        faults = error.errors()
        lines = [_line(fault) for fault in faults[:TOLD_FAULTS]]
        if len(faults) > TOLD_FAULTS:
            lines.append(f"and {len(faults) - TOLD_FAULTS} more")
        return problem(400, "; ".join(lines))

    async def overloaded(_: Request, error: Exception) -> Response:
        assert isinstance(error, Overloaded)
        return problem(503, str(error), RETRY_AFTER)

    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(RequestValidationError, misunderstood)
    app.add_exception_handler(Overloaded, overloaded)


def _line(error: Mapping[str, Any]) -> str:
    """What pydantic found wrong, as "parameter: reason"; the value itself is the caller's own business."""
    where = _place([part for part in error["loc"] if part not in ("query", "body", "path", "header")])
    reason = error["msg"]
    if error["type"] == "json_invalid":
        where, reason = "", f"the body is no JSON ({error['ctx']['error']})"
    if error["type"] == "value_error":
        reason = str(error["ctx"]["error"])  # without pydantic's "Value error, "
    if error["type"] == "extra_forbidden":
        reason = "there is no such parameter"
    return f"{where}: {reason}" if where else reason


def _place(parts: Sequence[str | int]) -> str:
    """Where in a body or query: `items[3].price`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")
