"""The client asks again when it should, and only then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from eddy.client import AsyncClient, Client, EddyHttpError, Item, Recommendations

Handler = Callable[[httpx.Request], httpx.Response]
LIST = {
    "user_id": "a/b",
    "known": True,
    "items": [{"item_id": "x", "score": 1.5, "new": 1}],
    "stream_time": 7,
}


def ask(handler: Handler, asynchronous: bool, work: Callable[[Any], Any], **options: Any) -> Any:
    """What a call gives, by one of the two clients, from a server that answers as `handler` does."""
    transport = httpx.MockTransport(handler)
    if not asynchronous:
        with Client("http://eddy", **options) as client:
            client._http = httpx.Client(transport=transport, base_url="http://eddy", headers=client._headers)
            return work(client)

    async def run() -> Any:
        async with AsyncClient("http://eddy", **options) as client:
            client._http = httpx.AsyncClient(
                transport=transport, base_url="http://eddy", headers=client._headers
            )
            return await work(client)

    return asyncio.run(run())


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that a client makes, without making them."""
    made: list[float] = []

    async def pause(seconds: float) -> None:
        made.append(seconds)

    monkeypatch.setattr("eddy.client.time.sleep", made.append)
    monkeypatch.setattr("eddy.client.asyncio.sleep", pause)
    return made


both = pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])


@both
def test_a_list_is_typed_and_what_a_newer_server_says_more_is_no_error(asynchronous: bool) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={**LIST, "something": "new"})

    found = ask(
        answer,
        asynchronous,
        lambda client: client.recommendations("a/b", k=3, exclude=["y"], explain=True),
        api_key="eddy_k",
    )
    assert isinstance(found, Recommendations)
    assert found.items == [Item("x", 1.5)]
    assert asked[0].url.raw_path == b"/v1/users/a%2Fb/recommendations"
    assert json.loads(asked[0].content) == {"k": 3, "exclude": ["y"], "explain": True}
    assert asked[0].headers["x-api-key"] == "eddy_k"


@both
@pytest.mark.parametrize(
    ("user", "path"), [(".", b"%2E"), ("..", b"%2E%2E"), ("...", b"..."), ("a/../b", b"a%2F..%2Fb")]
)
def test_an_id_of_dots_is_no_folder(asynchronous: bool, user: str, path: bytes) -> None:
    asked: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.raw_path)
        return httpx.Response(200, json=LIST)

    ask(answer, asynchronous, lambda client: client.recommendations(user))
    ask(answer, asynchronous, lambda client: client.erase(user))
    assert asked == [b"/v1/users/" + path + b"/recommendations", b"/v1/users/" + path]


@both
def test_a_list_says_whether_it_includes_what_it_waited_for(asynchronous: bool) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        waits = json.loads(request.content) == {"wait_for": "3:17"}
        return httpx.Response(200, json={**LIST, "includes": True if waits else None})

    waited = ask(answer, asynchronous, lambda client: client.recommendations("a/b", wait_for="3:17"))
    plain = ask(answer, asynchronous, lambda client: client.recommendations("a/b"))
    assert (waited.includes, plain.includes) == (True, None)


@both
@pytest.mark.parametrize("status", [429, 503])
def test_a_full_server_is_asked_again_after_the_pause_that_it_names(
    asynchronous: bool, status: int, pauses: list[float]
) -> None:
    answers = iter([httpx.Response(status, headers={"Retry-After": "2"}), httpx.Response(200, json=LIST)])
    found = ask(lambda _: next(answers), asynchronous, lambda client: client.recommendations("a/b"))
    assert found.known
    assert len(pauses) == 1
    assert 2 <= pauses[0] <= 3


@both
def test_a_server_that_cannot_be_reached_is_tried_as_often_as_was_said(
    asynchronous: bool, pauses: list[float]
) -> None:
    def unreachable(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(httpx.ConnectError):
        ask(unreachable, asynchronous, lambda client: client.recommendations("u"), retries=2)
    assert len(pauses) == 2


@both
def test_a_refusal_is_an_error_with_its_reason_and_is_not_asked_again(
    asynchronous: bool, pauses: list[float]
) -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        return httpx.Response(400, json={"detail": "k: too large"}, headers={"X-Request-ID": "r1"})

    with pytest.raises(EddyHttpError, match="400: k: too large") as refused:
        ask(refuse, asynchronous, lambda client: client.recommendations("u", k=5000))
    assert (refused.value.status, refused.value.request_id, pauses) == (400, "r1", [])


@both
def test_an_event_that_is_sent_again_keeps_its_id(asynchronous: bool, pauses: list[float]) -> None:
    sent: list[Any] = []
    outcome = {
        "accepted": [{"index": 0, "partition": 1, "offset": 5, "wait_for": "1:5"}],
        "refused": [{"index": 1, "status": 400, "reason": "no item"}],
    }

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        return httpx.Response(503) if len(sent) == 1 else httpx.Response(207, json=outcome)

    event = {"user_id": "u", "item_id": "x"}
    found = ask(answer, asynchronous, lambda client: client.send_events([event, {**event, "event_id": "e"}]))
    assert found.accepted[0].wait_for == "1:5"
    assert found.refused[0].reason == "no item"
    assert sent[0] == sent[1]
    ids = [event["event_id"] for event in sent[0]["events"]]
    assert ids[1] == "e"
    assert len(ids[0]) == 32
