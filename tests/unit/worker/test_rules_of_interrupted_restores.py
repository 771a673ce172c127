"""A restore that is interrupted within a partition goes on where its rows are, and not one record further."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from aiokafka import TopicPartition

from eddy.stream.kafka import reader
from eddy.stream.worker import restore
from tests.support.leaping_loop import in_leaping_time
from tests.support.memory_group import Member
from tests.support.memory_stage import ALL, MemoryStage, memory_stage
from tests.unit.worker.conftest import Versions
from tests.unit.worker.doings import EVENTS

FETCHED = 4
"""Records that a fetch brings of a partition: few, so that the end of a fetch lies within each partition."""


async def long_history(stage: MemoryStage) -> None:
    """The changelog of an owner that is dead."""
    owner = await stage.start_owner("a")
    for _ in range(3):
        await stage.make_durable(EVENTS)
    await owner.kill()


def changelog_lengths(stage: MemoryStage) -> tuple[int, dict[int, int]]:
    """How many records there are to read, and the end of each partition, where markers count, too."""
    topic = stage.settings.topics.user_state
    ends = {number: stage.kafka.end(TopicPartition(topic, number)) for number in ALL}
    return len(list(stage.kafka.records(topic))), ends


@in_leaping_time
async def test_a_restore_that_was_interrupted_between_two_fetches_of_a_partition_reads_the_rest(
    tmp_path: Path, versions: Versions
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        await long_history(stage)
        records, ends = changelog_lengths(stage)
        restoring = await stage.start("b")
        topic = stage.settings.topics.user_state
        holds = [
            stage.kafka.hold("fetch", restoring.client, topic, number, offset=end // 2)
            for number, end in ends.items()
        ]
        before = stage.changelog_records_read()
        with patch.object(reader, "_MAX_RECORDS", FETCHED):
            await stage.rebalance(b=ALL)
            for hold in holds:
                await hold.reached.wait()
            await stage.pass_time(1)  # until all that was fetched is taken
            read_at_first = stage.changelog_records_read() - before
            await stage.rebalance(b=ALL)
            for hold in holds:
                hold.release()
            await stage.until(lambda: restoring.figure("eddy_ready"))
        assert FETCHED * len(ALL) <= read_at_first < records
        assert stage.changelog_records_read() - before == records, "none is left out, and none is read twice"
        stage.produce(EVENTS)
        await stage.require_promises()


def stands_still_as_it_loads_rows(member: Member, may_go_on: threading.Event) -> tuple[asyncio.Event, Any]:
    """What is set as soon as a member's engine is about to load rows, and a patch by which it then waits."""
    loop, loading, load_rows = asyncio.get_running_loop(), asyncio.Event(), member.worker.engine.load_rows

    def load(*arguments: Any) -> Any:
        loop.call_soon_threadsafe(loading.set)
        may_go_on.wait()
        return load_rows(*arguments)

    return loading, patch.object(member.worker.engine, "load_rows", load)


@pytest.mark.parametrize("rows", [1, 2])
@in_leaping_time
async def test_a_restore_that_was_interrupted_while_it_loaded_what_was_fetched_fetches_it_again(
    tmp_path: Path, versions: Versions, rows: int
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        await long_history(stage)
        restoring, may_go_on = await stage.start("b"), threading.Event()
        loading, patched = stands_still_as_it_loads_rows(restoring, may_go_on)
        with patch.object(restore, "LOAD_ROWS", rows), patched:
            try:
                await stage.rebalance(b=ALL)
                await loading.wait()
                await restoring.give_up()
            finally:
                may_go_on.set()
            await stage.rebalance(b=ALL)
            await stage.until(lambda: restoring.figure("eddy_ready"))
        stage.produce(EVENTS)
        await stage.require_promises()
