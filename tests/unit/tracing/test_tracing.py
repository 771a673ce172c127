"""When spans are recorded, where they go, and that their collector holds nobody up."""

from __future__ import annotations

import logging
import sys
import threading

import pytest

from eddy.stream.tracing import Tracer, context_of_span, link, start_tracing
from tests.support.otlp_collector import collecting
from tests.support.spans import SAMPLED, SPAN, TRACE, RecordedSpans, parent_of


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the variables of whoever runs the tests."""
    for name in ("ENDPOINT", "TRACES_ENDPOINT", "PROTOCOL", "TRACES_PROTOCOL"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
    for name in ("OTEL_SDK_DISABLED", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_TRACES_SAMPLER"):
        monkeypatch.delenv(name, raising=False)


def record_one(service: str = "eddy-test") -> None:
    """Record one span, and export it."""
    tracer = start_tracing(service)
    assert tracer is not None
    tracer.begin("work", "SERVER", SAMPLED, {}).end()
    tracer.close(within_s=60)


def test_without_an_endpoint_nothing_is_recorded() -> None:
    assert start_tracing("eddy-test") is None


def test_spans_go_to_the_endpoint_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        record_one()
        monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
        record_one()
    first, second = collector.spans
    assert (first.name, first.trace_id, first.parent_id) == ("work", TRACE, SPAN)
    assert (first.service, second.service) == ("eddy-test", "shop")


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_SAMPLER", "always_off")]
)
def test_the_standard_variables_turn_spans_off(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        monkeypatch.setenv(name, value)
        tracer = start_tracing("eddy-test")
        if tracer is not None:
            tracer.begin("work", "SERVER", SAMPLED, {}).end()
            tracer.close(within_s=60)
    assert collector.spans == []


def test_an_endpoint_without_the_extra_is_told_and_nothing_is_recorded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:9/v1/traces")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with caplog.at_level(logging.WARNING, "eddy.tracing"):
        assert start_tracing("eddy-test") is None
    assert "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" in caplog.text
    assert "eddy-streams[otel]" in caplog.text


def test_another_protocol_is_told_and_nothing_is_recorded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with caplog.at_level(logging.WARNING, "eddy.tracing"):
        assert start_tracing("eddy-test") is None
    assert "grpc" in caplog.text


def test_a_collector_that_does_not_answer_does_not_hold_up_the_end() -> None:
    never = threading.Event()

    class Stuck:
        def get_tracer(self, *_: str) -> None:
            """Nobody begins a span."""

        def shutdown(self) -> None:
            never.wait()

    Tracer(Stuck()).close(within_s=0.01)  # type: ignore[arg-type]
    never.set()


def test_what_comes_next_is_a_child_and_what_has_to_do_with_it_is_linked() -> None:
    spans = RecordedSpans()
    first = spans.tracer.begin("first", "SERVER", None, {})
    second = spans.tracer.begin("second", "CONSUMER", context_of_span(first), {})
    link(second, SAMPLED)
    second.end()
    first.end()
    child, parent = spans.ended
    context = parent.get_span_context()
    assert context is not None
    assert parent_of(child) == (f"{context.trace_id:032x}", f"{context.span_id:016x}")
    assert [f"{linked.context.span_id:016x}" for linked in child.links] == [SPAN]
