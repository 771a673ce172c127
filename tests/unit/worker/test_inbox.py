"""Chunks between Kafka and the engine: a bounded number of events, and nothing depends on how they were
cut.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from eddy.stream.records.admission import Admission
from eddy.stream.records.chunk import Chunk
from eddy.stream.records.decode import Decoded, decode_events
from eddy.stream.worker.inbox import Inbox, decode_chunks
from tests.support.records import NOW, Record

pytestmark = pytest.mark.unit

ONE_PARTITION = Admission()


def records(start: int, end: int) -> list[Any]:
    """Events of three users, every seventh record unreadable and every eleventh a tombstone."""
    made: list[Any] = []
    for offset in range(start, end):
        user = f"user-{offset % 3}"
        fields = {"user_id": user, "item_id": f"item-{offset}", "timestamp": NOW + offset}
        value: bytes | None = json.dumps(fields).encode()
        if offset % 7 == 0:
            value = b"{"
        elif offset % 11 == 0:
            value = None
        made.append(Record(user.encode(), value, offset))
    return made


def chunk(start: int, end: int, last: bool = True) -> Chunk:
    return Chunk(0, records(start, end), generation=1, follows=None, last=last)


def arrived(start: int, end: int, aside: bool = False, last: bool = True) -> Chunk:
    part = chunk(start, end, last)
    return replace(part, decoded=decode_events(part.records, 0, ONE_PARTITION)) if aside else part


def said(decoded: Decoded) -> dict[str, Any]:
    columns = {
        name: column.tolist() if isinstance(column, np.ndarray) else column
        for name, column in vars(decoded.events).items()
    }
    columns.pop("value")  # no event has one, and NaN is not itself
    rejected = [(cast(Record, one.record).offset, one.reason) for one in decoded.rejected]
    return {**columns, "erasures": decoded.erasures, "rejected": rejected}


@pytest.mark.parametrize("aside", [(False, False, False), (True, True, True), (False, True, False)])
def test_chunks_hold_the_same_however_they_were_cut_and_decoded(aside: tuple[bool, bool, bool]) -> None:
    bounds = (0, 5, 20, 40)
    parts = [arrived(bounds[i], bounds[i + 1], aside[i]) for i in range(3)]
    assert said(decode_chunks(parts, ONE_PARTITION)) == said(decode_events(records(0, 40), 0, ONE_PARTITION))


def test_whoever_puts_waits_until_there_is_room_and_order_is_kept() -> None:
    async def scenario() -> None:
        inbox = Inbox(limit=10)
        await inbox.put_chunk(arrived(0, 6))
        await inbox.put_chunk(arrived(6, 12))  # the one that reaches the limit still goes in
        third = asyncio.ensure_future(inbox.put_chunk(arrived(12, 18)))
        await asyncio.sleep(0)
        assert not third.done()
        assert inbox.events == 12
        await inbox.filled()
        assert [one.end for one in await inbox.take_chunks(6)] == [6]
        await third
        assert [one.end for one in await inbox.take_chunks(100)] == [12, 18]
        assert inbox.events == 0

    asyncio.run(scenario())


def test_a_fetch_ends_with_its_last_chunk_or_after_a_while() -> None:
    async def scenario() -> None:
        inbox = Inbox(limit=100)
        await inbox.put_chunk(arrived(0, 6, last=False))
        ended = asyncio.ensure_future(inbox.fetch_ended(60))
        await asyncio.sleep(0)
        assert not ended.done()
        await inbox.put_chunk(arrived(6, 12))
        await ended
        await inbox.put_chunk(arrived(12, 18, last=False))
        await inbox.fetch_ended(0.001)
        await inbox.take_chunks(100)
        await inbox.fetch_ended(60)

    asyncio.run(scenario())
