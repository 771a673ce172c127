"""What becomes of a worker's partitions at a rebalance, as a table: what the worker is doing × how its last
flush ends × who gets the partitions then. Whatever the row, each record changes its user's state once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.support.leaping_loop import in_leaping_time
from tests.support.memory_group import Member
from tests.support.memory_stage import ALL, MemoryStage, memory_stage, sentence
from tests.unit.worker.conftest import Versions
from tests.unit.worker.doings import (
    CHECKPOINT_MS,
    EVENTS,
    HALF,
    OTHER_HALF,
    Doing,
    backlog,
    idle,
    resizing,
    switching,
)

Undo = Callable[[], object]


# -- how its last flush ends --------------------------------------------------------------------------------


def ends_well(stage: MemoryStage, worker: Member) -> Undo:
    return lambda: None


def is_refused_its_commit(stage: MemoryStage, worker: Member) -> Undo:
    worker.refuses = True
    return lambda: setattr(worker, "refuses", False)


def waits_for_answers(stage: MemoryStage, worker: Member) -> Undo:
    return stage.kafka.hold("produce", worker.client, stage.settings.topics.recommendations).release


def waits_for_rows(stage: MemoryStage, worker: Member) -> Undo:
    return stage.kafka.hold("produce", worker.client, stage.settings.topics.user_state).release


def waits_for_its_transactions(stage: MemoryStage, worker: Member) -> Undo:
    return stage.kafka.hold("end transaction", worker.client).release


def waits_for_its_commit(stage: MemoryStage, worker: Member) -> Undo:
    return stage.kafka.hold("commit offsets", worker.client).release


def finds_a_partition_fenced(stage: MemoryStage, worker: Member) -> Undo:
    stage.fence(0)
    return lambda: None


def finds_all_fenced(stage: MemoryStage, worker: Member) -> Undo:
    stage.fence(*ALL)
    return lambda: None


def dies_within_its_transactions(stage: MemoryStage, worker: Member) -> Undo:
    hold = stage.kafka.hold("end transaction", worker.client)

    async def kill() -> None:
        await hold.reached.wait()
        await worker.kill()

    return asyncio.create_task(kill()).cancel


def dies_when(step: str) -> Callable[[MemoryStage, Member], Undo]:
    def arrange(stage: MemoryStage, worker: Member) -> Undo:
        worker.dies_at = step
        return lambda: None

    arrange.__name__ = f"dies_when_{step}"
    return arrange


TIMED_OUT = [waits_for_answers, waits_for_rows, waits_for_its_transactions, waits_for_its_commit]
FENCED = [finds_a_partition_fenced, finds_all_fenced]
DEAD = [
    dies_when("captured"),
    dies_when("answered"),
    dies_within_its_transactions,
    dies_when("written"),
    dies_when("committed"),
]
ENDINGS = [ends_well, is_refused_its_commit, *TIMED_OUT, *FENCED, *DEAD]


# -- who gets the partitions then ---------------------------------------------------------------------------


async def it_gets_them_back(stage: MemoryStage) -> None:
    await _alive(stage, "a")
    await stage.rebalance(a=ALL)


async def another_gets_them(stage: MemoryStage) -> None:
    await _alive(stage, "b")
    await stage.rebalance(b=ALL)


async def another_gets_half(stage: MemoryStage) -> None:
    await _alive(stage, "a")
    await _alive(stage, "b")
    await stage.rebalance(a=HALF, b=OTHER_HALF)


async def _alive(stage: MemoryStage, name: str) -> None:
    """Start the worker again if it is dead."""
    if name not in stage.group.members:
        await stage.start(name, checkpoint_ms=CHECKPOINT_MS)


Ending = Callable[[MemoryStage, Member], Undo]
Then = Callable[[MemoryStage], Awaitable[None]]

TABLE: list[tuple[Doing, Ending, Then]] = [
    *((backlog, ending, then) for ending in ENDINGS for then in (it_gets_them_back, another_gets_them)),
    *((backlog, ending, another_gets_half) for ending in (ends_well, *TIMED_OUT, *FENCED)),
    *((switching, ending, another_gets_half) for ending in ENDINGS),
    *((resizing, ending, it_gets_them_back) for ending in (ends_well, waits_for_rows, DEAD[3])),
    *((idle, ends_well, then) for then in (it_gets_them_back, another_gets_them, another_gets_half)),
]


@pytest.mark.parametrize(("doing", "ending", "then"), TABLE, ids=sentence)
@in_leaping_time
async def test_each_record_counts_once_when_partitions_are_revoked(
    tmp_path: Path, versions: Versions, doing: Doing, ending: Ending, then: Then
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        worker = await stage.start("a", checkpoint_ms=CHECKPOINT_MS)
        await stage.rebalance(a=ALL)
        stage.produce(EVENTS)
        await stage.until_durable()
        await doing(stage, worker, versions)
        undo = ending(stage, worker)
        await stage.rebalance()  # nobody owns anything any more
        assert worker.alive == (ending not in DEAD), "the flush ended as it was to end"
        undo()
        await then(stage)
        stage.produce(EVENTS)
        await stage.require_promises()
