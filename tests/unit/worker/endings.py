"""How the last flush of a worker may end whose partitions are revoked. Each arranges it, and gives what takes
the cause away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.support.memory_group import Member
from tests.support.memory_stage import ALL, MemoryStage

Undo = Callable[[], object]
Ending = Callable[[MemoryStage, Member], Undo]


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
