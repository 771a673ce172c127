"""Streams of server-sent events: connections that stay open, on which messages come as things change.

A stream keeps nothing that its client has not taken yet: a source is asked for its next message when the one
before has gone out, and tells what holds then. A client that takes nothing for a while is cut off. Streams
have a limit of their own, end with the server, and end from time to time, so that a key that is not valid any
more is of no use for long; clients connect again by themselves.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from eddy.serving.admission import RETRY_AFTER
from eddy.serving.protocol import ABORT
from eddy.stream.records.clock import wall_ms

log = logging.getLogger("eddy.serving")

EVENT_STREAM = "text/event-stream"

EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Events, as they come", "content": {EVENT_STREAM: {"schema": {"type": "string"}}}}
}
"""What the API's description says of a stream."""

RETRY_MS = 2_000
"""After so long a client connects again."""

HEARTBEAT_S = 15.0
"""Without a message for so long, a comment is sent, so that no proxy takes the connection for dead."""

SLOW_S = 10.0
"""A client that takes nothing for so long is cut off."""

LONGEST_S = 600.0
"""A stream ends after so long."""

_LAST_S = 1.0
"""A client has so long to take the end of a stream."""

TIME_HEADER = "X-Eddy-Time"
"""When an answer was begun: ms since 1970, by this server's clock."""


class Source(Protocol):
    """What a stream tells."""

    async def next(self) -> bytes:
        """Wait for the next message, made by `event`."""

    def close(self) -> None:
        """Nothing is asked any more."""


def event(name: str, content: object) -> bytes:
    """A message with a name: a dataclass as JSON, or what is JSON already."""
    data = content if isinstance(content, bytes) else msgspec.json.encode(content)
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)


class Streams:
    """The open streams of a server."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.open = 0
        self.ended = asyncio.Event()

    def end(self) -> None:
        """End all streams, those that begin from now on as well."""
        self.ended.set()

    def require_room(self) -> None:
        """Errors: HTTPException when no further stream can be opened."""
        if self.ended.is_set():
            raise HTTPException(503, "the server is ending", RETRY_AFTER)
        if self.open >= self._most:
            raise HTTPException(503, "too many streams are open here", RETRY_AFTER)


class EventStream(Response):
    """An answer that stays open. Errors: HTTPException when there is no room for it."""

    media_type = EVENT_STREAM

    def __init__(self, streams: Streams, open_source: Callable[[], Source]) -> None:
        streams.require_room()
        super().__init__(headers=stream_headers())
        del self.headers["content-length"]
        self._streams, self._open_source = streams, open_source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send messages until the client goes, is too slow, or the stream's time is over."""
        self._streams.open += 1
        source = self._open_source()
        tasks = [
            asyncio.create_task(self._send_all(source, send)),
            asyncio.create_task(_until_gone(receive)),
            asyncio.create_task(_until(self._streams.ended)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, timeout=LONGEST_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._streams.open -= 1
            source.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        sending, gone, _ = tasks
        if sending in done:
            failure = sending.exception()
            if not isinstance(failure, TimeoutError):
                log.error("a stream has failed", exc_info=failure)
            scope.get(ABORT, lambda: None)()  # what was sent may be cut, and must not look like an end
        elif gone not in done:
            await _end(scope, send)

    async def _send_all(self, source: Source, send: Send) -> None:
        """Errors: TimeoutError when the client takes nothing."""
        headers = self.raw_headers
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        message = b"retry: %d\n\n" % RETRY_MS
        asking: asyncio.Task[bytes] | None = None
        try:
            while True:
                async with asyncio.timeout(SLOW_S):
                    await send({"type": "http.response.body", "body": message, "more_body": True})
                asking = asking or asyncio.create_task(source.next())
                await asyncio.wait([asking], timeout=HEARTBEAT_S)
                message = b": nothing new\n\n"
                if asking.done():
                    message, asking = asking.result(), None
        finally:
            if asking is not None:
                asking.cancel()


def stream_headers() -> Mapping[str, str]:
    """Of a stream: no cache may keep it, and no proxy hold it back."""
    return {"cache-control": "no-store", "x-accel-buffering": "no", TIME_HEADER: str(wall_ms())}


async def _end(scope: Scope, send: Send) -> None:
    """End the answer, for whoever takes its end."""
    try:
        async with asyncio.timeout(_LAST_S):
            await send({"type": "http.response.body", "body": b"", "more_body": False})
    except TimeoutError:
        scope.get(ABORT, lambda: None)()


async def _until(ended: asyncio.Event) -> None:
    await ended.wait()


async def _until_gone(receive: Receive) -> None:
    """Wait until the client has gone."""
    message: dict[str, Any] = {}
    while message.get("type") != "http.disconnect":
        message = dict(await receive())


class Latest:
    """One message for many streams, encoded once: whoever has it waits for the next one."""

    def __init__(self) -> None:
        self._message: bytes | None = None
        self._next = asyncio.Event()

    def put(self, message: bytes) -> None:
        """Replace the message."""
        self._message = message
        before, self._next = self._next, asyncio.Event()
        before.set()

    def source(self) -> Source:
        """What a new stream tells: the message as it is, then each time that it changes."""
        return _Following(self)


class _Following:
    def __init__(self, latest: Latest) -> None:
        self._latest = latest
        self._told: bytes | None = None

    async def next(self) -> bytes:
        while self._latest._message is self._told:
            await self._latest._next.wait()
        message = self._told = self._latest._message
        assert message is not None
        return message

    def close(self) -> None:
        pass
