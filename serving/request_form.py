"""The form of a request: what routes could only misread is refused before they see it."""

from urllib.parse import unquote_to_bytes

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eddy.serving.problems import problem


class RequestForm:
    """ASGI middleware: refuses a URL that is not UTF-8, a body in a coding that nobody decodes here, and a
    body that is larger than `max_bytes`, the latter as soon as it is known.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and its body piece by piece, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if refusal := self._refusal(scope):
            await problem(*refusal)(scope, receive, send)
            return
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise HTTPException(413, self._too_large)
            return message

        await self.app(scope, limited, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """The status and the reason with which a request is refused by its head, if it is."""
        if not _is_utf8(scope.get("raw_path", b"") + b"?" + scope["query_string"]):
            return 400, "the URL is not UTF-8: percent-encode the bytes of ids and values in UTF-8"
        for name, value in scope["headers"]:
            if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
                return 415, f"Content-Encoding: {value.decode('latin-1')}: send the body as it is"
            if name == b"content-length" and value.isdigit() and int(value) > self.max_bytes:
                return 413, self._too_large
        return None

    @property
    def _too_large(self) -> str:
        return f"the body is larger than {self.max_bytes} bytes"


def _is_utf8(url: bytes) -> bool:
    """Whether what a URL stands for is text. The framework puts a replacement character for what is none,
    and so would let one person be erased in the place of another.
    """
    if b"%" not in url and url.isascii():
        return True
    try:
        unquote_to_bytes(url).decode()
    except UnicodeDecodeError:
        return False
    return True
