"""Chunks on their way to the engine: a bounded number of events, which keeps memory flat under a backlog.

Chunks of partitions that are revoked stay inside: whoever takes them leaves out those of an older generation.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby

from eddy.stream.records.admission import Admission
from eddy.stream.records.chunk import Chunk
from eddy.stream.records.columns import join_columns
from eddy.stream.records.decode import Decoded, decode_events


def decode_chunks(chunks: Sequence[Chunk], admission: Admission) -> Decoded:
    """What chunks of one partition hold, one after another; neighbours that are not decoded yet are decoded
    together.
    """
    parts: list[Decoded] = []
    for is_decoded, group in groupby(chunks, key=lambda chunk: chunk.decoded is not None):
        if is_decoded:
            parts += [chunk.decoded for chunk in group if chunk.decoded is not None]
        else:
            records = [record for chunk in group for record in chunk.records]
            parts.append(decode_events(records, chunks[0].partition, admission))
    return join_columns(parts)


class Inbox:
    """First in, first out; `put_chunk` waits while `limit` events or more are inside."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[Chunk] = deque()
        self._events = 0
        self._changed = asyncio.Condition()

    @property
    def events(self) -> int:
        """How many records are inside."""
        return self._events

    async def put_chunk(self, chunk: Chunk) -> None:
        """Add a chunk, as soon as there is room."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._events < self._limit)
            self._waiting.append(chunk)
            self._events += len(chunk.records)
            self._changed.notify_all()

    async def filled(self) -> None:
        """Wait until there is a chunk to take."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._waiting))

    async def fetch_ended(self, within_s: float) -> None:
        """Wait until all chunks of the latest fetch are here, but at most `within_s` seconds: a rebalance
        may drop some.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s), self._changed:
                await self._changed.wait_for(lambda: not self._waiting or self._waiting[-1].last)

    async def take_chunks(self, most: int) -> list[Chunk]:
        """The whole chunks that are there, up to about `most` records."""
        taken: list[Chunk] = []
        async with self._changed:
            events = 0
            while self._waiting and events < most:
                taken.append(self._waiting.popleft())
                events += len(taken[-1].records)
            self._events -= events
            self._changed.notify_all()
        return taken
