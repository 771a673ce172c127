"""Requests and answers of lists and items as HTTP carries them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import httpx
import pytest

from eddy.serving.admission import Turns
from eddy.serving.app import new_app
from eddy.serving.lists.answers import Answer
from eddy.serving.lists.questions import MAX_DIVERSE, Question
from eddy.serving.metrics import ServerMetrics
from eddy.serving.recommend import answer
from eddy.serving.routes.recommendations import MAX_CANDIDATES
from eddy.serving.service import Service
from eddy.serving.view import MaterialisedView
from eddy.stream.records.settings import load_settings
from tests.support.engines import item_id
from tests.support.serving_views import NOW, count_each, described_version, described_view

T = TypeVar("T")


class OnView:
    """A service without Kafka."""

    def __init__(self, view: MaterialisedView) -> None:
        self.metrics = ServerMetrics()
        self.settings = load_settings(k=7)
        self.view = view
        self.looks = Turns(60)

    def is_overloaded(self) -> bool:
        return False

    async def recommend(self, question: Question) -> Answer:
        return answer(self.view, [question])[0]

    async def look_up(self, work: Callable[[MaterialisedView], T]) -> T:
        return work(self.view)

    async def beside(self, work: Callable[[], T]) -> T:
        return work()


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> MaterialisedView:
    view = described_view(described_version(tmp_path_factory.mktemp("registry")))
    count_each(view)
    return view


def send(view: MaterialisedView, method: str, path: str, body: Any = None) -> httpx.Response:
    async def answered() -> httpx.Response:
        transport = httpx.ASGITransport(new_app(cast(Service, OnView(view))))
        async with httpx.AsyncClient(transport=transport, base_url="http://eddy") as client:
            return await client.request(method, path, json=body)

    return asyncio.run(answered())


def found(view: MaterialisedView, method: str, path: str, body: Any = None) -> dict[str, Any]:
    response = send(view, method, path, body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def test_a_url_and_a_body_ask_for_the_same_list(view: MaterialisedView) -> None:
    queried = found(
        view, "GET",
        "/v1/users/user-0/recommendations?k=5&category=Drama&category=comedy&not_category=horror&min_price=2"
        "&where=brand:acme&max=price:30&boost=brand:acme&boost_factor=3&explore=0.2&diversity=0.1"
        "&max_per_category=5&explain=true",
    )  # fmt: skip
    posted = found(view, "POST", "/v1/users/user-0/recommendations", {
        "k": 5, "explore": 0.2, "diversity": 0.1, "max_per_category": 5, "explain": True,
        "filter": [
            {"attribute": "genres", "any_of": ["drama", "Comedy"], "none_of": ["Horror"]},
            {"attribute": "price", "min": 2, "max": 30},
            {"attribute": "brand", "any_of": ["ACME"]},
        ],
        "boost": [{"attribute": "brand", "any_of": ["Acme"], "factor": 3}],
    })  # fmt: skip
    assert posted == queried
    assert len(queried["items"]) == 5
    best = queried["items"][0]
    assert best["adjusted_by"] == pytest.approx(1.0986)
    assert best["explanation"].keys() >= {"state", "popularity", "own_items_share", "moved_by"}


def test_a_session_is_posted(view: MaterialisedView) -> None:
    events = [
        {"item_id": item_id(3)},
        {"item_id": item_id(4), "event_type": "rating", "value": 5, "timestamp": NOW},
    ]
    answer = found(view, "POST", "/v1/recommendations", {"events": events, "k": 3})
    assert (len(answer["items"]), answer["known"], answer["user_id"]) == (3, True, None)


def test_candidates_are_posted(view: MaterialisedView) -> None:
    wanted = {"items": ["nothing", item_id(3), item_id(4), item_id(3)]}
    answer = found(view, "POST", "/v1/users/a/b/rank", wanted)
    assert sorted(ids(answer)) == sorted(["nothing", item_id(3), item_id(4)])
    assert answer["items"][-1] == {"item_id": "nothing", "score": None, "title": None, "unranked": "unknown"}


def test_an_item_s_id_may_hold_slashes(view: MaterialisedView) -> None:
    name = "shoes/42 \u2028 ünïcode"
    view.take_items([(name.encode(), json.dumps({"item_id": name}).encode())])
    path = httpx.URL("http://eddy/").copy_with(path=f"/v1/items/{name}/similar").raw_path.decode()
    answer = found(view, "GET", path)
    assert (answer["item_id"], answer["known"]) == (name, True)
    view.take_items([(name.encode(), None)])


def test_popular_items_by_category(view: MaterialisedView) -> None:
    answer = found(view, "GET", "/v1/popular?category=horror&k=3&half_life_hours=5")
    assert answer["half_life_hours"] == 24
    assert all(int(name.removeprefix("item-")) % 3 == 1 for name in ids(answer))


@pytest.mark.parametrize(
    "path", ["/v1/users/nobody/recommendations", "/v1/popular", f"/v1/items/{item_id(1)}/similar"]
)
def test_scores_are_numbers_however_often_an_item_is_boosted(view: MaterialisedView, path: str) -> None:
    boosts = "&".join(["boost=brand:acme"] * 100)
    answer = found(view, "GET", f"{path}?k=3&{boosts}&boost_factor=1000")
    assert all(isinstance(item["score"], float) for item in answer["items"])


LIST, RANK, SESSION = "/v1/users/u/recommendations", "/v1/users/u/rank", "/v1/recommendations"


@pytest.mark.parametrize(
    ("method", "path", "body", "why"),
    [
        ("GET", f"{LIST}?where=brand", None, "where[0]: "),
        ("GET", f"{LIST}?where=:acme", None, "where[0]: "),
        ("GET", f"{LIST}?min=price:cheap", None, "min[0]: "),
        ("GET", f"{LIST}?min=price:nan", None, "min[0]: "),
        ("GET", f"{LIST}?min_price=inf", None, "min_price: "),
        ("GET", f"{LIST}?boost_factor=0", None, "boost_factor: "),
        ("GET", f"{LIST}?explore=1.1", None, "explore: "),
        ("GET", f"{LIST}?diversity=-1", None, "diversity: "),
        ("GET", f"{LIST}?diversity=0.1&k={MAX_DIVERSE + 1}", None, "diversity is for lists"),
        ("GET", f"{LIST}?max_per_category=0", None, "max_per_category: "),
        ("GET", f"{LIST}?filter=x", None, "filter: there is no such parameter"),
        ("GET", f"{LIST}?" + "&".join(["category=a"] * 101), None, "category: "),
        ("POST", LIST, {"category": ["a"]}, "category: there is no such parameter"),
        ("POST", LIST, {"filter": [{"attribute": "a"}]}, "filter[0]: "),
        ("POST", LIST, {"filter": [{"attribute": "", "min": 1}]}, "filter[0].attribute: "),
        ("POST", LIST, {"filter": [{"attribute": "a", "min": 1}] * 17}, "filter: "),
        ("POST", LIST, {"filter": [{"attribute": "a", "any_of": ["x"] * 101}]}, "filter[0].any_of: "),
        ("POST", LIST, {"boost": [{"attribute": "a", "any_of": ["x"], "factor": 1001}]}, "boost[0].factor: "),
        ("POST", LIST, {"events": []}, "events: there is no such parameter"),
        ("POST", RANK, {}, "items: "),
        ("POST", RANK, {"items": []}, "items: "),
        ("POST", RANK, {"items": ["a"] * (MAX_CANDIDATES + 1)}, "items: "),
        ("POST", SESSION, {}, "events: "),
        ("POST", SESSION, {"events": []}, "events: "),
        ("POST", SESSION, {"events": [{"item_id": "a"}] * 1001}, "events: "),
        ("POST", SESSION, {"events": [{"item_id": ""}]}, "events[0].item_id: "),
        ("POST", SESSION, {"events": [{"item_id": "a", "timestamp": 7}]}, "events[0].timestamp: "),
        ("POST", SESSION, {"events": [{"item_id": "a", "user_id": "b"}]}, "events[0].user_id: "),
        ("GET", "/v1/items//similar", None, "item_id: "),
        ("GET", "/v1/items/a/similar?k=0", None, "k: "),
        ("GET", "/v1/popular?half_life_hours=0", None, "half_life_hours: "),
        ("GET", "/v1/popular?explain=true", None, "explain: there is no such parameter"),
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_refused_by_name(
    view: MaterialisedView, method: str, path: str, body: Any, why: str
) -> None:
    response = send(view, method, path, body)
    assert response.status_code == 400, response.text
    assert response.headers["content-type"] == "application/problem+json"
    detail = response.json()["detail"]
    assert why in detail
    assert "\n" not in detail


def test_all_routes_are_described(view: MaterialisedView) -> None:
    described = found(view, "GET", "/openapi.json")
    paths: Sequence[str] = [*described["paths"]]
    for path in (
        "/v1/recommendations",
        "/v1/popular",
        "/v1/items/{item_id}/similar",
        "/v1/users/{user_id}/rank",
    ):
        assert path in paths
    assert "Explained" in described["components"]["schemas"]
