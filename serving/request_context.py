"""Each request's ids: its own (`X-Request-ID`), and the trace of which it is a part (W3C Trace Context).

Both come from the caller if they are well-formed. Log lines carry them (`RequestFields`), an answer carries
the request's id, and what a request writes elsewhere carries the trace on (`carried_headers`).
"""

from __future__ import annotations

import logging
import os
import re
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.types import Scope

from eddy.stream.records.trace_context import Headers, TraceContext, parse_trace

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


@dataclass(frozen=True, slots=True)
class RequestContext:
    """The ids of a request."""

    request_id: str
    trace: TraceContext | None = None
    """what the request's children belong to: its own span where there is one, else the caller's"""
    span: Span | None = None


CURRENT: ContextVar[RequestContext | None] = ContextVar("request", default=None)


def current() -> RequestContext | None:
    """The ids of the request that is being answered, or None outside requests."""
    return CURRENT.get()


def carried_headers() -> Headers:
    """The headers of a Kafka record that carry on the trace of the request that is being answered."""
    context = CURRENT.get()
    return [] if context is None or context.trace is None else context.trace.headers


def context_of(scope: Scope) -> RequestContext:
    """The ids that a request brings, or new ones."""
    request_id, parent, state = None, b"", list[bytes]()
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            request_id = value.decode()
        elif name == b"traceparent":
            parent = value
        elif name == b"tracestate":
            state.append(value)
    trace = parse_trace(parent, b",".join(state)) if parent else None
    return RequestContext(request_id or os.urandom(8).hex(), trace)


class RequestFields(logging.Filter):
    """Adds the ids of the request at work to log records, as the attribute `fields`."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Every record passes."""
        context = CURRENT.get()
        if context is not None:
            fields = {"request_id": context.request_id}
            if context.trace is not None:
                fields |= {"trace_id": context.trace.trace_id, "span_id": context.trace.span_id}
            record.fields = fields | getattr(record, "fields", {})
        return True
