"""Lists: what next for this user?"""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from eddy.serving.lists.answers import Answer
from eddy.serving.lists.questions import MAX_K, Question
from eddy.serving.problems import responses
from eddy.serving.routes.ids import ItemId, UserId
from eddy.serving.routes.parameters import MAX_CONDITIONS, AttributeBoost, Conditions, FlatFilter, filter_of
from eddy.serving.service import Service

MAX_EXCLUDED = 10_000
"""So many items a caller may leave out."""


class ListRequest(BaseModel):
    """Which list is wanted; what is absent or null is as the server's settings say."""

    model_config = ConfigDict(extra="forbid")

    k: Annotated[int | None, Field(ge=1, le=MAX_K, description="How many items.")] = None
    exclude_seen: Annotated[
        bool | None, Field(description="Leave out what the user's row names: recent and older items.")
    ] = None
    exclude: Annotated[
        list[ItemId] | None,
        Field(max_length=MAX_EXCLUDED, description="Ids of items to leave out; unknown ones are ignored."),
    ] = None


class QueriedList(ListRequest, FlatFilter):
    """A list as a URL asks for it."""


class PostedList(ListRequest):
    """A list as a body asks for it."""

    filter: Annotated[Conditions, Field(description="Conditions that must all hold.")] = []
    boost: Annotated[list[AttributeBoost], Field(max_length=MAX_CONDITIONS)] = []


def question_of(user_id: str, wanted: QueriedList | PostedList, service: Service) -> Question:
    """The question of a user."""
    settings = service.settings
    if isinstance(wanted, PostedList):
        where, boosts = filter_of(wanted.filter), tuple(boost.boost() for boost in wanted.boost)
    else:
        where, boosts = wanted.conditions(), wanted.boosts()
    return Question(
        user_id,
        settings.k if wanted.k is None else wanted.k,
        settings.exclude_seen if wanted.exclude_seen is None else wanted.exclude_seen,
        tuple(wanted.exclude or ()),
        where,
        boosts,
    )


def recommendation_routes(service: Service) -> APIRouter:
    """The routes of lists."""
    routes = APIRouter(tags=["recommendations"])
    metrics = service.metrics

    async def answered(question: Question) -> Response:
        with metrics.seconds.time():
            answer = await service.recommend(question)
        metrics.requests.labels("known" if answer.known else "unknown").inc()
        return Response(msgspec.json.encode(answer), media_type="application/json")

    path, described = "/v1/users/{user_id:path}/recommendations", responses(400, 413, 500)

    @routes.get(path, response_model=Answer, responses=described)
    async def recommend(user_id: UserId, wanted: Annotated[QueriedList, Query()]) -> Response:
        """The best items for a user, scored now from the user's hidden state."""
        return await answered(question_of(user_id, wanted, service))

    @routes.post(path, response_model=Answer, responses=described)
    async def recommend_posted(user_id: UserId, wanted: PostedList) -> Response:
        """The same with the parameters in the body, where long lists have room."""
        return await answered(question_of(user_id, wanted, service))

    return routes
