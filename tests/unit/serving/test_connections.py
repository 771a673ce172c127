"""Limits of connections on a real socket: how many, and how long a request may take to arrive."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
import uvicorn
from uvicorn.server import ServerState

from eddy.serving import protocol
from eddy.serving.app import new_app
from eddy.serving.listening import listen
from eddy.serving.protocol import protocol_with
from eddy.serving.service import Service
from eddy.stream.records.settings import load_settings
from tests.support.recorded_service import RecordedService

REQUEST = b"GET /healthz HTTP/1.1\r\nhost: eddy\r\n\r\n"
WITHIN_S = 30


@asynccontextmanager
async def listening(max_connections: int = 10) -> AsyncIterator[tuple[str, int]]:
    """The address of the application on a socket, with the server's protocol."""
    app = new_app(cast(Service, RecordedService()))
    config = uvicorn.Config(
        app, lifespan="off", log_config=None, http=protocol_with(max_connections), ws="none"
    )
    config.load()
    state = ServerState()
    with listen(load_settings(port=0)) as bound:
        server = await asyncio.get_running_loop().create_server(
            lambda: config.http_protocol_class(config=config, server_state=state, app_state={}),  # type: ignore[call-arg]
            sock=bound,
        )
        async with server:
            yield bound.getsockname()[:2]


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The status and the body of the next answer; 0 when the connection ends without one."""
    async with asyncio.timeout(WITHIN_S):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return 0, b""
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        return int(head.split()[1]), await reader.readexactly(length)


def test_a_connection_too_many_is_refused_and_room_is_found_when_another_ends() -> None:
    async def run() -> None:
        async with listening(max_connections=1) as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(REQUEST)
            assert (await answer(reader))[0] == 200
            refused, refused_writer = await asyncio.open_connection(*address)
            status, body = await answer(refused)
            assert (status, json.loads(body)["title"]) == (503, "Service Unavailable")
            refused_writer.close()
            writer.close()
            async with asyncio.timeout(WITHIN_S):
                while True:
                    reader, writer = await asyncio.open_connection(*address)
                    writer.write(REQUEST)
                    status, _ = await answer(reader)
                    writer.close()
                    if status == 200:
                        return

    asyncio.run(run())


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"GET /healthz HTTP/1.1\r\nhost:",
        b"POST /v1/users/u/recommendations HTTP/1.1\r\ncontent-length: 9\r\n\r\n{",
    ],
    ids=["nothing", "head", "body"],
)
def test_a_request_that_does_not_arrive_ends_its_connection(
    begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "ARRIVES_WITHIN_S", 0.1)

    async def run() -> None:
        async with listening() as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(begun)
            status, _ = await answer(reader)
            assert status == 408
            writer.close()

    asyncio.run(run())


def test_a_connection_that_was_answered_is_not_ended_by_that_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "ARRIVES_WITHIN_S", 0.1)

    async def run() -> None:
        async with listening() as address:
            reader, writer = await asyncio.open_connection(*address)
            for pause_s in (0.0, 0.3):
                await asyncio.sleep(pause_s)
                writer.write(REQUEST)
                assert (await answer(reader))[0] == 200
            writer.close()

    asyncio.run(run())
