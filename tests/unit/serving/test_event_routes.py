"""Events, users and waiting as HTTP tells of them; the service behind the routes is a stand-in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast

import httpx
import pytest

from eddy.models.event_limits import MAX_ID
from eddy.serving.app import new_app
from eddy.serving.event_writer import Position, Unwritten
from eddy.serving.lists.answers import Answer
from eddy.serving.lists.questions import Question
from eddy.serving.metrics import ServerMetrics
from eddy.serving.posted_events import MAX_EVENTS
from eddy.serving.service import Service
from eddy.serving.stored_user import StoredUser
from eddy.stream.records.messages import Message
from eddy.stream.records.partitioner import partition_of
from eddy.stream.records.settings import load_settings

EVENT = {"user_id": "anna", "item_id": "0816692"}
UNWRITTEN = Unwritten("not written: a reason")
ROW = StoredUser("anna", 1, "v1", 1, 7, [], [], 0, 0, 16)


class StandIn:
    """Writes at the offsets 0, 1, … of any partition, fails for the user `bob`, and knows `anna`."""

    def __init__(self) -> None:
        self.settings = load_settings(partitions=4)
        self.metrics = ServerMetrics()
        self.events = self.read_your_writes = self
        self.written: list[Message] = []
        self.awaited: list[tuple[str, Position, float]] = []
        self.linked: list[str] = []

    async def write(self, messages: Sequence[Message]) -> list[Position | Unwritten]:
        self.written += messages
        homes = partition_of([key or b"" for key, _ in messages], 4).tolist()
        return [
            UNWRITTEN if key == b"bob" else Position(home, offset)
            for offset, ((key, _), home) in enumerate(zip(messages, homes, strict=True))
        ]

    async def includes(self, user: str, position: Position, within_s: float) -> bool:
        self.awaited.append((user, position, within_s))
        return position.offset <= 7

    def link_to_row(self, user: str) -> None:
        self.linked.append(user)

    async def stored_user(self, user: str) -> StoredUser | None:
        return ROW if user == "anna" else None

    def is_overloaded(self) -> bool:
        return False

    async def recommend(self, question: Question) -> Answer:
        return Answer(question.user_id, True, [], -1)


@pytest.fixture
def service() -> StandIn:
    return StandIn()


def ask(service: StandIn, method: str, path: str, **request: Any) -> httpx.Response:
    async def answered() -> httpx.Response:
        transport = httpx.ASGITransport(new_app(cast(Service, service)), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://eddy") as client:
            return await client.request(method, path, **request)

    return asyncio.run(answered())


def post(service: StandIn, body: object, path: str = "/v1/events") -> httpx.Response:
    return ask(service, "POST", path, content=json.dumps(body).encode())


def token_of(user: str, offset: int) -> str:
    return f"{partition_of([user.encode()], 4)[0]}:{offset}"


def detail(response: httpx.Response) -> str:
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == response.status_code
    return str(response.json()["detail"])


# -- events -------------------------------------------------------------------------------------------------


def test_an_accepted_event_is_answered_with_its_place_and_a_token(service: StandIn) -> None:
    response = post(service, EVENT)
    assert response.status_code == 202
    (home,) = partition_of([b"anna"], 4).tolist()
    accepted = {"index": 0, "partition": home, "offset": 0, "wait_for": token_of("anna", 0)}
    assert response.json() == {"accepted": [accepted], "refused": []}
    ((key, value),) = service.written
    assert key == b"anna"
    assert json.loads(value or b"").keys() == {*EVENT, "timestamp"}


def test_where_some_events_are_refused_each_is_told_with_its_reason(service: StandIn) -> None:
    response = post(service, {"events": [{}, EVENT, {**EVENT, "user_id": "bob"}]})
    assert response.status_code == 207
    assert response.headers["retry-after"] == "1", "bob's event may be sent again"
    assert [event["index"] for event in response.json()["accepted"]] == [1]
    assert [(event["index"], event["status"]) for event in response.json()["refused"]] == [(0, 400), (2, 503)]
    assert "user_id" in response.json()["refused"][0]["reason"]


def test_where_no_event_is_one_it_is_a_problem_that_names_each(service: StandIn) -> None:
    response = post(service, [{}, 3])
    assert response.status_code == 400
    assert detail(response).startswith("none of 2 events is accepted; the first: ")
    assert [event["index"] for event in response.json()["refused"]] == [0, 1]
    assert service.written == []
    assert "user_id" in detail(post(service, {}))


def test_where_kafka_acknowledges_nothing_it_is_503_and_nothing_is_claimed(service: StandIn) -> None:
    response = post(service, [{**EVENT, "user_id": "bob"}, {}])
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert "a reason" in detail(post(service, {**EVENT, "user_id": "bob"}))
    assert "accepted" not in response.json()


def test_a_body_without_events_is_refused(service: StandIn) -> None:
    response = ask(service, "POST", "/v1/events", content=b"nonsense")
    assert response.status_code == 400
    assert detail(response).startswith("the body holds no events: ")


def test_a_large_body_is_taken_too_and_too_many_events_are_refused(service: StandIn) -> None:
    assert len(post(service, [EVENT] * 5_000).json()["accepted"]) == 5_000
    response = ask(service, "POST", "/v1/events", content=b"[" + b"{}," * MAX_EVENTS + b"{}]")
    assert response.status_code == 413
    assert str(MAX_EVENTS) in detail(response)


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/events"), ("POST", "/v1/beacon"), ("DELETE", "/v1/users/anna")]
)
def test_a_parameter_that_a_route_does_not_know_is_refused(service: StandIn, method: str, path: str) -> None:
    response = ask(service, method, f"{path}?dry_run=true", content=json.dumps(EVENT).encode())
    assert response.status_code == 400
    assert detail(response) == "dry_run: there is no such parameter"
    assert service.written == []


def test_a_beacon_is_json_sent_as_text_with_a_key_in_the_query(service: StandIn) -> None:
    response = ask(
        service,
        "POST",
        "/v1/beacon?api_key=secret",
        content=json.dumps(EVENT).encode(),
        headers={"content-type": "text/plain;charset=UTF-8"},
    )
    assert response.status_code == 202
    assert len(service.written) == 1


def test_a_pixel_is_an_invisible_picture_that_nobody_stores(service: StandIn) -> None:
    query = {"user_id": "anna", "item_id": "a b/ü", "value": 3.5, "event_type": "rating", "api_key": "secret"}
    response = ask(service, "GET", "/v1/pixel", params=query)
    assert response.status_code == 200
    assert (response.headers["content-type"], response.headers["cache-control"]) == ("image/gif", "no-store")
    assert response.content.startswith(b"GIF89a\x01\x00\x01\x00")
    ((_, value),) = service.written
    fields = json.loads(value or b"")
    assert isinstance(fields.pop("timestamp"), int)
    assert fields == {name: given for name, given in query.items() if name != "api_key"}


@pytest.mark.parametrize(
    ("query", "status", "why"),
    [
        ("user_id=anna", 400, "item_id"),
        ("user_id=&item_id=x", 400, "length"),
        ("user_id=anna&item_id=x&value=many", 400, "value"),
        ("user_id=anna&item_id=x&value=nan", 400, "value: "),
        ("user_id=anna&item_id=x&timestamp=4", 400, "seconds"),
        ("user_id=anna&item_id=x&user=anna", 400, "user: there is no such parameter"),
        ("user_id=bob&item_id=x", 503, "a reason"),
    ],
)
def test_a_pixel_that_is_not_written_is_no_picture(
    service: StandIn, query: str, status: int, why: str
) -> None:
    response = ask(service, "GET", f"/v1/pixel?{query}")
    assert response.status_code == status
    assert why in detail(response)


# -- users --------------------------------------------------------------------------------------------------


def test_what_is_stored_of_a_user_can_be_read(service: StandIn) -> None:
    response = ask(service, "GET", "/v1/users/anna")
    assert response.status_code == 200
    assert response.json()["offset"] == 7
    assert response.json()["includes"] is None
    assert ask(service, "GET", "/v1/users/nobody").status_code == 404
    for offset, late in ((7, False), (8, True)):
        response = ask(service, "GET", "/v1/users/nobody", params={"wait_for": token_of("nobody", offset)})
        assert response.status_code == 404
        assert ("not included yet" in detail(response)) is late


@pytest.mark.parametrize("user", ["anna", "a/b//c", "ü \u2028", "x/recommendations", "x" * MAX_ID])
def test_an_erasure_is_a_tombstone_under_the_user_s_key(service: StandIn, user: str) -> None:
    response = ask(service, "DELETE", f"/v1/users/{user}")
    assert response.status_code == 202
    assert service.written == [(user.encode(), None)]
    answer = response.json()
    assert (answer["user_id"], answer["wait_for"]) == (user, token_of(user, 0))
    assert datetime.fromisoformat(answer["gone_by"]) > datetime.now(UTC)


def test_an_erasure_that_is_not_ordered_is_not_claimed(service: StandIn) -> None:
    response = ask(service, "DELETE", "/v1/users/bob")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert detail(response).startswith("the erasure is not known to be ordered")
    assert ask(service, "DELETE", "/v1/users/" + "x" * (MAX_ID + 1)).status_code == 400
    assert len(service.written) == 1


# -- waiting ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/users/anna/recommendations", "/v1/users/anna"])
def test_an_answer_says_whether_it_includes_what_it_waited_for(service: StandIn, path: str) -> None:
    for offset, includes in ((7, True), (8, False)):
        response = ask(service, "GET", path, params={"wait_for": token_of("anna", offset)})
        assert response.json()["includes"] is includes
    (user, position, within_s), _ = service.awaited
    assert (user, position.offset, within_s) == ("anna", 7, 1.0)
    assert service.linked == ["anna"], "to what led to the row, when the answer includes it"


def test_a_posted_question_waits_as_well_and_as_long_as_it_says(service: StandIn) -> None:
    body = {"wait_for": token_of("anna", 3), "wait": 250}
    assert post(service, body, "/v1/users/anna/recommendations").json()["includes"] is True
    assert [within_s for _, _, within_s in service.awaited] == [0.25]


def test_an_answer_that_waited_for_nothing_says_so(service: StandIn) -> None:
    assert ask(service, "GET", "/v1/users/anna/recommendations").json()["includes"] is None
    assert service.awaited == []


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("wait_for=3", "wait_for: "),
        ("wait_for=a:b", "wait_for: "),
        ("wait_for=1:-1", "wait_for: "),
        ("wait_for=1:" + "9" * 30, "wait_for: "),
        ("wait_for=١:٢", "wait_for: "),
        ("wait_for=" + token_of("anna", 1) + "&wait=10001", "wait: "),
    ],
)
def test_a_token_that_is_none_is_refused(service: StandIn, query: str, why: str) -> None:
    for path in ("/v1/users/anna/recommendations", "/v1/users/anna"):
        response = ask(service, "GET", f"{path}?{query}")
        assert response.status_code == 400
        assert detail(response).startswith(why)


def test_a_token_of_another_partition_than_the_user_s_is_a_conflict(service: StandIn) -> None:
    other = (int(token_of("anna", 1)[0]) + 1) % 4
    for path in ("/v1/users/anna/recommendations", "/v1/users/anna"):
        response = ask(service, "GET", f"{path}?wait_for={other}:1")
        assert response.status_code == 409
        assert detail(response).startswith("wait_for: partition")


def test_the_description_names_what_the_routes_take(service: StandIn) -> None:
    description = ask(service, "GET", "/openapi.json").json()
    body = description["paths"]["/v1/events"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["anyOf"][0]["required"] == ["user_id", "item_id"]
    assert set(description["paths"]["/v1/users/{user_id}"]) == {"get", "delete"}
    assert {"207", "415"} <= set(description["paths"]["/v1/beacon"]["post"]["responses"])
    assert "415" not in description["paths"]["/v1/users/{user_id}"]["get"]["responses"]
