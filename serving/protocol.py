"""HTTP as uvicorn speaks it, with refusals as problems in JSON, and limits that it does not have: for the
size of URL and headers, for the number of connections, and for the time that a request takes to arrive.
"""

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from eddy.serving.problems import PROBLEM_TYPE, problem_bytes

MAX_HEAD_BYTES = 256 << 10
"""The limit of a request's URL and headers together; callers post longer questions."""

ARRIVES_WITHIN_S = 30.0
"""The connection of a request that has not arrived after so long, its body included, is closed; so is one on
which no request comes. Otherwise a client that sends a byte now and then would keep a connection for ever.
"""

DRAIN_S = 2.0
"""For so long the rest of a refused request is read and dropped. To close a connection with unread bytes
would reset it, and the client might never see the reason.
"""

ABORT = "eddy.abort"
"""Where an ASGI scope has a function that ends the connection at once, whatever was not sent yet."""

_UNREADABLE = (
    f"not an HTTP request, or its URL and headers are longer than {MAX_HEAD_BYTES} bytes: "
    "send long lists in the body of a POST"
)
_TOO_SLOW = f"the request did not arrive within {ARRIVES_WITHIN_S:g} seconds"
_FULL = "too many connections are open here"


def protocol_with(max_connections: int) -> type["ProblemProtocol"]:
    """The protocol of a server of so many connections."""
    return type("ProblemProtocol", (ProblemProtocol,), {"max_connections": max_connections})


class ProblemProtocol(HttpToolsProtocol):
    """One connection."""

    max_connections = 1 << 20

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None
        self._refused = False
        self._arriving = True
        self._in_head = True
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self.connections.discard(self)  # it takes nobody's room until it has ended
            self._refuse(503, _FULL)
        else:
            self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._request_arrived()
        super().connection_lost(exc)

    def _await_request(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(ARRIVES_WITHIN_S, self._refuse, 408, _TOO_SLOW)

    def _request_arrived(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def on_message_complete(self) -> None:
        """The request is here with its body."""
        self._arriving = False
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Parse the bytes, unless they are the rest of a refused request."""
        if self._refused:
            return
        super().data_received(data)
        if not self._arriving:
            self._request_arrived()
        elif not self._refused:
            self._await_request()
        if self._in_head and not self._refused:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(400, _UNREADABLE)

    def on_message_begin(self) -> None:
        """A request begins: the bytes of its head are counted."""
        self._arriving, self._in_head, self._head_bytes = True, True, 0
        super().on_message_begin()
        self.scope[ABORT] = self.transport.abort  # type: ignore[literal-required]

    def on_headers_complete(self) -> None:
        """The head has been read. Errors: ValueError, upon which the parser refuses, when it is too long."""
        self._in_head = False
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES:
            raise ValueError("too long")
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that could not be parsed, and end the connection."""
        self._refuse(400, _UNREADABLE)

    def _refuse(self, status: int, detail: str) -> None:
        """Say why, unless an answer is on its way, and end the connection."""
        self._refused = True
        self._request_arrived()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:  # the answer to a whole request comes first, and is the last
                cycle.keep_alive = False
                return
            cycle.disconnected = True  # who reads the body learns that there is no more
            cycle.message_event.set()
        if cycle is None or cycle.response_complete or not cycle.response_started:
            body = problem_bytes(status, detail)
            head = (
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {PROBLEM_TYPE}\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(DRAIN_S, self.transport.close)
