"""What becomes of partitions that a worker loses without being told, as a table: what it is doing × what it
does when others have taken its partitions over × what it is given then. No row of a newer owner is
overwritten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from eddy.models.errors import EddyError
from eddy.stream.worker.partition_set import REBALANCE_SESSIONS
from tests.support.leaping_loop import in_leaping_time
from tests.support.memory_group import Member
from tests.support.memory_stage import ALL, MemoryStage, memory_stage, sentence
from tests.unit.worker.conftest import Versions
from tests.unit.worker.doings import CHECKPOINT_MS, EVENTS, HALF, OTHER_HALF, Doing, backlog, idle, switching

# -- what the worker that was left out does -----------------------------------------------------------------


async def hears_of_it_late(stage: MemoryStage, left_out: Member) -> None:
    """The new owner has written before the rebalance in which the worker hears of it."""
    stage.produce(EVENTS)
    await stage.until(lambda: stage.committed() == stage.ends(stage.settings.topics.events, len(ALL)))


async def hears_of_it_while_the_owner_restores(stage: MemoryStage, left_out: Member) -> None:
    """The new owner has fenced it off, and no more."""


async def goes_on_writing(stage: MemoryStage, left_out: Member) -> None:
    """The worker tries to make durable what it has applied, beside the new owner."""
    stage.produce(EVENTS)
    await stage.pass_time(2 * CHECKPOINT_MS / 1000)


async def wakes_within_its_transactions(stage: MemoryStage, left_out: Member) -> None:
    """Its transactions were under way when it stood still, and end after the new owner's first ones."""
    stage.produce(EVENTS)
    await stage.until(lambda: stage.committed() == stage.ends(stage.settings.topics.events, len(ALL)))
    stage.kafka.release_all()
    await stage.pass_time(1)


async def is_killed(stage: MemoryStage, left_out: Member) -> None:
    """It never wakes up."""
    await left_out.kill()


Acting = Callable[[MemoryStage, Member], Awaitable[None]]

# -- what it is given then ----------------------------------------------------------------------------------

Given = dict[str, set[int]]
NOTHING: Given = {"b": set(ALL)}
A_HALF: Given = {"a": HALF, "b": OTHER_HALF}
EVERYTHING: Given = {"a": set(ALL)}
NAMES = {id(NOTHING): "nothing", id(A_HALF): "a_half", id(EVERYTHING): "everything"}

TABLE: list[tuple[Doing, Acting, Given]] = [
    *(
        (doing, acting, given)
        for doing in (idle, backlog)
        for acting in (hears_of_it_late, hears_of_it_while_the_owner_restores, goes_on_writing)
        for given in (NOTHING, A_HALF, EVERYTHING)
    ),
    *((backlog, wakes_within_its_transactions, given) for given in (NOTHING, A_HALF, EVERYTHING)),
    *((switching, acting, A_HALF) for acting in (hears_of_it_late, goes_on_writing, is_killed)),
    (backlog, is_killed, NOTHING),
]


@pytest.mark.parametrize(
    ("doing", "acting", "given"), TABLE, ids=lambda value: NAMES.get(id(value)) or sentence(value)
)
@in_leaping_time
async def test_each_record_counts_once_when_partitions_are_lost_unheard(
    tmp_path: Path, versions: Versions, doing: Doing, acting: Acting, given: Given
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        left_out = await stage.start_owner("a", checkpoint_ms=CHECKPOINT_MS)
        await stage.make_durable(EVENTS)
        await stage.start("b")
        await doing(stage, left_out, versions)
        if acting is wakes_within_its_transactions:
            await stage.kafka.hold("end transaction", left_out.client).reached.wait()
        left_out.answers = False
        await stage.rebalance(b=ALL)
        await acting(stage, left_out)
        left_out.answers = left_out.alive
        if not left_out.alive:
            await stage.start("a")
        await stage.rebalance(**given)
        stage.produce(EVENTS)
        await stage.require_promises()


@in_leaping_time
async def test_a_partition_that_was_fenced_but_still_is_this_worker_s_is_taken_back(
    tmp_path: Path, versions: Versions
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        await stage.start_owner("a")
        await stage.make_durable(EVENTS)
        stage.fence(1, 2)
        stage.produce(EVENTS)
        await stage.require_promises()


@in_leaping_time
async def test_a_partition_that_was_fenced_while_others_were_restored_is_taken_back(
    tmp_path: Path, versions: Versions
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        before = await stage.start_owner("b")
        await stage.make_durable(EVENTS)
        await before.kill()
        restoring = await stage.start("a")
        hold = stage.kafka.hold("fetch", restoring.client, stage.settings.topics.user_state, 3)
        await stage.rebalance(a=ALL)
        at_work = restoring.worker.partitions.tasks
        await stage.until(lambda: set(at_work) == ALL - {3})
        stage.fence(0)
        stage.produce(EVENTS)
        await stage.until(lambda: 0 not in at_work)
        await stage.pass_time(REBALANCE_SESSIONS * stage.settings.session_timeout_s + 1)
        hold.release()
        await stage.require_promises()
        assert set(at_work) == ALL


@in_leaping_time
async def test_partitions_whose_producers_the_cluster_has_forgotten_go_on_at_once_and_each_time(
    tmp_path: Path, versions: Versions
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        await stage.start_owner("a")
        await stage.make_durable(EVENTS)
        for _ in range(2):
            began = asyncio.get_running_loop().time()
            stage.forget(*HALF)
            await stage.make_durable(EVENTS)
            took_s = asyncio.get_running_loop().time() - began
            assert took_s < REBALANCE_SESSIONS * stage.settings.session_timeout_s
        await stage.require_promises()


@in_leaping_time
async def test_a_worker_is_not_ready_while_it_lacks_a_partition_that_was_fenced(
    tmp_path: Path, versions: Versions
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        worker = await stage.start_owner("a")
        await stage.make_durable(EVENTS)
        stage.fence(1)
        stage.produce(EVENTS)
        await stage.until(lambda: 1 not in worker.worker.partitions.tasks)
        assert worker.figure("eddy_ready") == 0
        await stage.require_promises()
        assert worker.figure("eddy_ready") == 1


@in_leaping_time
async def test_a_worker_ends_when_a_partition_is_taken_from_it_twice_in_one_assignment(
    tmp_path: Path, versions: Versions
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        await stage.start_owner("a")
        await stage.make_durable(EVENTS)
        stage.fence(1)
        await stage.make_durable(EVENTS)
        stage.fence(1)
        stage.produce(EVENTS)
        with pytest.raises(EddyError, match="twice"):
            await stage.until_durable()


@in_leaping_time
async def test_a_worker_that_takes_a_partition_back_follows_the_others_once(
    tmp_path: Path, versions: Versions
) -> None:
    """What follows them ends with the next generation, or it would meet partitions that are its own then."""
    async with memory_stage(tmp_path, versions.first) as stage:
        worker = await stage.start("a", standby=True)
        await stage.start("b")
        await stage.rebalance(a=HALF, b=OTHER_HALF)
        await stage.make_durable(EVENTS)
        stage.fence(0)
        await stage.make_durable(EVENTS)
        await stage.until(lambda: worker.figure("eddy_ready"))
        await stage.rebalance(a=ALL)
        stage.produce(EVENTS)
        await stage.pass_time(5)
        await stage.require_promises()
