"""What is stored of a person, and its erasure."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Response

from eddy.models.errors import EddyError
from eddy.serving.admission import RETRY_AFTER
from eddy.serving.event_writer import Unwritten
from eddy.serving.json_answers import json_answer
from eddy.serving.problems import responses
from eddy.serving.routes.events import NoParameters
from eddy.serving.routes.ids import UserId
from eddy.serving.routes.waiting import Waiting
from eddy.serving.scopes import ERASE, READ
from eddy.serving.service import Service
from eddy.serving.stored_user import StoredUser
from eddy.stream.erase import gone_by, key_of


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


def user_routes(service: Service) -> APIRouter:
    """The routes of users. Declare them after those whose paths go on after the user's id."""
    routes = APIRouter(tags=["users"])
    path = "/v1/users/{user_id:path}"

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
            raise HTTPException(503, f"the erasure is not ordered: {written}", RETRY_AFTER)
        erasing = Erasing(user_id, *written, written.token, gone_by(service.settings))
        return json_answer(erasing, 202)

    return routes
