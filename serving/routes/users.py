"""What is stored of a person, and its erasure."""

from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Response
from pydantic import Field

from eddy.models.errors import EddyError
from eddy.serving.admission import RETRY_AFTER
from eddy.serving.event_writer import Unwritten
from eddy.serving.json_answers import json_answer
from eddy.serving.lists.questions import Question
from eddy.serving.live.active_users import KEPT
from eddy.serving.live.answers import ActiveUsers
from eddy.serving.live.person import active_users
from eddy.serving.live.streams import EVENTS, EventStream
from eddy.serving.problems import responses
from eddy.serving.routes.events import NoParameters
from eddy.serving.routes.ids import UserId
from eddy.serving.routes.waiting import Waiting
from eddy.serving.scopes import ERASE, READ
from eddy.serving.service import Service
from eddy.serving.stored_user import StoredUser
from eddy.stream.erase import gone_by, key_of

MAX_LIVE_K = 100
"""The longest list that a stream tells again and again."""


@dataclass(frozen=True, slots=True)
class Erasing:
    """An erasure that has been ordered: workers and servers forget the user when they read the order, within
    a second where they run, and nothing undoes it.
    """

    user_id: str
    partition: int
    offset: int
    """of the order on `events`"""
    wait_for: str
    """for questions that should be answered as after the erasure"""
    gone_by: datetime
    """the time by which the last bytes are gone from Kafka and from an event log that is exported to"""


class WhichUsers(NoParameters):
    """Which users are wanted."""

    limit: Annotated[int, Field(ge=1, le=KEPT, description="How many users.")] = 20


class WhichList(NoParameters):
    """Which list is wanted."""

    k: Annotated[int | None, Field(ge=1, le=MAX_LIVE_K, description="How many items.")] = None


def user_routes(service: Service) -> APIRouter:
    """The routes of users. Declare them after those whose paths go on after the user's id."""
    routes = APIRouter(tags=["users"])
    path = "/v1/users/{user_id:path}"

    @routes.get(
        "/v1/users/active", dependencies=[READ], response_model=ActiveUsers, responses=responses(400, 500)
    )
    async def active(wanted: Annotated[WhichUsers, Query()]) -> Response:
        """The users with the latest events, out of a thousand."""
        return json_answer(await service.look_up(partial(active_users, limit=wanted.limit)))

    @routes.get(
        path + "/live",
        dependencies=[READ],
        response_class=Response,
        responses={**EVENTS, **responses(400, 500)},
    )
    async def live(user_id: UserId, wanted: Annotated[WhichList, Query()]) -> Response:
        """A user's list each time that their row changes, as server-sent events.

        `list` comes at the beginning and at every change (`PersonNow`), with the list, explained, and the
        events that are new; `erased` when there is nothing of the user any more (`Erased`).
        """
        settings = service.settings
        k = min(settings.k, MAX_LIVE_K) if wanted.k is None else wanted.k
        question = Question(user_id, k, settings.exclude_seen, explain=True)
        return EventStream(service.streams, lambda: service.watch_person(question))

    @routes.get(path, dependencies=[READ], response_model=StoredUser, responses=responses(400, 404, 409, 500))
    async def stored(user_id: UserId, waiting: Annotated[Waiting, Query()]) -> Response:
        """What is stored of a user: the recent window, older items, and which records they come from."""
        includes = await waiting.included(user_id, service)
        user = await service.stored_user(user_id)
        if user is None:
            late = ", and the record of wait_for is not included yet" if includes is False else ""
            raise HTTPException(404, f"nothing is stored of this user{late}")
        return json_answer(replace(user, includes=includes))

    @routes.delete(
        path,
        dependencies=[ERASE],
        status_code=202,
        response_model=Erasing,
        responses=responses(400, 500, 503),
    )
    async def erase(user_id: UserId, _: Annotated[NoParameters, Query()]) -> Response:
        """Erase a user: state, lists, and events. Whoever comes back later is a new person."""
        try:
            key = key_of(user_id)
        except EddyError as error:
            raise HTTPException(400, str(error)) from None
        (written,) = await service.events.write([(key, None)])
        if isinstance(written, Unwritten):
            raise HTTPException(
                503, f"the erasure is not known to be ordered, so order it again: {written}", RETRY_AFTER
            )
        erasing = Erasing(user_id, *written, written.token, gone_by(service.settings))
        return json_answer(erasing, 202)

    return routes
