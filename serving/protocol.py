"""HTTP as uvicorn speaks it, but with refusals in the documented form of errors."""

from typing import Any

import h11
import msgspec
from uvicorn.protocols.http.h11_impl import H11Protocol

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


def error_body(message: str) -> bytes:
    """The documented form of errors."""
    return msgspec.json.encode({"error": message})


class JsonErrorProtocol(H11Protocol):
    """uvicorn's protocol with refusals as JSON."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._refused = False

    def data_received(self, data: bytes) -> None:
        """Parse the bytes, unless they are the rest of a refused request."""
        if not self._refused:
            super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that could not be parsed, and end the connection."""
        self._refused = True
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # no other answer is on its way
            headers = [("content-type", "application/json"), ("connection", "close")]
            for event in (
                h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                h11.Data(data=error_body(_UNREADABLE)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(DRAIN_S, self.transport.close)
