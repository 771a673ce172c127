"""HTTP as uvicorn speaks it, with refusals as problems in JSON, and a limit for URL and headers, which the
parser does not have.
"""

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from eddy.serving.problems import PROBLEM_TYPE, problem_bytes

MAX_HEAD_BYTES = 256 << 10
"""The limit of a request's URL and headers together; callers post longer questions."""

DRAIN_S = 2.0
"""For so long the rest of a refused request is read and dropped. To close a connection with unread bytes
would reset it, and the client might never see the reason.
"""

_UNREADABLE = (
    f"not an HTTP request, or its URL and headers are longer than {MAX_HEAD_BYTES} bytes: "
    "send long lists in the body of a POST"
)


class ProblemProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._refused = False
        self._in_head = True
        self._head_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Parse the bytes, unless they are the rest of a refused request."""
        if self._refused:
            return
        super().data_received(data)
        if self._in_head and not self._refused:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.send_400_response("")

    def on_message_begin(self) -> None:
        """A request begins: the bytes of its head are counted."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head has been read. Errors: ValueError, upon which the parser refuses, when it is too long."""
        self._in_head = False
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD_BYTES:
            raise ValueError("too long")
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that could not be parsed, and end the connection."""
        self._refused = True
        if self.cycle is None or self.cycle.response_complete:  # no other answer is on its way
            body = problem_bytes(400, _UNREADABLE)
            head = (
                f"HTTP/1.1 400 Bad Request\r\ncontent-type: {PROBLEM_TYPE}\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(DRAIN_S, self.transport.close)
