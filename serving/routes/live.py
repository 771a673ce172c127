"""What the installation does at this moment, and did lately."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from eddy.serving.json_answers import json_answer, large_answer
from eddy.serving.live.answers import DeadLetters, History
from eddy.serving.live.dead_letters import KEPT
from eddy.serving.live.streams import EVENTS, EventStream
from eddy.serving.problems import responses
from eddy.serving.routes.events import NoParameters
from eddy.serving.scopes import READ
from eddy.serving.service import Service


class WhichLetters(NoParameters):
    """Which dead letters are wanted."""

    limit: Annotated[int, Field(ge=0, le=KEPT, description="How many of the newest.")] = 50


class WhichPoints(NoParameters):
    """Which points of the history are wanted."""

    every: Annotated[int, Field(ge=1, le=60, description="One of so many points.")] = 1


def live_routes(service: Service) -> APIRouter:
    """The routes of the moment."""
    routes = APIRouter(tags=["live"], dependencies=[READ])

    @routes.get("/v1/live", response_class=Response, responses={**EVENTS, **responses(400, 500)})
    async def live(_: Annotated[NoParameters, Query()]) -> Response:
        """The installation once a second, as server-sent events `now` (each a point of a `History`)."""
        return EventStream(service.streams, service.installation.now.source)

    @routes.get("/v1/live/history", response_model=History, responses=responses(400, 500))
    async def history(request: Request, wanted: Annotated[WhichPoints, Query()]) -> Response:
        """What `/v1/live` said in the last ten minutes."""
        return await large_answer(request, service.installation.history(wanted.every))

    @routes.get("/v1/dead-letters", response_model=DeadLetters, responses=responses(400, 500))
    async def dead_letters(wanted: Annotated[WhichLetters, Query()]) -> Response:
        """Records that could not be used lately, and why. They are as they came, and so may hold what is told
        of nobody elsewhere.
        """
        total = await service.installation.letters_held(service.settings.topics.dead_letters)
        return json_answer(service.installation.dead_letters.newest(wanted.limit, total))

    return routes
