"""What surrounds a request: its ids, metrics without ids, log lines, and limits."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any, cast

import httpx
import pytest

from eddy.cli.log_lines import JsonLines, TextLines
from eddy.serving.admission import Overloaded
from eddy.serving.app import new_app
from eddy.serving.lists.answers import Answer
from eddy.serving.lists.questions import Question
from eddy.serving.request_context import RequestFields
from eddy.serving.service import Service
from eddy.stream.records.settings import load_settings
from tests.support.recorded_service import RecordedService

PATH = "/v1/users/secret-user/recommendations"
TRACE = "0af7651916cd43dd8448eb211c80319c"


def ask(
    service: RecordedService, *paths: str, headers: dict[str, str] | None = None, method: str = "GET",
    content: bytes | None = None,
) -> list[httpx.Response]:  # fmt: skip
    async def answered() -> list[httpx.Response]:
        transport = httpx.ASGITransport(new_app(cast(Service, service)), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://eddy") as client:
            asked = [client.request(method, path, headers=headers, content=content) for path in paths]
            return await asyncio.gather(*asked)

    return asyncio.run(answered())


def test_an_answer_has_the_id_of_its_request_or_a_new_one() -> None:
    (given,) = ask(RecordedService(), PATH, headers={"X-Request-ID": "order-7:3"})
    assert given.headers["x-request-id"] == "order-7:3"
    first, second = ask(RecordedService(), PATH, PATH, headers={"X-Request-ID": "no good\tid"})
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


def test_metrics_and_log_lines_name_the_route_and_no_user(caplog: pytest.LogCaptureFixture) -> None:
    service = RecordedService(load_settings(http_access_log=True))
    with caplog.at_level(logging.INFO, "eddy"):
        ask(service, PATH, "/v1/users/fails/recommendations", "/nothing/secret-path", f"{PATH}?k=0")
        (metrics,) = ask(service, "/metrics")
    template = "/v1/users/{user_id:path}/recommendations"
    for status in (200, 400, 500):
        labels = f'method="GET",route="{template}",status="{status}"'
        assert f"eddy_http_requests_total{{{labels}}} 1.0" in metrics.text
    assert 'route="none",status="404"' in metrics.text
    assert f"GET {template} 200" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    for hidden in ("secret-user", "secret-path"):
        assert hidden not in metrics.text
        assert hidden not in caplog.text


def test_a_log_line_of_a_request_has_its_ids_as_json_and_as_text() -> None:
    lines: list[tuple[str, str]] = []

    class Writing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append((JsonLines().format(record), TextLines().format(record)))

    handler, log = Writing(), logging.getLogger("eddy.serving.requests")
    handler.addFilter(RequestFields())
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        ids = {"X-Request-ID": "r-1", "traceparent": f"00-{TRACE}-b7ad6b7169203331-00"}
        ask(RecordedService(load_settings(http_access_log=True)), PATH, headers=ids)
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)
    fields: dict[str, Any] = json.loads(lines[-1][0])
    assert (fields["request_id"], fields["trace_id"], fields["status"]) == ("r-1", TRACE, 200)
    assert fields["level"] == "INFO"
    assert lines[-1][1].endswith("[r-1]")


def test_a_question_that_would_wait_for_too_long_is_answered_with_when_to_ask_again() -> None:
    class Full(RecordedService):
        async def recommend(self, question: Question) -> Answer:
            raise Overloaded("too much is asked")

    (refused,) = ask(Full(), PATH)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert refused.headers["content-type"] == "application/problem+json"


def test_an_overloaded_server_refuses_lists_before_it_looks_at_them_and_goes_on_with_the_rest() -> None:
    class Overfull(RecordedService):
        def is_overloaded(self) -> bool:
            return True

    service = Overfull()
    refused, alive = ask(service, f"{PATH}?k=nonsense", "/healthz")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert alive.status_code == 200
    assert service.question is None


def test_more_requests_than_may_be_under_way_are_refused_but_not_those_of_operators() -> None:
    may_answer = asyncio.Event()

    class Slow(RecordedService):
        async def recommend(self, question: Question) -> Answer:
            await may_answer.wait()
            return await super().recommend(question)

    async def run() -> None:
        app = new_app(cast(Service, Slow(load_settings(http_max_concurrent=2))))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://eddy") as client:
            under_way = [asyncio.create_task(client.get(PATH)) for _ in range(2)]
            for _ in range(100):
                await asyncio.sleep(0)
            refused = await client.get(PATH)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert (await client.get("/healthz")).status_code == 200
            may_answer.set()
            assert [(await task).status_code for task in under_way] == [200, 200]
            assert (await client.get(PATH)).status_code == 200

    asyncio.run(run())


def test_pages_of_other_origins_may_ask_only_if_they_are_named() -> None:
    preflight = {"Origin": "https://shop.example", "Access-Control-Request-Method": "GET"}
    named = RecordedService(load_settings(http_cors_origins="https://shop.example,https://b.example"))
    (allowed,) = ask(named, PATH, headers=preflight, method="OPTIONS")
    assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
    (other,) = ask(named, PATH, headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers
    (without,) = ask(RecordedService(), PATH, headers=preflight, method="OPTIONS")
    assert "access-control-allow-origin" not in without.headers


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/v1/users/Jos%E9"),
        ("GET", "/v1/users/Jos%E9/recommendations"),
        ("GET", "/v1/users/%ED%A0%80/recommendations"),
        ("GET", "/v1/pixel?user_id=Jos%E9&item_id=a"),
        ("GET", f"{PATH}?category=Caf%E9"),
    ],
)
def test_a_url_that_is_not_utf8_is_refused_and_no_other_user_is_meant(method: str, path: str) -> None:
    (answer,) = ask(RecordedService(), path, method=method)
    assert answer.status_code == 400
    assert "UTF-8" in answer.json()["detail"]


def test_a_body_in_a_coding_that_is_not_decoded_is_refused_by_its_name() -> None:
    for coding, status in (("gzip", 415), ("br", 415), ("identity", 200)):
        headers = {"Content-Encoding": coding}
        (answer,) = ask(RecordedService(), PATH, method="POST", headers=headers, content=b"{}")
        assert answer.status_code == status
        assert status == 200 or coding in answer.json()["detail"]


def test_a_body_that_says_to_be_too_large_is_refused_before_it_comes() -> None:
    headers = {"Content-Length": "99999999999"}
    (answer,) = ask(RecordedService(), PATH, method="POST", headers=headers, content=b"{}")
    assert answer.status_code == 413
    assert "larger than 1048576 bytes" in answer.json()["detail"]


def test_health_can_be_asked_for_with_head() -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        get, head = (ask(RecordedService(), path, method=method)[0] for method in ("GET", "HEAD"))
        assert head.status_code == get.status_code
