"""A load generator for HTTP: requests leave at a constant rate, whether answers come or not.

The time of an answer counts from the moment at which its request should have left. A server that stalls for a
second therefore shows as many slow answers as requests were due in that second; a client that waits for the
answer before it asks again would show one (*coordinated omission*).

    python -m tests.bench.open_loop HOST PORT RATE SECONDS CONNECTIONS < requests

A process of its own, so that it shares no interpreter with what it measures. Requests are rendered before the
first one leaves: one per line on standard input, as JSON strings, taken in turns. Prints JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import uvloop

WAIT_FOR_LAST_S = 10.0
"""Requests without an answer after so long have failed."""

_DUE_AT_ONCE_S = 0.001
"""The clock is looked at so often; requests leave late by up to so much, which counts. No event loop sleeps
for less: with half of it this one spun, and took a whole core from what it measured.
"""


@dataclass
class Load:
    """What became of the requests."""

    due: int = 0
    """requests that should have left"""
    seconds: dict[int, list[float]] = field(default_factory=dict)
    """from a request's due time to the end of its answer, by status"""
    broken: int = 0
    """requests whose connection ended first, or that had no answer at the end"""
    late_s: list[float] = field(default_factory=list)
    """by how much requests left late although a connection was free: the generator's own delay"""
    cpu_share: float = 0.0
    """processor time of the generator per second"""
    wall_s: float = 0.0

    def figures(self) -> dict[str, object]:
        """As JSON: counts by status, and percentiles in milliseconds of the answers with 200."""
        good = np.array(self.seconds.get(200, []))
        return {
            "due": self.due,
            "statuses": {str(status): len(times) for status, times in sorted(self.seconds.items())},
            "broken": self.broken,
            "ok_per_s": round(len(good) / self.wall_s, 1),
            **{f"p{p:g}_ms": percentile_ms(good, p) for p in (50, 90, 99, 99.9, 100)},
            "refused_p99_ms": percentile_ms(np.array(self.seconds.get(503, [])), 99),
            "generator_late_p99_ms": percentile_ms(np.array(self.late_s), 99),
            "generator_cpu_share": round(self.cpu_share, 3),
        }


def percentile_ms(seconds: np.ndarray[tuple[int], np.dtype[np.float64]], percent: float) -> float | None:
    """A percentile in milliseconds; None of nothing."""
    return round(float(np.percentile(seconds, percent)) * 1000, 2) if len(seconds) else None


class _Connection(asyncio.Protocol):
    """One kept connection with at most one request under way."""

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self.due: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it
        self._pool.connections.add(self)
        self._pool.is_free(self)

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()

    def ask(self, request: bytes, due: float) -> None:
        assert self._transport is not None
        self.due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0 or self.due is None:
            return
        head = self._received[:head_end].lower()
        length = int(head.partition(b"content-length: ")[2].split(b"\r\n", 1)[0] or 0)
        if len(self._received) < head_end + 4 + length:
            return
        self._pool.answered(int(head[9:12]), self.due)
        self._received, self.due = self._received[head_end + 4 + length :], None
        if b"connection: close" not in head:
            self._pool.is_free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.lost(self)


class _Pool:
    """Connections, and the requests that are due while none is free."""

    def __init__(self, host: str, port: int, requests: Sequence[bytes]) -> None:
        self.load = Load()
        self._address = host, port
        self._requests = requests
        self.connections: set[_Connection] = set()
        self._free: list[_Connection] = []
        self._due: deque[float] = deque()
        self._sent = 0
        self._connecting: set[asyncio.Task[object]] = set()
        self._stopped = False

    def connect(self) -> None:
        loop = asyncio.get_running_loop()

        async def connect() -> None:
            while not self._stopped:
                try:
                    await loop.create_connection(lambda: _Connection(self), *self._address)
                    return
                except OSError:
                    await asyncio.sleep(0.05)

        task: asyncio.Task[object] = asyncio.create_task(connect())
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def ask(self, due: float) -> None:
        """A request is due."""
        self.load.due += 1
        if self._free:
            self.load.late_s.append(time.perf_counter() - due)
            self._send(self._free.pop(), due)
        else:
            self._due.append(due)

    def is_free(self, connection: _Connection) -> None:
        if self._due:
            self._send(connection, self._due.popleft())
        else:
            self._free.append(connection)

    def _send(self, connection: _Connection, due: float) -> None:
        connection.ask(self._requests[self._sent % len(self._requests)], due)
        self._sent += 1

    def answered(self, status: int, due: float) -> None:
        self.load.seconds.setdefault(status, []).append(time.perf_counter() - due)

    def lost(self, connection: _Connection) -> None:
        if connection.due is not None:
            self.load.broken += 1
        self.connections.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        if not self._stopped:
            self.connect()

    async def stop(self) -> None:
        """Close all connections."""
        self._stopped = True
        for task in self._connecting:
            task.cancel()
        for connection in self.connections:
            connection.due = None
            connection.close()
        while self.connections:
            await asyncio.sleep(0)

    @property
    def connected(self) -> int:
        return len(self._free)

    @property
    def outstanding(self) -> int:
        return self.load.due - self.load.broken - sum(map(len, self.load.seconds.values()))


async def send_at_rate(
    host: str, port: int, requests: Sequence[bytes], rate: float, seconds: float, connections: int
) -> Load:
    """Send requests at a constant rate for so long, and wait for the last answers."""
    pool = _Pool(host, port, requests)
    for _ in range(connections):
        pool.connect()
    async with asyncio.timeout(30):
        while pool.connected < connections:
            await asyncio.sleep(0.01)
    began, cpu = time.perf_counter() + 0.01, time.process_time()
    number, total = 0, int(rate * seconds)
    while number < total:
        now = time.perf_counter()
        while number < total and began + number / rate <= now:
            pool.ask(began + number / rate)
            number += 1
        await asyncio.sleep(_DUE_AT_ONCE_S)
    pool.load.wall_s = time.perf_counter() - began
    pool.load.cpu_share = (time.process_time() - cpu) / pool.load.wall_s
    until = time.perf_counter() + WAIT_FOR_LAST_S
    while pool.outstanding and time.perf_counter() < until:
        await asyncio.sleep(0.01)
    pool.load.broken += pool.outstanding
    await pool.stop()
    return pool.load


def get(path: str) -> bytes:
    """A GET request, rendered."""
    return f"GET {path} HTTP/1.1\r\nhost: eddy\r\n\r\n".encode()


if __name__ == "__main__":
    host, port, rate, seconds, connections = sys.argv[1:]
    rendered = [json.loads(line).encode() for line in sys.stdin]
    work = send_at_rate(host, int(port), rendered, float(rate), float(seconds), int(connections))
    print(json.dumps(uvloop.run(work).figures()))
