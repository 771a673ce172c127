"""What may come while a worker restores its partitions, as a table: how far it is × what comes × who gets the
partitions then. And what a restore reads: everything that was durable, and nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from aiokafka import TopicPartition

from eddy.stream.state.snapshots import Snapshot
from eddy.stream.worker import partition_task
from eddy.stream.worker.batch_loop import BatchLoop
from tests.support.engines import random_version
from tests.support.leaping_loop import in_leaping_time
from tests.support.memory_group import Member
from tests.support.memory_kafka import Hold
from tests.support.memory_stage import ALL, MemoryStage, memory_stage, sentence
from tests.unit.worker.conftest import Versions
from tests.unit.worker.doings import CHECKPOINT_MS, EVENTS, HALF, OTHER_HALF, backlog

# -- how far the restore is ---------------------------------------------------------------------------------


def fencing(stage: MemoryStage, worker: Member) -> Hold:
    """It has asked the cluster to fence former owners."""
    return stage.kafka.hold("start producer", worker.client)


def catching_up(stage: MemoryStage, worker: Member) -> Hold:
    """It waits for the statistics of its partitions."""
    return stage.kafka.hold("fetch", worker.client, stage.settings.topics.item_stats)


def reading_rows(stage: MemoryStage, worker: Member) -> Hold:
    """It reads the changelog."""
    return stage.kafka.hold("fetch", worker.client, stage.settings.topics.user_state)


# -- what comes ---------------------------------------------------------------------------------------------


async def a_revocation(stage: MemoryStage, worker: Member) -> None:
    await stage.rebalance()


async def another_generation(stage: MemoryStage, worker: Member) -> None:
    """In which the worker keeps its partitions."""
    await stage.rebalance(b=ALL)


async def a_stranger_who_fences(stage: MemoryStage, worker: Member) -> None:
    stage.fence(*ALL)


async def its_death(stage: MemoryStage, worker: Member) -> None:
    await worker.kill()


async def a_version(stage: MemoryStage, worker: Member) -> None:
    """Another version goes live."""
    stage.announce(random_version(stage.settings.registry, hidden=8, items=50, seed=3))


How = Callable[[MemoryStage, Member], Hold]
Comes = Callable[[MemoryStage, Member], Awaitable[None]]

# -- who gets the partitions then ---------------------------------------------------------------------------

Given = dict[str, set[int]]
ALL_OF_THEM: Given = {"b": set(ALL)}
HALF_OF_THEM: Given = {"b": HALF, "c": OTHER_HALF}
NAMES = {id(ALL_OF_THEM): "it gets all", id(HALF_OF_THEM): "another gets half"}

TABLE: list[tuple[How, Comes, Given]] = [
    *(
        (how, comes, given)
        for how in (fencing, catching_up, reading_rows)
        for comes in (a_revocation, its_death)
        for given in (ALL_OF_THEM, HALF_OF_THEM)
    ),
    (reading_rows, another_generation, HALF_OF_THEM),
    (reading_rows, a_stranger_who_fences, ALL_OF_THEM),
    (reading_rows, a_version, ALL_OF_THEM),
    (fencing, a_version, HALF_OF_THEM),
]


async def some_history(stage: MemoryStage) -> None:
    """A worker has made rows durable, and was killed with others under way."""
    worker = await stage.start_owner("a", checkpoint_ms=CHECKPOINT_MS)
    await stage.make_durable(EVENTS)
    stage.produce(EVENTS)
    await stage.kafka.hold("end transaction", worker.client).reached.wait()
    await worker.kill()


@pytest.mark.parametrize(
    ("how", "comes", "given"), TABLE, ids=lambda value: NAMES.get(id(value)) or sentence(value)
)
@in_leaping_time
async def test_each_record_counts_once_when_a_restore_is_disturbed(
    tmp_path: Path, versions: Versions, how: How, comes: Comes, given: Given
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        await some_history(stage)
        restoring = await stage.start("b")
        hold = how(stage, restoring)
        stage.produce(1)  # the statistics are read on with what comes
        await stage.rebalance(b=ALL)
        if how is catching_up:
            stage.kafka.append(TopicPartition(stage.settings.topics.item_stats, 0), [(b"0/stray", None, ())])
        await hold.reached.wait()
        await comes(stage, restoring)
        hold.release()
        for name in set(given) - set(stage.group.members):
            await stage.start(name)
        if comes is not a_version:
            await stage.rebalance(**given)
        stage.produce(EVENTS)
        await stage.require_promises()


@in_leaping_time
async def test_a_restart_after_an_orderly_end_reads_the_changelog_s_tail_only(
    tmp_path: Path, versions: Versions
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        worker = await stage.start_owner("a")
        for _ in range(5):
            await stage.make_durable(EVENTS)
        await worker.stop()
        written, read = stage.changelog_records(), stage.changelog_records_read()
        await stage.start_owner("a")
        await stage.make_durable(EVENTS)
        assert stage.changelog_records_read() - read < written / 2
        await stage.require_promises()


@in_leaping_time
async def test_a_snapshot_from_before_another_owner_s_work_is_brought_up_to_date(
    tmp_path: Path, versions: Versions
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        await (await one_owner(stage, "a")).stop()
        await (await one_owner(stage, "b")).kill()
        await one_owner(stage, "a")
        await stage.require_promises()


@in_leaping_time
async def test_rows_that_are_ahead_of_a_changelog_which_lost_its_end_are_read_again_from_its_beginning(
    tmp_path: Path, versions: Versions, caplog: pytest.LogCaptureFixture
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        worker = await one_owner(stage, "a")
        with patch.object(partition_task, "Snapshot", ahead_of_the_changelog):
            await worker.stop()
        written, read = stage.changelog_records(), stage.changelog_records_read()
        await one_owner(stage, "a")
        assert stage.changelog_records_read() - read > written / 2  # all but the transactions' markers
        assert sum("the cluster has lost records" in line for line in caplog.messages) == len(ALL)
        await stage.require_promises()


def ahead_of_the_changelog(position: int, *rest: Any) -> Snapshot:
    return Snapshot(position + 1_000, *rest)


async def one_owner(stage: MemoryStage, name: str) -> Member:
    """Start a worker that owns everything and makes some more durable."""
    worker = await stage.start_owner(name)
    await stage.make_durable(EVENTS)
    return worker


@in_leaping_time
async def test_an_end_before_all_rows_have_moved_to_the_live_version_leaves_them_to_the_next_start(
    tmp_path: Path, versions: Versions
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        await (await one_owner(stage, "a")).stop()
        stage.announce(versions.second)

        async def move_none(*_: object) -> None:
            await stage.pass_time(1)

        with patch.object(BatchLoop, "_reencode_oldest", move_none):
            worker = await stage.start_owner("a")
            await stage.until(lambda: worker.figure("eddy_ready"))
            await worker.stop()
        await stage.start_owner("a")
        await stage.require_promises()


@pytest.mark.parametrize("call", ["end transaction", "commit offsets"])
@in_leaping_time
async def test_an_end_whose_flush_takes_too_long_leaves_no_snapshot_of_what_is_not_durable(
    tmp_path: Path, versions: Versions, call: str
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        worker = await stage.start_owner("a", checkpoint_ms=CHECKPOINT_MS)
        await stage.make_durable(EVENTS)
        await backlog(stage, worker, versions)
        stage.kafka.hold(call, worker.client)  # type: ignore[arg-type]
        await worker.stop()
        await one_owner(stage, "a")
        await stage.require_promises()


@in_leaping_time
async def test_rows_of_a_version_that_this_worker_lacks_wait_for_it(
    tmp_path: Path, versions: Versions
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        worker = await one_owner(stage, "a")
        behind = await stage.start("b")
        hold = stage.kafka.hold("fetch", behind.client, stage.settings.topics.model_versions)
        stage.announce(versions.second)
        await hold.reached.wait()
        await stage.until_durable()
        await worker.kill()
        stage.produce(EVENTS)
        await stage.rebalance(b=ALL)
        await stage.pass_time(30)
        assert all(behind.figure(name) == 0 for name in ("eddy_ready", "eddy_events_applied_total"))
        hold.release()
        await stage.require_promises()


@in_leaping_time
async def test_a_partition_begins_only_when_its_statistics_are_read(
    tmp_path: Path, versions: Versions
) -> None:
    """Else the new owner would number its records like the former owner's last ones, and readers pass them
    over.
    """
    async with memory_stage(tmp_path, versions.first) as stage:
        worker = await one_owner(stage, "a")
        restoring = await stage.start("b")
        hold = stage.kafka.hold("fetch", restoring.client, stage.settings.topics.item_stats)
        stage.produce(EVENTS)
        await stage.until_durable()
        await worker.kill()
        stage.produce(EVENTS)
        await stage.rebalance(b=ALL)
        await stage.pass_time(5)
        hold.release()
        await stage.require_promises()
