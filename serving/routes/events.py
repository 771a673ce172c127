"""Events in: what people do, from applications and straight from their pages."""

import asyncio
from base64 import b64decode
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, HTTPException, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect

from eddy.models.untrusted import Unreadable
from eddy.serving.admission import RETRY_AFTER
from eddy.serving.event_writer import Unwritten
from eddy.serving.json_answers import json_answer
from eddy.serving.live.streams import TIME_HEADER
from eddy.serving.posted_events import MAX_EVENTS, PostedEvents, check_events, event_schema, split_body
from eddy.serving.problems import problem, responses
from eddy.serving.scopes import WRITE
from eddy.serving.service import Service
from eddy.stream.records.admission import Admission
from eddy.stream.records.clock import wall_ms

ON_THREAD_BYTES = 32 << 10
"""Larger bodies are checked on a thread."""

PIXEL = b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
"""A transparent GIF of 1×1."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """An event that is written to `events`."""

    index: int
    """of the event in the request"""
    partition: int
    offset: int
    wait_for: str
    """for questions about the user whose answers should include the event"""


@dataclass(frozen=True, slots=True)
class Refused:
    """An event that is not accepted."""

    index: int
    status: int
    """400: it is no event, as `reason` says; 503: Kafka did not acknowledge it, send it again"""
    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the events of a request."""

    accepted: list[Accepted]
    refused: list[Refused]


class NoParameters(BaseModel):
    """An empty query: what a route does not know is refused."""

    model_config = ConfigDict(extra="forbid")


class KeyInQuery(NoParameters):
    """The query of a page's request, which cannot have headers."""

    api_key: Annotated[str | None, Field(description="An API key, where the server asks for one.")] = None


class PixelEvent(KeyInQuery):
    """One event in a query; its fields are those of a posted event."""

    user_id: str
    item_id: str
    event_type: str | None = None
    value: Annotated[float | None, Field(allow_inf_nan=False)] = None
    timestamp: Annotated[
        int | None, Field(description="ms since 1970; now unless given. Beware of clocks that are wrong.")
    ] = None
    event_id: str | None = None


def event_routes(service: Service) -> APIRouter:
    """The routes of events."""
    routes = APIRouter(tags=["events"], dependencies=[WRITE])
    described: dict[str, Any] = {
        "status_code": 202,
        "response_model": Outcome,
        "responses": {
            207: {"model": Outcome, "description": "Some events are not accepted"},
            **responses(400, 413, 500, 503),
        },
    }

    @routes.post("/v1/events", openapi_extra=_body("application/json"), **described)
    async def post_events(request: Request, _: Annotated[NoParameters, Query()]) -> Response:
        """Write events to Kafka; answered when Kafka has them on all in-sync replicas.

        The body is one event, a list of events, or an object with such a list as `events`. Each is accepted
        or refused alone, by the rule that workers apply to records of `events`, so that none becomes a dead
        letter later (but for an item whose id has the same hash as another's). An event without a timestamp
        happens now.

        Give each event an `event_id` if you send it again when no answer comes: Eddy recognises the id among
        the user's last events (up to 49), and counts the event once.
        """
        return _answer(*await _taken(service, await _read(request)))

    @routes.post("/v1/beacon", openapi_extra=_body("text/plain"), **described)
    async def post_beacon(request: Request, _: Annotated[KeyInQuery, Query()]) -> Response:
        """The same for pages: `navigator.sendBeacon(url, JSON.stringify(event))` sends the JSON as text, and
        the browser sends it also when the page is left.
        """
        return _answer(*await _taken(service, await _read(request)))

    @routes.get(
        "/v1/pixel",
        response_class=Response,
        responses={200: {"content": {"image/gif": {}}}, **responses(400, 500, 503)},
    )
    async def get_pixel(event: Annotated[PixelEvent, Query()]) -> Response:
        """The same for e-mails and pages without scripts: one event in the query, answered by an invisible
        picture when it is written.
        """
        fields = event.model_dump(exclude={"api_key"}, exclude_none=True)
        count, outcome = await _taken(service, msgspec.json.encode(fields))
        if outcome.refused:
            return _answer(count, outcome)
        return Response(PIXEL, media_type="image/gif", headers={"cache-control": "no-store"})

    return routes


def _body(media_type: str) -> dict[str, Any]:
    """The description of a body of events."""
    event = event_schema()
    many = {"type": "array", "items": event, "maxItems": MAX_EVENTS}
    forms = [
        event,
        many,
        {"type": "object", "properties": {"events": many}, "required": ["events"], "title": "Events"},
    ]
    return {"requestBody": {"required": True, "content": {media_type: {"schema": {"anyOf": forms}}}}}


async def _read(request: Request) -> bytes:
    try:
        return await request.body()
    except ClientDisconnect:
        raise HTTPException(400, "the body did not come to its end") from None


async def _taken(service: Service, body: bytes) -> tuple[int, Outcome]:
    """Check the events of a body and write the good ones; returns how many events there are, and what became
    of each.

    Errors: HTTPException for a body that holds no events, or too many.
    """
    # 1. Check. Large bodies must not hold up other requests.
    check = partial(_checked, body, wall_ms(), service.settings.admission)
    try:
        count, posted = await asyncio.to_thread(check) if len(body) > ON_THREAD_BYTES else check()
    except Unreadable as reason:
        raise HTTPException(400, f"the body holds no events: {reason}") from None
    # 2. Write.
    written = await service.events.write([(event.key, event.value) for event in posted.accepted])
    # 3. Count, and tell.
    accepted: list[Accepted] = []
    refused = [Refused(number, 400, reason) for number, reason in posted.rejected]
    for event, result in zip(posted.accepted, written, strict=True):
        if isinstance(result, Unwritten):
            refused.append(Refused(event.number, 503, str(result)))
        else:
            accepted.append(Accepted(event.number, *result, result.token))
    for outcome, number in (
        ("accepted", len(accepted)),
        ("refused", len(posted.rejected)),
        ("unacknowledged", len(refused) - len(posted.rejected)),
    ):
        service.metrics.posted.labels(outcome).inc(number)
    return count, Outcome(accepted, sorted(refused, key=attrgetter("index")))


def _checked(body: bytes, now: int, admission: Admission) -> tuple[int, PostedEvents]:
    values = split_body(body)
    if len(values) > MAX_EVENTS:
        raise HTTPException(413, f"{len(values)} events: send at most {MAX_EVENTS} together")
    return len(values), check_events(values, now, admission)


def _answer(count: int, outcome: Outcome) -> Response:
    """202 when all events are accepted, 207 when some are, or else a problem that names each event's."""
    now = {TIME_HEADER: str(wall_ms())}
    if not outcome.refused:
        return json_answer(outcome, 202, now)
    unwritten = any(event.status == 503 for event in outcome.refused)
    headers = {**now, **(RETRY_AFTER if unwritten else {})}
    if outcome.accepted:
        return json_answer(outcome, 207, headers)
    status = 503 if unwritten else 400
    reason = outcome.refused[0].reason
    detail = reason if count == 1 else f"none of {count} events is accepted; the first: {reason}"
    return problem(status, detail, headers, refused=outcome.refused)
