"""Streams of events on a real socket: what they tell, to how many, to how slow ones, and until when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import cast

import pytest
import uvicorn

from eddy.serving.app import new_app
from eddy.serving.listening import listen
from eddy.serving.live import streams
from eddy.serving.live.person import RowWatches
from eddy.serving.live.streams import Latest, Streams, event
from eddy.serving.protocol import protocol_with
from eddy.serving.server import _Server
from eddy.serving.service import Service
from eddy.stream.records.settings import load_settings
from tests.support.recorded_service import RecordedService

WITHIN_S = 20.0
REQUEST = b"GET /v1/live HTTP/1.1\r\nhost: eddy\r\n\r\n"


class StreamingService(RecordedService):
    """Tells what a test puts into `installation.now`."""

    def __init__(self, most: int = 10) -> None:
        super().__init__(load_settings(http_max_concurrent=2))
        self.streams = Streams(most)
        self.installation = self
        self.now = Latest()


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Served:
    """An application on a socket."""

    def __init__(self, service: StreamingService, server: uvicorn.Server, address: tuple[str, int]) -> None:
        self.service, self.server, self.address = service, server, address
        self._writers: list[asyncio.StreamWriter] = []

    async def open(self, request: bytes = REQUEST) -> Connection:
        reader, writer = await asyncio.open_connection(*self.address)
        self._writers.append(writer)
        writer.write(request)
        return reader, writer

    async def close(self) -> None:
        """Close all connections that were opened."""
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    async def until(self, open_: int) -> None:
        """Wait until so many streams are open."""
        while self.service.streams.open != open_:
            await asyncio.sleep(0.005)


@asynccontextmanager
async def served(most: int = 10) -> AsyncIterator[Served]:
    service = StreamingService(most)
    app = new_app(cast(Service, service))
    config = uvicorn.Config(
        app, lifespan="off", log_config=None, http=protocol_with(100), ws="none", timeout_graceful_shutdown=60
    )
    server = _Server(config)
    with listen(load_settings(port=0)) as bound:
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        on = Served(service, server, bound.getsockname()[:2])
        try:
            async with asyncio.timeout(WITHIN_S):
                yield on
                service.streams.end()
                server.should_exit = True
                await serving  # it has a minute for connections that are open, which this does not wait for
        finally:
            await on.close()
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)


async def told(connection: Connection, name: str = "now") -> object:
    """The next event's content."""
    reader, _ = connection
    await reader.readuntil(b"event: " + name.encode() + b"\ndata: ")
    return json.loads(await reader.readuntil(b"\n\n"))


def test_a_stream_begins_with_what_holds_and_goes_on_with_what_comes() -> None:
    async def run() -> None:
        async with served() as on:
            on.service.now.put(event("now", 1))
            early = await on.open()
            head = await early[0].readuntil(b"\r\n\r\n")
            for header in (b"content-type: text/event-stream", b"cache-control: no-store", b"x-eddy-time: "):
                assert header in head.lower()
            assert b"content-length" not in head.lower()
            assert await told(early) == 1
            on.service.now.put(event("now", 2))
            late = await on.open()
            assert [await told(early), await told(late)] == [2, 2]

    asyncio.run(run())


def test_open_streams_take_nobody_s_room_and_have_a_limit_of_their_own() -> None:
    async def run() -> None:
        async with served(most=4) as on:  # of requests two at a time
            opened = [await on.open() for _ in range(4)]
            await on.until(4)
            reader, _ = await on.open(b"GET /v1/users/u/recommendations HTTP/1.1\r\nhost: eddy\r\n\r\n")
            assert b" 200 " in await reader.readuntil(b"\r\n")
            reader, _ = await on.open()
            assert b" 503 " in await reader.readuntil(b"\r\n")
            opened[0][1].close()
            await on.until(3)
            await on.open()
            await on.until(4)

    asyncio.run(run())


def test_a_client_that_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "SLOW_S", 0.05)

    async def run() -> None:
        async with served() as on:
            reader, writer = await on.open()
            await on.until(1)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            number = 0
            while on.service.streams.open:
                on.service.now.put(event("now", [number, "x" * (1 << 20)]))
                number += 1
                await asyncio.sleep(0.005)
            while on.server.server_state.connections:  # although the client still takes nothing
                await asyncio.sleep(0.005)
            writer.transport.resume_reading()  # type: ignore[attr-defined]
            taken = b""
            with suppress(ConnectionError):
                taken = await reader.read()
            assert not taken.endswith(b"0\r\n\r\n")  # the end of an answer in chunks

    asyncio.run(run())


def test_a_quiet_stream_shows_that_it_is_alive_and_ends_when_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_S", 0.01)
    monkeypatch.setattr(streams, "LONGEST_S", 0.2)

    async def run() -> None:
        async with served() as on:
            reader, _ = await on.open()
            await reader.readuntil(b": nothing new\n\n")
            await reader.readuntil(b"0\r\n\r\n")  # the end of an answer in chunks
            assert on.service.streams.open == 0

    asyncio.run(run())


def test_streams_end_with_the_server_and_none_begins_then() -> None:
    async def run() -> None:
        async with served() as on:
            reader, _ = await on.open()
            await on.until(1)
            on.service.streams.end()
            await reader.readuntil(b"0\r\n\r\n")
            reader, _ = await on.open()
            assert b" 503 " in await reader.readuntil(b"\r\n")

    asyncio.run(run())


def test_how_long_a_stream_was_open_is_no_duration_of_a_request() -> None:
    async def run() -> None:
        async with served() as on:
            _, writer = await on.open()
            await on.until(1)
            writer.close()
            await on.until(0)
            value = on.service.metrics.registry.get_sample_value
            assert value("eddy_http_seconds_count", {"route": "/v1/live"}) is None
            assert not on.service.metrics.recent_seconds

    asyncio.run(run())


def test_rows_wake_only_those_who_watch_them() -> None:
    watches = RowWatches()
    anna, other = watches.add("anna"), watches.add("berta")
    watches.wake({b"anna": None, b"carl": None})
    assert (anna.changed.is_set(), other.changed.is_set()) == (True, False)
    assert anna.received_ms is not None
    watches.remove("anna", anna)
    watches.remove("anna", anna)
    watches.wake({b"anna": None})
    watches.remove("berta", other)
    assert not watches._by_user
