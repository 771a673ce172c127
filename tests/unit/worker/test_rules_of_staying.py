"""Rows that outlive a rebalance: those of partitions that stay, and those of partitions that come back. They
are used only where they are as the changelog has them.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.leaping_loop import in_leaping_time
from tests.support.memory_stage import ALL, PARTITIONS, MemoryStage, memory_stage, sentence
from tests.unit.worker.conftest import Versions
from tests.unit.worker.doings import CHECKPOINT_MS, EVENTS, HALF, OTHER_HALF, backlog
from tests.unit.worker.endings import DEAD, ENDINGS, Ending


async def long_history(stage: MemoryStage) -> None:
    """A changelog that is much longer than what is added later."""
    for _ in range(4):
        await stage.make_durable(EVENTS)


def behind(stage: MemoryStage) -> set[int]:
    """Partitions of which not all events are committed."""
    ends, committed = stage.ends(stage.settings.topics.events, PARTITIONS), stage.committed()
    return {number for number, end in ends.items() if committed[number] < end}


@pytest.mark.parametrize("kept", [ALL, frozenset(HALF)], ids=["all", "half"])
@in_leaping_time
async def test_of_partitions_that_stay_nothing_is_read_again(
    tmp_path: Path, versions: Versions, kept: frozenset[int]
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        worker = await stage.start_owner("a", checkpoint_ms=CHECKPOINT_MS)
        await long_history(stage)
        await backlog(stage, worker, versions)
        read = stage.changelog_records_read()
        await stage.rebalance(a=kept)
        await stage.pass_time(5)
        assert stage.changelog_records_read() == read
        await stage.rebalance(a=ALL)
        await stage.require_promises()


@pytest.mark.parametrize("then", [HALF, ALL], ids=["half come back", "all come back"])
@pytest.mark.parametrize("meanwhile", ["nobody", "another"])
@in_leaping_time
async def test_of_partitions_that_come_back_the_tail_is_read(
    tmp_path: Path, versions: Versions, meanwhile: str, then: frozenset[int]
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        worker = await stage.start_owner("a")
        await long_history(stage)
        if meanwhile == "another":
            await stage.start("b")
        await worker.give_up()
        worker.answers = False  # it does not hear of the next generation
        await stage.rebalance(b=ALL)
        if meanwhile == "another":
            await stage.make_durable(EVENTS)
        worker.answers = True
        read = stage.changelog_records_read()
        await stage.rebalance(a=then, b=ALL - then if meanwhile == "another" else ())
        stage.produce(EVENTS)
        async with asyncio.timeout(stage.settings.session_timeout_s):  # what is fenced is taken back later
            await stage.until(lambda: worker.figure("eddy_ready"))
            await stage.until(lambda: behind(stage).isdisjoint(then))
        assert stage.changelog_records_read() - read < stage.changelog_records() / 2
        await stage.rebalance(a=ALL)
        await stage.require_promises()


@in_leaping_time
async def test_of_partitions_that_another_got_nothing_is_kept(tmp_path: Path, versions: Versions) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        worker = await stage.start("a")
        await stage.start("b")
        await stage.rebalance(a=ALL)
        await long_history(stage)
        await stage.rebalance(a=HALF, b=OTHER_HALF)
        await stage.until(lambda: worker.figure("eddy_ready"))
        held = {
            int(number) for version in worker.worker.engine.rows.versions for number in version.slab.partition
        }
        assert held - {-1} == HALF
        await stage.require_promises()


@pytest.mark.parametrize("owner", ["is killed", "stops", "stays"])
@in_leaping_time
async def test_a_worker_with_stand_by_copies_reads_the_tail_of_what_it_is_given(
    tmp_path: Path, versions: Versions, owner: str
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        worker = await stage.start("a")
        following = await stage.start("b", standby=True)
        await stage.rebalance(a=ALL)
        await long_history(stage)
        await stage.pass_time(5)
        if owner == "is killed":
            await worker.kill()
        elif owner == "stops":
            await worker.stop()
        read = stage.changelog_records_read()
        await stage.rebalance(b=ALL)
        stage.produce(EVENTS)
        await stage.until(lambda: following.figure("eddy_ready"))
        assert stage.changelog_records_read() - read < stage.changelog_records() / 2
        await stage.require_promises()


@pytest.mark.parametrize("meanwhile", ["nobody", "another"])
@pytest.mark.parametrize("ending", [ending for ending in ENDINGS if ending not in DEAD], ids=sentence)
@in_leaping_time
async def test_each_record_counts_once_when_partitions_come_back_after_a_generation_unheard_of(
    tmp_path: Path, versions: Versions, ending: Ending, meanwhile: str
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        worker = await stage.start_owner("a", checkpoint_ms=CHECKPOINT_MS)
        await stage.make_durable(EVENTS)
        if meanwhile == "another":
            await stage.start("b")
        undo = ending(stage, worker)
        await backlog(stage, worker, versions)
        await worker.give_up()
        worker.answers = False
        await stage.rebalance(b=ALL)
        undo()
        if meanwhile == "another":
            await stage.make_durable(EVENTS)
        worker.answers = True
        await stage.rebalance(a=ALL)
        stage.produce(EVENTS)
        await stage.require_promises()


@in_leaping_time
async def test_a_partition_begins_to_work_while_others_are_still_restored(
    tmp_path: Path, versions: Versions
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        worker = await stage.start_owner("a")
        await stage.make_durable(EVENTS)
        await worker.kill()
        restoring = await stage.start("b")
        hold = stage.kafka.hold("fetch", restoring.client, stage.settings.topics.user_state, partition=0)
        await stage.rebalance(b=ALL)
        stage.produce(EVENTS)
        ends = stage.ends(stage.settings.topics.events, PARTITIONS)
        await stage.until(lambda: all(stage.committed()[number] == ends[number] for number in (1, 2, 3)))
        assert stage.committed()[0] < ends[0]
        assert not restoring.figure("eddy_ready")
        hold.release()
        await stage.require_promises()


@in_leaping_time
async def test_a_restore_that_was_interrupted_goes_on_where_it_was(
    tmp_path: Path, versions: Versions
) -> None:
    """The partitions that had begun stay; the one that had not is restored in the next generation."""
    async with memory_stage(tmp_path, versions.first) as stage:
        worker = await stage.start_owner("a")
        await long_history(stage)
        await worker.kill()
        restoring = await stage.start("b")
        hold = stage.kafka.hold("fetch", restoring.client, stage.settings.topics.user_state, partition=0)
        await stage.rebalance(b=ALL)
        stage.produce(EVENTS)
        ends = stage.ends(stage.settings.topics.events, PARTITIONS)
        await stage.until(lambda: all(stage.committed()[number] == ends[number] for number in OTHER_HALF))
        await stage.rebalance(b=ALL)
        stage.produce(EVENTS)
        hold.release()
        await stage.require_promises()
