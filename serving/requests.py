"""What surrounds every request: its ids, its metrics, its log line, a limit, and an answer when it fails."""

import logging
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eddy.serving.admission import RETRY_AFTER
from eddy.serving.api_keys import CALLER
from eddy.serving.authentication import needs_no_key, path_of
from eddy.serving.metrics import ServerMetrics
from eddy.serving.problems import failure, problem
from eddy.serving.request_context import CURRENT, RequestContext, context_of
from eddy.stream.tracing import Tracer, context_of_span, mark_failed

log = logging.getLogger("eddy.serving.requests")

_ANSWERED_IN_TURN = ("/recommendations", "/rank")
"""Ends of the paths whose questions wait for the thread that answers."""

_TRACED = "/v1/"
"""How the paths of the requests begin that have spans: what is asked for, not how the server is."""

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class Requests:
    """ASGI middleware around all others. Log lines and metrics name routes and never their ids."""

    def __init__(
        self, app: ASGIApp, metrics: ServerMetrics, is_overloaded: Callable[[], bool], max_concurrent: int,
        log_each: bool = False, tracer: Tracer | None = None,
    ) -> None:  # fmt: skip
        """is_overloaded: whether a list or a ranking would be refused now. tracer: of spans, where any are
        recorded.
        """
        self.app = app
        self._is_overloaded = is_overloaded
        self._metrics = metrics
        self._max_concurrent = max_concurrent
        self._log_each = log_each
        self._tracer = tracer
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, unless too many are under way, and note what became of it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, context, is_stream = perf_counter(), 0, context_of(scope), False
        if self._tracer is not None and path_of(scope).startswith(_TRACED):
            context = _in_span(self._tracer, scope, context)
        request_id = (b"x-request-id", context.request_id.encode())

        async def send_with_id(message: Message) -> None:
            nonlocal status, is_stream
            if message["type"] == "http.response.start":
                status = message["status"]
                if _begins_stream(message):  # it has a limit of its own (eddy.serving.live.streams)
                    is_stream = True
                    self._under_way -= 1
                message["headers"] = [*message["headers"], request_id]
            await send(message)

        token = CURRENT.set(context)
        self._under_way += 1
        try:
            if reason := self._refusal(scope):
                refusal = problem(503, reason, RETRY_AFTER)
                await refusal(scope, receive, send_with_id)
                return
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            log.info("%s %s: the client has gone", scope["method"], _route(scope))
        except Exception as error:
            log.exception("%s %s failed", scope["method"], _route(scope))
            if status:
                raise  # the answer has begun: only the end of the connection can tell
            await failure(error)(scope, receive, send_with_id)
        finally:
            if not is_stream:
                self._under_way -= 1
            self._note(scope, status, perf_counter() - began, is_stream)
            _end_span(scope, status, context)
            CURRENT.reset(token)

    def _refusal(self, scope: Scope) -> str | None:
        """Why a request is refused before it is looked at: under overload, to understand it would take the
        time that answers need.
        """
        if scope["path"].endswith(_ANSWERED_IN_TURN) and self._is_overloaded():
            return "more is asked here than can be answered in time"
        if self._under_way > self._max_concurrent and not needs_no_key(scope):
            return "too many requests are under way here"
        return None

    def _note(self, scope: Scope, status: int, seconds: float, is_stream: bool) -> None:
        """Count a request that has ended. How long a stream was open does not say how fast the server is."""
        method, route = _method(scope), _route(scope)
        self._metrics.http_requests.labels(route, method, str(status)).inc()
        if not is_stream:
            self._metrics.http_seconds.labels(route).observe(seconds)
            self._metrics.recent_seconds.append(seconds)
        if self._log_each:
            ms = round(seconds * 1000, 3)
            fields: dict[str, Any] = {"method": method, "route": route, "status": status, "ms": ms}
            if CALLER in scope:
                fields["key"] = scope[CALLER].name
            log.info("%s %s %d in %.1f ms", method, route, status, ms, extra={"fields": fields})


def _begins_stream(message: Message) -> bool:
    """Whether this is the head of a stream of events."""
    return any(name == b"content-type" and value.startswith(b"text/event-stream")
               for name, value in message["headers"])  # fmt: skip


def _in_span(tracer: Tracer, scope: Scope, context: RequestContext) -> RequestContext:
    """The ids of a request that has a span of its own. The library's instrumentation of ASGI would name the
    URL in it, in which there are ids of users.
    """
    span = tracer.begin(_method(scope), "SERVER", context.trace, {"http.request.method": _method(scope)})
    return replace(context, trace=context_of_span(span), span=span)


def _end_span(scope: Scope, status: int, context: RequestContext) -> None:
    """End the span of a request, if it has one; status: 0 where no answer has begun."""
    span = context.span
    if span is None:
        return
    if span.is_recording():
        span.update_name(f"{_method(scope)} {_route(scope)}")
        span.set_attributes({"http.route": _route(scope), "http.response.status_code": status})
        if not status or status >= 500:
            mark_failed(span)
    span.end()


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in _METHODS else "other"


def _route(scope: Scope) -> str:
    """The route as it is declared: `/v1/users/{user_id:path}/recommendations`."""
    return getattr(scope.get("route"), "path", None) or "none"
