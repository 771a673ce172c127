"""Lists and rankings: what next for this user, this session, out of these items?"""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator

from eddy.models.event_limits import EARLIEST_MS, LATEST_MS, MAX_ID, MAX_TYPE
from eddy.models.logs.events import DEFAULT_TYPE
from eddy.serving.catalogue.filter_language import (
    MAX_CONDITIONS,
    AttributeBoost,
    Conditions,
    encodable_field,
    filter_of,
)
from eddy.serving.json_answers import json_answer
from eddy.serving.lists.answers import Answer, Ranking
from eddy.serving.lists.questions import MAX_DIVERSE, MAX_K, Question, SessionEvent
from eddy.serving.lists.session import MAX_EVENTS
from eddy.serving.problems import responses
from eddy.serving.routes.ids import ItemId, UserId
from eddy.serving.routes.parameters import FlatFilter
from eddy.serving.routes.queries import described_query, read_query
from eddy.serving.routes.waiting import Waiting
from eddy.serving.scopes import READ
from eddy.serving.service import Service
from eddy.stream.records.settings import Settings

MAX_EXCLUDED = MAX_CANDIDATES = 10_000
"""So many items a caller may leave out, or have ranked."""


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
    explain: Annotated[bool, Field(description="Say why each item is in its place.")] = False
    explore: Annotated[
        float | None,
        Field(
            ge=0,
            le=1,
            description="The share of the list for new items with few events. Absent: a tenth for users of "
            "whom nothing is known, none for others.",
        ),
    ] = None
    diversity: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="How much it counts that an item is unlike those above it (maximal marginal "
            f"relevance); for lists of at most {MAX_DIVERSE} items.",
        ),
    ] = 0.0
    max_per_category: Annotated[
        int | None, Field(ge=1, le=MAX_K, description="The most items of one category.")
    ] = None

    @model_validator(mode="after")
    def _is_affordable(self) -> "ListRequest":
        if self.diversity and (self.k or 0) > MAX_DIVERSE:
            raise ValueError(f"diversity is for lists of at most {MAX_DIVERSE} items: ask for a smaller k")
        return self


class QueriedList(ListRequest, FlatFilter, Waiting):
    """A list as a URL asks for it."""


class PostedList(ListRequest):
    """A list as a body asks for it."""

    filter: Annotated[Conditions, Field(description="Conditions that must all hold.")] = []
    boost: Annotated[
        list[AttributeBoost], Field(max_length=MAX_CONDITIONS, description="What counts as more likely.")
    ] = []


class PostedListOfUser(PostedList, Waiting):
    """A list for a user as a body asks for it."""


class Event(BaseModel):
    """An event of a session."""

    model_config = ConfigDict(extra="forbid")

    item_id: Annotated[ItemId, Field(min_length=1, max_length=MAX_ID)]
    event_type: Annotated[str, Field(max_length=MAX_TYPE), encodable_field] = DEFAULT_TYPE
    timestamp: Annotated[
        int | None, Field(ge=EARLIEST_MS, le=LATEST_MS, description="ms since 1970; absent: just now.")
    ] = None
    value: Annotated[float | None, Field(allow_inf_nan=False)] = None


class SessionList(PostedList):
    """A list for somebody without a row."""

    events: Annotated[
        list[Event],
        FailFast(),
        Field(min_length=1, max_length=MAX_EVENTS, description="What they did, oldest first."),
    ]


class RankRequest(BaseModel):
    """Which items are to be ranked."""

    model_config = ConfigDict(extra="forbid")

    items: Annotated[list[ItemId], FailFast(), Field(min_length=1, max_length=MAX_CANDIDATES)]
    boost: Annotated[list[AttributeBoost], Field(max_length=MAX_CONDITIONS)] = []


def question_of(user_id: str, wanted: QueriedList | PostedList, settings: Settings) -> Question:
    """The question of a user or, with the user id "", of a session."""
    if isinstance(wanted, PostedList):
        where, boosts = filter_of(wanted.filter), tuple(boost.boost() for boost in wanted.boost)
    else:
        where, boosts = wanted.conditions(), wanted.boosts()
    session = None
    if isinstance(wanted, SessionList):
        session = tuple(
            SessionEvent(event.item_id, event.event_type or DEFAULT_TYPE, event.timestamp, event.value)
            for event in wanted.events
        )
    k = settings.k if wanted.k is None else wanted.k
    return Question(
        user_id,
        min(k, MAX_DIVERSE) if wanted.diversity else k,
        settings.exclude_seen if wanted.exclude_seen is None else wanted.exclude_seen,
        tuple(wanted.exclude or ()),
        where,
        boosts,
        wanted.explain,
        wanted.explore,
        wanted.diversity,
        wanted.max_per_category,
        session,
    )


def recommendation_routes(service: Service) -> APIRouter:
    """The routes of lists."""
    routes = APIRouter(tags=["recommendations"], dependencies=[READ])
    metrics = service.metrics

    async def answered(question: Question, includes: bool | None = None) -> Response:
        with metrics.seconds.time():
            answer = await service.recommend(question)
        metrics.requests.labels("known" if answer.known else "unknown").inc()
        if answer.state_age_ms is not None:
            metrics.state_age.observe(answer.state_age_ms / 1000)
        if includes is not None:
            answer = replace(answer, includes=includes)
        return json_answer(answer)

    async def answered_as_of(user_id: str, wanted: QueriedList | PostedListOfUser) -> Response:
        question = question_of(user_id, wanted, service.settings)
        return await answered(question, await wanted.included(user_id, service))

    path, described = "/v1/users/{user_id:path}/recommendations", responses(400, 409, 413, 500)

    @routes.get(path, response_model=Answer, responses=described, openapi_extra=described_query(QueriedList))
    async def recommend(user_id: UserId, request: Request) -> Response:
        """The best items for a user, scored now from the user's hidden state."""
        return await answered_as_of(user_id, read_query(QueriedList, request))

    @routes.post(path, response_model=Answer, responses=described)
    async def recommend_posted(user_id: UserId, wanted: PostedListOfUser) -> Response:
        """The same with the parameters in the body, where long lists have room."""
        return await answered_as_of(user_id, wanted)

    @routes.post("/v1/users/{user_id:path}/rank", response_model=Ranking, responses=described)
    async def rank(user_id: UserId, wanted: RankRequest) -> Response:
        """The caller's own items in the order of the scores that they have in lists. Items that cannot be
        ranked come last, without a score, and say why.
        """
        candidates = tuple(dict.fromkeys(wanted.items))
        boosts = tuple(boost.boost() for boost in wanted.boost)
        return await answered(Question(user_id, candidates=candidates, boosts=boosts))

    @routes.post("/v1/recommendations", response_model=Answer, responses=described)
    async def recommend_session(wanted: SessionList) -> Response:
        """The best items for somebody without a row: the list of a user with these events. Nothing of them
        is kept.
        """
        return await answered(question_of("", wanted, service.settings))

    return routes
