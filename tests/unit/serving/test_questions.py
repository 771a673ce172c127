"""How a question is read from a URL, and where the server can listen."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import cast

import httpx
import pytest

from eddy.models.errors import EddyError
from eddy.serving.app import new_app
from eddy.serving.listening import listen
from eddy.serving.lists.questions import Question
from eddy.serving.routes.recommendations import MAX_EXCLUDED
from eddy.serving.service import Service
from eddy.stream.records.settings import load_settings
from tests.support.recorded_service import RecordedService


def ask(service: RecordedService, method: str, path: str, body: bytes | None = None) -> httpx.Response:
    async def answered() -> httpx.Response:
        transport = httpx.ASGITransport(new_app(cast(Service, service)), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://eddy") as client:
            return await client.request(method, path, content=body)

    return asyncio.run(answered())


def parse(query: str) -> Question | None:
    service = RecordedService()
    response = ask(service, "GET", f"/v1/users/u/recommendations?{query}")
    assert response.status_code == 200, response.text
    return service.question


def refusal(method: str, path: str, body: bytes | None = None) -> str:
    response = ask(RecordedService(), method, path, body)
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert (problem["status"], problem["title"]) == (400, "Bad Request")
    return str(problem["detail"])


def test_what_is_not_asked_for_comes_from_the_settings() -> None:
    assert parse("") == Question("u", 7, True, ())


def test_all_filters() -> None:
    asked = parse("k=1000&exclude_seen=FALSE&exclude=a&exclude=b%2Fc")
    assert asked == Question("u", 1000, False, ("a", "b/c"))


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("k=0", "k: Input should be greater than or equal to 1"),
        ("k=1001", "k: Input should be less than or equal to 1000"),
        ("k=-1", "k: "),
        ("k=ten", "k: "),
        ("k=", "k: "),
        ("k=" + "9" * 5000, "k: "),
        ("k=²", "k: "),
        ("exclude_seen=perhaps", "exclude_seen: "),
        ("exlude=a", "exlude: there is no such parameter"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_name(query: str, why: str) -> None:
    line = refusal("GET", f"/v1/users/u/recommendations?{query}")
    assert line.startswith(why)
    assert "\n" not in line


def test_a_user_s_id_may_have_line_breaks_and_slashes() -> None:
    service = RecordedService()
    assert ask(service, "GET", "/v1/users/a%0Ab/%0D%0A/recommendations").status_code == 200
    assert service.question is not None
    assert service.question.user_id == "a\nb/\r\n"


def test_an_empty_user_is_refused() -> None:
    assert refusal("GET", "/v1/users//recommendations").startswith("user_id: ")
    assert refusal("POST", "/v1/users//recommendations", b"{}").startswith("user_id: ")


def test_more_than_ten_thousand_exclusions_are_refused() -> None:
    many = json.dumps({"exclude": ["a"] * (MAX_EXCLUDED + 1)}).encode()
    assert refusal("POST", "/v1/users/u/recommendations", many).startswith("exclude: ")


def post(body: bytes) -> Question | None:
    service = RecordedService()
    response = ask(service, "POST", "/v1/users/u/recommendations", body)
    assert response.status_code == 200, response.text
    return service.question


def test_what_a_posted_question_leaves_out_comes_from_the_settings() -> None:
    assert post(b"{}") == Question("u", 7, True, ())
    assert post(b'{"k": null, "exclude_seen": null, "exclude": null}') == Question("u", 7, True, ())


def test_a_posted_question_has_the_same_filters() -> None:
    posted = post(b'{"k": 1000, "exclude_seen": false, "exclude": ["a", "b/c"]}')
    assert posted == parse("k=1000&exclude_seen=false&exclude=a&exclude=b/c")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", ""),
        (b"\xff", "There was an error parsing the body"),
        (b"[" * 100_000, ""),
        (b'{"k": 0}', "k: "),
        (b'{"k": 1001}', "k: "),
        (b'{"exclude": "a"}', "exclude: "),
        (b'{"exclude": [1]}', "exclude[0]: "),
        (b'{"exclude": ["\\ud800"]}', ""),
        (b'{"limit": 3}', "limit: there is no such parameter"),
    ],
)
def test_a_posted_question_that_cannot_be_understood_is_refused(body: bytes, why: str) -> None:
    line = refusal("POST", "/v1/users/u/recommendations", body)
    assert line.startswith(why)
    assert "\n" not in line


def test_of_many_faults_some_are_told_and_the_others_counted() -> None:
    line = refusal("POST", "/v1/users/u/recommendations", json.dumps({"exclude": [1] * 10_000}).encode())
    assert line.startswith("exclude[0]: ")
    assert line.endswith("; and 9990 more")
    assert len(line) < 1_000
    many = json.dumps({"items": [1] * 10_000}).encode()
    assert refusal("POST", "/v1/users/u/rank", many).startswith("items[0]: ")


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
    response = ask(RecordedService(), "GET", "/v1/users/fails/recommendations")
    assert response.status_code == 500
    assert "ZeroDivisionError" in response.json()["detail"]
    assert "secret" not in response.text
