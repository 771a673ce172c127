"""Chunks on their way to the engine, a bounded number of events: what keeps memory flat under a
backlog.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby

from eddy.stream.records.admission import Admission
from eddy.stream.records.chunk import Chunk
from eddy.stream.records.columns import join_columns
from eddy.stream.records.decode import Decoded, decode_events


@dataclass(frozen=True)
class Arrived:
    """A chunk, and what it holds if it was large enough to be decoded aside."""

    chunk: Chunk
    decoded: Decoded | None


def decode(arrived: Sequence[Arrived], admission: Admission) -> Decoded:
    """What chunks of one partition hold, one after another; small ones that are neighbours are decoded
    together.
    """
    parts = []
    for aside, group in groupby(arrived, key=lambda one: one.decoded is not None):
        if aside:
            parts += [one.decoded for one in group if one.decoded is not None]
        else:
            records = [record for one in group for record in one.chunk.records]
            parts.append(decode_events(records, arrived[0].chunk.partition, admission))
    return join_columns(parts)


class Inbox:
    """First in, first out; whoever puts waits while `limit` events or more are inside."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[Arrived] = deque()
        self._events = 0
        self._changed = asyncio.Condition()

    @property
    def events(self) -> int:
        """Events inside."""
        return self._events

    async def put(self, arrived: Arrived) -> None:
        """Add a chunk, as soon as there is room."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._events < self._limit)
            self._waiting.append(arrived)
            self._events += len(arrived.chunk.records)
            self._changed.notify_all()

    async def filled(self) -> None:
        """Wait until there is something to take."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._waiting))

    async def fetch_ended(self, within_s: float) -> None:
        """Wait until all chunks of the latest fetch are here, or so long: a rebalance may drop some."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s), self._changed:
                await self._changed.wait_for(lambda: not self._waiting or self._waiting[-1].chunk.last)

    async def take(self, most: int) -> list[Arrived]:
        """What is there, up to about `most` events (whole chunks); nothing if a `clear` came first."""
        taken: list[Arrived] = []
        async with self._changed:
            events = 0
            while self._waiting and events < most:
                taken.append(self._waiting.popleft())
                events += len(taken[-1].chunk.records)
            self._events -= events
            self._changed.notify_all()
        return taken

    async def clear(self) -> None:
        """Drop everything."""
        async with self._changed:
            self._waiting.clear()
            self._events = 0
            self._changed.notify_all()
