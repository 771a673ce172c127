"""The load generator tells the truth about a server that stalls."""

from __future__ import annotations

import asyncio
import contextlib
import time

import numpy as np

from tests.bench.open_loop import get, send_at_rate

STALL_S, RATE, SECONDS, CONNECTIONS = 1.0, 100, 3.0, 4


def test_a_stall_of_a_second_shows_in_every_answer_that_was_due_meanwhile() -> None:
    """A client that waits for each answer would see one slow answer of 300; here about a third are slow."""
    asked, ended = 0, asyncio.Semaphore(0)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                asked += 1
                if asked == RATE:
                    time.sleep(STALL_S)  # the event loop of both stands still, as the load's clock does not
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()
        ended.release()

    async def run() -> list[float]:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()[:2]
        load = await send_at_rate(host, port, [get("/")], RATE, SECONDS, CONNECTIONS)
        for _ in range(CONNECTIONS):
            await ended.acquire()
        server.close()
        await server.wait_closed()
        assert load.due == RATE * SECONDS
        assert load.broken == 0
        return load.seconds[200]

    seconds = np.array(asyncio.run(run()))
    assert len(seconds) == RATE * SECONDS
    assert seconds.max() >= STALL_S
    assert np.sum(seconds >= STALL_S / 2) >= 0.4 * STALL_S * RATE
