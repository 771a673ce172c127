"""Chunks between the consumer and the worker: none counts twice, and none is missed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from eddy.stream.records.chunk import Chunk
from tests.support.leaping_loop import in_leaping_time
from tests.support.memory_stage import ALL, memory_stage
from tests.unit.worker.conftest import Versions
from tests.unit.worker.doings import CHECKPOINT_MS, EVENTS, HALF, backlog


@pytest.mark.parametrize("later", [EVENTS, 0], ids=["before others", "as the last one"])
@in_leaping_time
async def test_a_chunk_that_is_lost_on_its_way_is_read_again(
    tmp_path: Path, versions: Versions, later: int
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        worker = await stage.start_owner("a")
        await stage.make_durable(EVENTS)
        worker.loses_chunk = True
        stage.produce(5)
        await stage.until(lambda: not worker.loses_chunk)
        stage.produce(later)
        await stage.require_promises()


@pytest.mark.parametrize("owned", [frozenset(HALF), ALL], ids=["half", "all"])
@in_leaping_time
async def test_a_chunk_of_an_older_generation_changes_nothing(
    tmp_path: Path, versions: Versions, owned: frozenset[int]
) -> None:
    """Faust may have handed it over when the rebalance came, and the worker was not ready to take it."""
    async with memory_stage(tmp_path, versions.first) as stage:
        worker = await stage.start_owner("a")
        late: list[Chunk] = []
        with patch.object(worker.worker, "put", keeping(late)):
            stage.produce(EVENTS)
            await stage.until(lambda: {chunk.partition for chunk in late} == ALL)
        await stage.rebalance(a=owned)
        ends = stage.ends(stage.settings.topics.events, len(ALL))
        await stage.until(lambda: all(stage.committed()[number] == ends[number] for number in owned))
        read = worker.figure("eddy_events_read_total")
        for chunk in late:
            await worker.worker.put(chunk)
        await stage.pass_time(1)
        assert worker.figure("eddy_events_read_total") == read
        await stage.rebalance(a=ALL)
        await stage.require_promises()


@in_leaping_time
async def test_a_chunk_that_comes_during_the_last_flush_is_left_to_the_next_generation(
    tmp_path: Path, versions: Versions
) -> None:
    """Else its rows would be ahead of the changelog, and all rows of its partition would have to be read
    again.
    """
    async with memory_stage(tmp_path, versions.first) as stage:
        worker = await stage.start_owner("a", checkpoint_ms=CHECKPOINT_MS)
        await stage.make_durable(EVENTS)
        await backlog(stage, worker, versions)
        late: list[Chunk] = []
        with patch.object(worker.worker, "put", keeping(late)):
            stage.produce(EVENTS)
            await stage.until(lambda: {chunk.partition for chunk in late} == ALL)
        read, writing = stage.changelog_records_read(), stage.kafka.hold("end transaction", worker.client)
        rebalance = asyncio.create_task(stage.rebalance(a=ALL))
        await writing.reached.wait()
        for chunk in late:
            await worker.worker.put(chunk)
        await stage.until(lambda: not worker.worker.batches.inbox.events)
        writing.release()
        await rebalance
        await stage.pass_time(1)
        assert stage.changelog_records_read() == read
        await stage.require_promises()


def keeping(late: list[Chunk]) -> Callable[[Chunk], Coroutine[Any, Any, None]]:
    """A `put` that keeps chunks on their way."""

    async def keep(chunk: Chunk) -> None:
        late.append(chunk)

    return keep


@in_leaping_time
async def test_bad_records_are_dead_letters_and_erased_users_are_gone(
    tmp_path: Path, versions: Versions
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        await stage.start_owner("a")
        stage.produce(EVENTS)
        stage.send([(b"user-1", b"{"), (b"user-2", None), (b"user-3", None), (b"nobody", None)])
        await stage.rebalance(a=ALL)
        await stage.until_durable()
        stage.send([(b"user-4", None), (b"user-5", b"not json")])
        await stage.rebalance(a=HALF)
        await stage.rebalance(a=ALL)
        verdict = await stage.require_promises()
        assert (verdict.dead_letters, verdict.erased) == (2, 4)
