"""Spans that are recorded in memory."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from eddy.stream.records.trace_context import TraceContext
from eddy.stream.tracing import Tracer

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = TraceContext(TRACE, SPAN, 1), TraceContext(TRACE, SPAN, 0)


class RecordedSpans:
    """A tracer, and the spans of it that have ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = Tracer(provider)

    @property
    def ended(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    @property
    def only(self) -> ReadableSpan:
        """The span that has ended, of which there must be one."""
        (span,) = self.ended
        return span


def parent_of(span: ReadableSpan) -> tuple[str, str] | None:
    """The trace and the parent of a span, as hexadecimal digits; None where it begins a trace."""
    return span.parent and (f"{span.parent.trace_id:032x}", f"{span.parent.span_id:016x}")


def events_of(span: ReadableSpan) -> list[str]:
    """What a span says has happened."""
    return [event.name for event in span.events]


def id_of(span: ReadableSpan) -> str:
    """A span's id, as hexadecimal digits."""
    context = span.get_span_context()
    assert context is not None
    return f"{context.span_id:016x}"


def status_of(span: ReadableSpan) -> object:
    """The status of the answer that a request's span tells of."""
    assert span.attributes is not None
    return span.attributes["http.response.status_code"]
