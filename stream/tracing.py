"""Spans for OpenTelemetry, from a posted event to the list that includes it. Optional: spans are recorded
where the extra [otel] is installed and the environment names an endpoint (`OTEL_EXPORTER_OTLP_ENDPOINT`); the
other standard variables `OTEL_*` say the rest. No span names a user.

The context of a trace (`eddy.stream.records.trace_context`) is passed on also where no spans are recorded.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

from eddy.stream.records.trace_context import TraceContext

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, SpanContext

log = logging.getLogger("eddy.tracing")

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"


class Tracer:
    """Begins spans, which the provider's processors export when they end."""

    def __init__(self, provider: TracerProvider) -> None:
        # Looked up once, since the package may be missing and each span counts.
        from opentelemetry.context import Context
        from opentelemetry.trace import NonRecordingSpan, SpanKind, set_span_in_context

        self._outside, self._inside, self._remote = Context(), set_span_in_context, NonRecordingSpan
        self._kinds = {"SERVER": SpanKind.SERVER, "CONSUMER": SpanKind.CONSUMER}
        self._provider = provider
        self._tracer = provider.get_tracer("eddy", version("eddy-streams"))

    def begin(
        self,
        name: str,
        kind: Literal["SERVER", "CONSUMER"],
        parent: TraceContext | None,
        attributes: Mapping[str, Any],
    ) -> Span:
        """A span that has begun now, the first of a new trace without a parent. Whether it is recorded is for
        the sampler to say (`OTEL_TRACES_SAMPLER`), which follows the parent's flag unless told otherwise.
        """
        around = self._outside
        if parent is not None:
            around = self._inside(self._remote(_span_context(parent)), around)
        return self._tracer.start_span(name, around, self._kinds[kind], attributes)

    def close(self, within_s: float) -> None:
        """Export what has ended, for so long at most: a collector that does not answer must not hold up the
        end of a process.
        """
        closing = threading.Thread(target=self._provider.shutdown, name="eddy-spans", daemon=True)
        closing.start()
        closing.join(within_s)


def start_tracing(service: str) -> Tracer | None:
    """A tracer for this process, whose spans are of this service unless the environment names another; None
    where no spans are to be recorded.
    """
    endpoint = next((name for name in _ENDPOINTS if os.environ.get(name)), None)
    if endpoint is None or os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    protocol = next((os.environ[name] for name in _PROTOCOLS if os.environ.get(name)), _PROTOCOL)
    if protocol != _PROTOCOL:
        log.warning("no spans are recorded: they are sent as %s, not as %r", _PROTOCOL, protocol)
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError:
        log.warning("%s is set, but no spans are recorded: pip install 'eddy-streams[otel]'", endpoint)
        return None
    named = Resource.create({SERVICE_NAME: service}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=named, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracer(provider)


def context_of_span(span: Span) -> TraceContext:
    """The context that makes what comes next a child of this span."""
    context = span.get_span_context()
    return TraceContext(
        f"{context.trace_id:032x}",
        f"{context.span_id:016x}",
        int(context.trace_flags),
        context.trace_state.to_header(),
    )


def link(span: Span, to: TraceContext) -> None:
    """Say that a span has to do with another one, perhaps of another trace."""
    span.add_link(_span_context(to))


def mark_failed(span: Span) -> None:
    """Say that what a span tells of has failed."""
    from opentelemetry.trace import StatusCode

    span.set_status(StatusCode.ERROR)


def _span_context(context: TraceContext) -> SpanContext:
    from opentelemetry.trace import SpanContext, TraceFlags, TraceState

    return SpanContext(
        int(context.trace_id, 16),
        int(context.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(context.flags),
        trace_state=TraceState.from_header([context.state]) if context.state else None,
    )
