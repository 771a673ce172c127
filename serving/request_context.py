"""Each request's ids: its own (`X-Request-ID`), and the trace of which it is a part (W3C Trace Context).

Both come from the caller if they are well-formed. Log lines carry them (`RequestFields`), an answer carries
the request's id, and what a request writes elsewhere can carry the trace on: `current().traceparent`.
"""

import logging
import os
import re
from contextvars import ContextVar
from dataclasses import dataclass

from starlette.types import Scope

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})(-.*)?")
_NO_TRACE = b"0" * 32


@dataclass(frozen=True, slots=True)
class RequestContext:
    """The ids of a request."""

    request_id: str
    trace_id: str | None = None
    span_id: str | None = None
    """this request's part of the trace"""
    trace_flags: str = "00"

    @property
    def traceparent(self) -> str | None:
        """The header that passes the trace on to whatever this request calls or writes."""
        return f"00-{self.trace_id}-{self.span_id}-{self.trace_flags}" if self.trace_id else None


CURRENT: ContextVar[RequestContext | None] = ContextVar("request", default=None)


def current() -> RequestContext | None:
    """The ids of the request that is being answered, or None outside requests."""
    return CURRENT.get()


def context_of(scope: Scope) -> RequestContext:
    """The ids that a request brings, or new ones."""
    request_id, trace_id, flags = None, None, "00"
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            request_id = value.decode()
        elif name == b"traceparent":
            match = _TRACEPARENT.fullmatch(value)
            if match and match[1] != _NO_TRACE:
                trace_id, flags = match[1].decode(), match[2].decode()
    span_id = os.urandom(8).hex() if trace_id else None
    return RequestContext(request_id or os.urandom(8).hex(), trace_id, span_id, flags)


class RequestFields(logging.Filter):
    """Adds the ids of the request at work to log records, as the attribute `fields`."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Every record passes."""
        context = CURRENT.get()
        if context is not None:
            fields = {"request_id": context.request_id}
            if context.trace_id and context.span_id:
                fields |= {"trace_id": context.trace_id, "span_id": context.span_id}
            record.fields = fields | getattr(record, "fields", {})
        return True
