"""How a question is read from a URL, and where the server can listen."""

from __future__ import annotations

import asyncio
import re
import socket
from types import SimpleNamespace
from typing import cast

import httpx
import pytest
from starlette.datastructures import QueryParams

from eddy.models.errors import EddyError
from eddy.serving.app import MAX_EXCLUDED, QuestionError, listen, new_app, parse_posted, parse_question
from eddy.serving.metrics import ServerMetrics
from eddy.serving.recommend import Question
from eddy.serving.service import Service
from eddy.stream.records.settings import load_settings


def parse(query: str, user_id: str = "u") -> Question:
    return parse_question(user_id, QueryParams(query), load_settings(k=7, exclude_seen=True))


def test_what_is_not_asked_for_comes_from_the_settings() -> None:
    assert parse("") == Question("u", 7, True, ())


def test_all_filters() -> None:
    asked = parse("k=1000&exclude_seen=FALSE&exclude=a&exclude=b%2Fc")
    assert asked == Question("u", 1000, False, ("a", "b/c"))


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("k=0", "k must be a whole number from 1 to 1000, not '0'"),
        ("k=1001", "from 1 to 1000"),
        ("k=-1", "from 1 to 1000"),
        ("k=ten", "not 'ten'"),
        ("k=", "not ''"),
        ("k=" + "9" * 5000, "from 1 to 1000"),
        ("k=²", "from 1 to 1000"),
        ("exclude_seen=perhaps", "exclude_seen must be true or false, not 'perhaps'"),
        ("exlude=a", "unknown parameter 'exlude'; there are k, exclude_seen, exclude"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_name(query: str, why: str) -> None:
    with pytest.raises(QuestionError, match=re.escape(why)) as refused:
        parse(query)
    assert "\n" not in str(refused.value)


def test_an_empty_user_is_refused() -> None:
    with pytest.raises(QuestionError, match="user_id is empty"):
        parse("", user_id="")
    with pytest.raises(QuestionError, match="user_id is empty"):
        post(b"{}", user_id="")


def test_more_than_ten_thousand_exclusions_are_refused() -> None:
    many = "&".join(["exclude=a"] * (MAX_EXCLUDED + 1))
    with pytest.raises(QuestionError, match="exclude: 10001 items; at most 10000"):
        parse(many)


def post(body: bytes, user_id: str = "u") -> Question:
    return parse_posted(user_id, body, load_settings(k=7, exclude_seen=True))


def test_what_a_posted_question_leaves_out_comes_from_the_settings() -> None:
    assert post(b"{}") == Question("u", 7, True, ())
    assert post(b'{"k": null, "exclude_seen": null, "exclude": null}') == Question("u", 7, True, ())


def test_a_posted_question_has_the_same_filters() -> None:
    posted = post(b'{"k": 1000, "exclude_seen": false, "exclude": ["a", "b/c"]}')
    assert posted == parse("k=1000&exclude_seen=false&exclude=a&exclude=b/c")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "Input data was truncated"),
        (b"\xff", "the body is no question in JSON"),
        (b"[" * 100_000, "the body is no question in JSON"),
        (b'{"k": 0}', r"`int` >= 1 - at `$.k`"),
        (b'{"k": 1001}', r"<= 1000 - at `$.k`"),
        (b'{"k": true}', r"at `$.k`"),
        (b'{"exclude": "a"}', r"at `$.exclude`"),
        (b'{"exclude": [1]}', r"at `$.exclude[0]`"),
        (b'{"exclude": ["\\ud800"]}', "the body is no question in JSON"),
        (b'{"limit": 3}', "unknown field `limit`"),
    ],
)
def test_a_posted_question_that_cannot_be_understood_is_refused(body: bytes, why: str) -> None:
    with pytest.raises(QuestionError, match=re.escape(why)) as refused:
        post(body)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_what_is_written_on_an_accepted_connection_is_sent_at_once(host: str) -> None:
    async def no_delay_of_the_accepted_socket() -> int:
        accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inner: socket.socket = writer.get_extra_info("socket")
            accepted.set_result(inner.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with listen(load_settings(host=host, port=0)) as listening:
            async with await asyncio.start_server(answer, sock=listening):
                _, writer = await asyncio.open_connection(host, listening.getsockname()[1])
                writer.close()
                return await accepted

    assert asyncio.run(no_delay_of_the_accepted_socket()) == 1


def test_a_taken_port_is_one_line_that_names_the_setting() -> None:
    with listen(load_settings(port=0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(EddyError, match=f"port {port}: .*EDDY_PORT"):
            listen(load_settings(port=port))


def test_what_fails_inside_is_told_in_the_documented_form_too() -> None:
    async def fails(_: Question) -> None:
        raise ZeroDivisionError("a secret")

    service = SimpleNamespace(metrics=ServerMetrics(), settings=load_settings(), recommend=fails)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(new_app(cast(Service, service)), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://eddy") as client:
            return await client.get("/v1/users/u/recommendations")

    response = asyncio.run(ask())
    assert response.status_code == 500
    assert "ZeroDivisionError" in response.json()["error"]
    assert "secret" not in response.text
