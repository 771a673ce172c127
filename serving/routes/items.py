"""Items: what is like this one, and what is popular now?"""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request, Response
from pydantic import Field

from eddy.serving.catalogue.filter_language import encodable_field
from eddy.serving.catalogue.items import MAX_FOUND, ItemDetail, Items
from eddy.serving.catalogue.search import MAX_QUERY
from eddy.serving.json_answers import json_answer
from eddy.serving.lists.popular import Popular, popular
from eddy.serving.lists.questions import MAX_K, Question
from eddy.serving.lists.similar import Similar, similar_items
from eddy.serving.problems import responses
from eddy.serving.routes.events import NoParameters
from eddy.serving.routes.ids import ItemInPath
from eddy.serving.routes.parameters import FlatFilter
from eddy.serving.routes.queries import described_query, read_query
from eddy.serving.scopes import READ
from eddy.serving.service import Service

MAX_HALF_LIFE_HOURS = 24 * 36_500.0


class ItemsRequest(FlatFilter):
    """Which items are wanted."""

    k: Annotated[
        int | None, Field(ge=1, le=MAX_K, description="How many items; absent: as the settings say.")
    ] = None


class PopularRequest(ItemsRequest):
    """Which popular items are wanted."""

    half_life_hours: Annotated[
        float | None,
        Field(
            gt=0,
            le=MAX_HALF_LIFE_HOURS,
            description="After which an event counts half. The nearest one that the model versions count "
            "with is taken. Absent: a day if they count with it, else their first.",
        ),
    ] = None


class WantedItems(NoParameters):
    """Which items are wanted."""

    q: Annotated[
        str,
        Field(max_length=MAX_QUERY, description="The beginning of an id, or words of a title; empty: all."),
        encodable_field,
    ] = ""
    limit: Annotated[int, Field(ge=1, le=MAX_FOUND, description="How many items.")] = 20
    new: Annotated[bool, Field(description="Only those for which the newest version has no vector.")] = False


def item_routes(service: Service) -> APIRouter:
    """The routes of items."""
    routes = APIRouter(tags=["items"], dependencies=[READ])

    def wanted_k(wanted: ItemsRequest) -> int:
        return service.settings.k if wanted.k is None else wanted.k

    @routes.get(
        "/v1/items/{item_id:path}/similar",
        response_model=Similar,
        responses=responses(400, 413, 500),
        openapi_extra=described_query(ItemsRequest),
    )
    async def similar(item_id: ItemInPath, request: Request) -> Response:
        """Items that are like an item: half by the cosine of item vectors, half by what often follows it."""
        wanted = read_query(ItemsRequest, request)
        question = Question("", wanted_k(wanted), where=wanted.conditions(), boosts=wanted.boosts())
        return json_answer(await service.looks.take(lambda: similar_items(service, item_id, question)))

    @routes.get("/v1/items", response_model=Items, responses=responses(400, 500))
    async def items(wanted: Annotated[WantedItems, Query()]) -> Response:
        """The most popular items, of all or of those that a query finds: by the beginning of the id, or by
        words of the title.
        """
        search = partial(service.items.search, wanted.q.strip(), wanted.limit, wanted.new)
        return json_answer(await service.searches.take(search))

    @routes.get("/v1/items/{item_id:path}", response_model=ItemDetail, responses=responses(400, 404, 500))
    async def item(item_id: ItemInPath, _: Annotated[NoParameters, Query()]) -> Response:
        """All that is known of an item, and how popular it was lately."""
        found = await service.items.detail(item_id)
        if found is None:
            raise HTTPException(404, "no record has named this item")
        return json_answer(found)

    @routes.get(
        "/v1/popular",
        response_model=Popular,
        responses=responses(400, 413, 500),
        openapi_extra=described_query(PopularRequest),
    )
    async def popular_items(request: Request) -> Response:
        """Items with the most events lately, without regard to persons."""
        wanted = read_query(PopularRequest, request)
        work = partial(
            popular,
            k=wanted_k(wanted),
            half_life_hours=wanted.half_life_hours,
            where=wanted.conditions(),
            boosts=wanted.boosts(),
        )
        return json_answer(await service.looks.take(lambda: service.look_up(work)))

    return routes
