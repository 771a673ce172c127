"""The order in which a worker makes its work durable: answers, then rows, then offsets."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from unittest.mock import patch

import pytest

from tests.support.leaping_loop import LeapingLoop, in_leaping_time
from tests.support.memory_stage import ALL, USERS, MemoryStage, memory_stage
from tests.unit.worker.conftest import Versions
from tests.unit.worker.doings import CHECKPOINT_MS, EVENTS, backlog


def rows_written(stage: MemoryStage) -> int:
    return len(list(stage.kafka.records(stage.settings.topics.user_state)))


@pytest.mark.parametrize("topic", ["recommendations", "items", "dead-letters"])
@in_leaping_time
async def test_no_row_is_written_while_answers_letters_or_names_are_unconfirmed(
    tmp_path: Path, versions: Versions, topic: str
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        worker = await stage.start_owner("a")
        hold = stage.kafka.hold("produce", worker.client, topic)
        stage.send([(b"user-1", b"not json")])
        if topic == "dead-letters":  # events that are read before the letter may be durable before it
            await hold.reached.wait()
        stage.produce(EVENTS)
        await hold.reached.wait()
        await stage.pass_time(5)
        assert (rows_written(stage), stage.group.committed) == (0, {})
        hold.release()
        await stage.require_promises()


@pytest.mark.parametrize("topic", ["user-state", "item-stats", None])
@in_leaping_time
async def test_no_offset_is_committed_while_a_partition_s_rows_are_not_durable(
    tmp_path: Path, versions: Versions, topic: str | None
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        worker = await stage.start_owner("a")
        hold = stage.kafka.hold("produce" if topic else "end transaction", worker.client, topic)
        stage.produce(EVENTS)
        await hold.reached.wait()
        await stage.pass_time(5)
        assert (rows_written(stage), stage.group.committed) == (0, {})
        hold.release()
        await stage.require_promises()


@in_leaping_time
async def test_a_refused_commit_is_tried_again_though_no_event_comes(
    tmp_path: Path, versions: Versions
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        worker = await stage.start_owner("a")
        worker.refuses = True
        stage.produce(EVENTS)
        await stage.until(lambda: rows_written(stage))
        await stage.pass_time(1)
        worker.refuses = False
        await stage.require_promises()


@pytest.mark.parametrize("step", ["captured", "answered", "written", "committed"])
@in_leaping_time
async def test_events_of_a_user_who_was_erased_count_once_in_the_statistics_when_they_come_again(
    tmp_path: Path, versions: Versions, step: str
) -> None:
    """The row that would tell that they were applied is gone."""
    async with memory_stage(tmp_path, versions.first) as stage:
        worker = await stage.start_owner("a")
        await stage.make_durable(EVENTS)
        worker.dies_at = step
        stage.produce(EVENTS)
        stage.send([(f"user-{number}".encode(), None) for number in range(0, USERS, 2)])
        await stage.until(lambda: not worker.alive)
        await stage.start_owner("b")
        await stage.require_promises()


@in_leaping_time
async def test_a_worker_ends_though_the_cluster_takes_no_answers_and_its_events_are_read_again(
    tmp_path: Path, versions: Versions
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        worker = await stage.start_owner("a")
        hold = stage.kafka.hold("produce", worker.client, "recommendations")
        stage.produce(EVENTS)
        await hold.reached.wait()
        async with asyncio.timeout(2 * stage.settings.session_timeout_s):
            await worker.stop()
        await stage.start_owner("b")
        await stage.require_promises()


@in_leaping_time
async def test_names_of_new_items_are_written_though_the_flush_that_took_them_was_abandoned(
    tmp_path: Path, versions: Versions
) -> None:
    """The worker does not find them new when their events come again. The flush's time is over while the
    engine's thread copies out, which goes on all the same.
    """
    async with memory_stage(tmp_path, versions.first) as stage:
        worker, loop = await stage.start_owner("a", checkpoint_ms=CHECKPOINT_MS), asyncio.get_running_loop()
        assert isinstance(loop, LeapingLoop)
        await backlog(stage, worker, versions)
        names, may_go_on = worker.worker.engine.names, threading.Event()
        take_new = names.take_new

        def take_long() -> list[str]:
            loop.leap(stage.settings.session_timeout_s)
            may_go_on.wait()
            return take_new()

        with patch.object(names, "take_new", take_long):
            try:
                revoking = asyncio.create_task(stage.rebalance())
                while worker.worker.partitions.tasks:
                    await asyncio.sleep(0)
            finally:
                may_go_on.set()
            await revoking
        await stage.rebalance(a=ALL)
        await stage.require_promises()
