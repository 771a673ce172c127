"""Requests as parts of traces: what they carry on, their spans, and what these never say."""

from __future__ import annotations

import asyncio
from typing import cast

import httpx
import pytest
from opentelemetry.trace import SpanKind, StatusCode

from eddy.serving.app import new_app
from eddy.serving.lists.answers import Answer
from eddy.serving.lists.questions import Question
from eddy.serving.request_context import carried_headers
from eddy.serving.service import Service
from eddy.stream.records.trace_context import Headers, TraceContext, trace_of_record
from eddy.stream.tracing import Tracer
from tests.support.recorded_service import RecordedService
from tests.support.spans import SAMPLED, SPAN, TRACE, UNSAMPLED, RecordedSpans, id_of, parent_of, status_of

PATH = "/v1/users/secret-user/recommendations"
ROUTE = "/v1/users/{user_id:path}/recommendations"


class Carrying(RecordedService):
    """Notes what a record that a request writes would carry on."""

    headers: Headers | None = None

    async def recommend(self, question: Question) -> Answer:
        self.headers = carried_headers()
        return await super().recommend(question)


def ask(tracer: Tracer | None, *paths: str, root_path: str = "", **headers: str) -> Headers | None:
    """Ask one path after another; returns what the last list would carry on."""
    service = Carrying()

    async def answered() -> None:
        app = new_app(cast(Service, service), tracer)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, root_path=root_path)
        async with httpx.AsyncClient(transport=transport, base_url="http://eddy") as client:
            for path in paths:
                await client.get(path, headers=headers)

    asyncio.run(answered())
    return service.headers


@pytest.mark.parametrize("caller", [SAMPLED, UNSAMPLED], ids=["sampled", "not sampled"])
def test_a_callers_trace_is_carried_on_unchanged_where_no_spans_are_recorded(caller: TraceContext) -> None:
    carried = ask(None, PATH, traceparent=caller.traceparent, tracestate="vendor=7")
    assert carried == [("traceparent", caller.traceparent.encode()), ("tracestate", b"vendor=7")]


def test_nothing_is_carried_on_without_a_trace_or_with_a_malformed_one() -> None:
    assert ask(None, PATH) == []
    assert ask(None, PATH, traceparent="nonsense", tracestate="vendor=7") == []


def test_a_request_of_a_trace_has_a_span_whose_context_is_carried_on() -> None:
    spans = RecordedSpans()
    headers = ask(spans.tracer, PATH, traceparent=SAMPLED.traceparent, tracestate="vendor=7")
    span = spans.only
    assert (span.name, span.kind) == (f"GET {ROUTE}", SpanKind.SERVER)
    assert parent_of(span) == (TRACE, SPAN)
    assert trace_of_record(headers or []) == TraceContext(TRACE, id_of(span), 1, "vendor=7")


def test_a_request_without_a_trace_begins_one() -> None:
    spans = RecordedSpans()
    carried = trace_of_record(ask(spans.tracer, PATH) or [])
    assert parent_of(spans.only) is None
    assert carried is not None
    assert (carried.span_id, carried.is_sampled) == (id_of(spans.only), True)


def test_a_callers_decision_not_to_sample_is_kept() -> None:
    spans = RecordedSpans()
    carried = trace_of_record(ask(spans.tracer, PATH, traceparent=UNSAMPLED.traceparent) or [])
    assert spans.ended == ()
    assert carried is not None
    assert (carried.trace_id, carried.is_sampled) == (TRACE, False)


def test_spans_name_routes_and_outcomes_and_no_users() -> None:
    spans = RecordedSpans()
    ask(spans.tracer, PATH, "/v1/users/fails/recommendations", f"{PATH}?k=0", "/v1/secret-path")
    told = [(span.name, status_of(span), span.status.status_code == StatusCode.ERROR) for span in spans.ended]
    list_route = f"GET {ROUTE}"
    assert told == [(list_route, 200, False), (list_route, 500, True), (list_route, 400, False),
                    ("GET none", 404, False)]  # fmt: skip
    everything = "".join(span.to_json() for span in spans.ended)
    assert "secret" not in everything
    assert "fails" not in everything


def test_what_operators_ask_has_no_span() -> None:
    spans = RecordedSpans()
    ask(spans.tracer, "/healthz", "/metrics", "/")
    assert spans.ended == ()


def test_requests_behind_a_stripped_path_have_spans() -> None:
    spans = RecordedSpans()
    ask(spans.tracer, f"/eddy{PATH}", root_path="/eddy")
    assert spans.only.name == f"GET {ROUTE}"
