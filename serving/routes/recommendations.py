"""Lists: what next for this user?"""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from eddy.serving.problems import responses
from eddy.serving.recommend import MAX_K, Answer, Question
from eddy.serving.routes.ids import ItemId, UserId
from eddy.serving.scopes import READ
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

    def question(self, user_id: str, service: Service) -> Question:
        """The question of a user."""
        settings = service.settings
        return Question(
            user_id,
            settings.k if self.k is None else self.k,
            settings.exclude_seen if self.exclude_seen is None else self.exclude_seen,
            tuple(self.exclude or ()),
        )


def recommendation_routes(service: Service) -> APIRouter:
    """The routes of lists."""
    routes = APIRouter(tags=["recommendations"], dependencies=[READ])
    metrics = service.metrics

    async def answered(question: Question) -> Response:
        with metrics.seconds.time():
            answer = await service.recommend(question)
        metrics.requests.labels("known" if answer.known else "unknown").inc()
        return Response(msgspec.json.encode(answer), media_type="application/json")

    path, described = "/v1/users/{user_id:path}/recommendations", responses(400, 413, 500)

    @routes.get(path, response_model=Answer, responses=described)
    async def recommend(user_id: UserId, wanted: Annotated[ListRequest, Query()]) -> Response:
        """The best items for a user, scored now from the user's hidden state."""
        return await answered(wanted.question(user_id, service))

    @routes.post(path, response_model=Answer, responses=described)
    async def recommend_posted(user_id: UserId, wanted: ListRequest) -> Response:
        """The same with the parameters in the body, where long lists have room."""
        return await answered(wanted.question(user_id, service))

    return routes
