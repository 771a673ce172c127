"""Model versions: which there are, which are live, and making others live."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Annotated, TypeVar

from fastapi import APIRouter, HTTPException, Query, Request, Response
from kafka.errors import KafkaError
from kafka.errors import KafkaTimeoutError as SendTimeoutError
from pydantic import BaseModel, ConfigDict, Field

from eddy.models.descriptions import ID_PATTERN
from eddy.models.errors import EddyError
from eddy.models.registry import load
from eddy.serving.admission import RETRY_AFTER
from eddy.serving.json_answers import json_answer, large_answer
from eddy.serving.problems import responses
from eddy.serving.routes.events import NoParameters
from eddy.serving.scopes import OPERATE, READ
from eddy.serving.service import Service
from eddy.serving.versions.answers import Announced, Versions
from eddy.stream.announce import make_live
from eddy.stream.records.schema import Announcement
from eddy.stream.records.settings import Settings
from eddy.stream.rollback import roll_back

T = TypeVar("T")

MAX_SHARES = 16

VersionId = Annotated[str, Field(pattern=f"^{ID_PATTERN}$", max_length=64)]


class WantedShares(BaseModel):
    """Which share of the users each version is to have."""

    model_config = ConfigDict(extra="forbid")

    shares: Annotated[
        dict[VersionId, Annotated[int, Field(ge=1, le=100)]],
        Field(min_length=1, max_length=MAX_SHARES, description="Percent by version; together 100."),
    ]


class WantedVersion(BaseModel):
    """Which version is to be live for all users again."""

    model_config = ConfigDict(extra="forbid")

    version: Annotated[VersionId | None, Field(description="Absent: the one that all users had before.")] = (
        None
    )


def version_routes(service: Service) -> APIRouter:
    """The routes of versions."""
    routes = APIRouter(tags=["model versions"])
    one_at_a_time = asyncio.Lock()

    async def operate(request: Request, work: Callable[[], T]) -> T:
        """Do what changes what is live, on a thread. Errors: HTTPException."""
        _require_json(request)
        async with one_at_a_time:
            try:
                return await asyncio.to_thread(work)
            except EddyError as error:
                raise HTTPException(409, str(error)) from None
            except (KafkaError, SendTimeoutError, OSError) as error:
                reason = f"the cluster did not answer ({type(error).__name__}); look at /v1/versions first"
                raise HTTPException(503, reason, RETRY_AFTER) from None
            finally:
                service.registry.forget()

    @routes.get("/v1/versions", dependencies=[READ], response_model=Versions, responses=responses(400, 500))
    async def versions(request: Request, _: Annotated[NoParameters, Query()]) -> Response:
        """The versions of the registry, the newest first: what they are, which are live, what was decided
        about them, and how they do.
        """
        return await large_answer(request, await service.versions())

    @routes.post(
        "/v1/versions/announce", dependencies=[OPERATE], status_code=202, response_model=Announced,
        responses=responses(400, 409, 413, 415, 500, 503),
    )  # fmt: skip
    async def announce(
        request: Request, wanted: WantedShares, _: Annotated[NoParameters, Query()]
    ) -> Response:
        """Make a version the live one, or give shares of the users to several, as `eddy announce` does.
        Workers and servers move to it without stopping.
        """
        announcement = await operate(request, partial(_announce, service.settings, wanted.shares))
        return json_answer(Announced(announcement.epoch), 202)

    @routes.post(
        "/v1/versions/rollback", dependencies=[OPERATE], status_code=202, response_model=Announced,
        responses=responses(400, 409, 413, 415, 500, 503),
    )  # fmt: skip
    async def rollback(
        request: Request, _: Annotated[NoParameters, Query()], wanted: WantedVersion | None = None
    ) -> Response:
        """Make the version that all users had before live for all again, or the one that is named, as
        `eddy models rollback` does.
        """
        version = wanted.version if wanted else None
        decision = await operate(request, lambda: roll_back(service.settings, version))
        assert decision.epoch is not None
        return json_answer(Announced(decision.epoch), 202)

    return routes


def _require_json(request: Request) -> None:
    """A page of another origin cannot send this content type without asking first, so that it cannot have a
    reader's browser change what is live. Errors: HTTPException.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, "send the body as Content-Type: application/json")


def _announce(settings: Settings, shares: dict[str, int]) -> Announcement:
    versions = [(load(settings.registry / id_), percent) for id_, percent in shares.items()]
    return make_live(settings, versions)
