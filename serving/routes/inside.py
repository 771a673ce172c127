"""Inside the recurrent network: a user's hidden state through time, and how a version's cell behaves."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from eddy.serving.inside.answers import Dynamics, Trace
from eddy.serving.inside.trace import NotHere, trace_user
from eddy.serving.json_answers import large_answer
from eddy.serving.problems import responses
from eddy.serving.routes.events import NoParameters
from eddy.serving.routes.ids import UserId
from eddy.serving.scopes import READ
from eddy.serving.service import Service

VersionInPath = Annotated[str, Path(min_length=1, max_length=256, description="The version's id.")]


class WhichVersion(BaseModel):
    """By which version a window is read."""

    model_config = ConfigDict(extra="forbid")

    version: Annotated[
        str | None,
        Field(max_length=256, description="One that is loaded; absent: the one that has made the row."),
    ] = None


def inside_routes(service: Service) -> APIRouter:
    """The routes of hidden states. Declare them before those whose paths end with the user's id."""
    routes = APIRouter(tags=["inside the network"], dependencies=[READ])

    @routes.get("/v1/users/{user_id:path}/trace", response_model=Trace, responses=responses(400, 404, 500))
    async def trace(user_id: UserId, wanted: Annotated[WhichVersion, Query()], request: Request) -> Response:
        """A user's hidden state through the recent window: after each event, with the cell's own gates, and
        for how long each unit holds what it held.
        """
        try:
            traced = await service.looks.take(lambda: trace_user(service, user_id, wanted.version))
            return await large_answer(request, traced)
        except NotHere as reason:
            raise HTTPException(404, str(reason)) from None

    @routes.get(
        "/v1/versions/{version_id}/dynamics", response_model=Dynamics, responses=responses(400, 404, 500)
    )
    async def dynamics(
        version_id: VersionInPath, _: Annotated[NoParameters, Query()], request: Request
    ) -> Response:
        """How far back a version's state depends on itself, measured once on windows of stored users."""
        try:
            return await large_answer(request, await service.dynamics.of(version_id))
        except NotHere as reason:
            raise HTTPException(404, str(reason)) from None

    return routes
