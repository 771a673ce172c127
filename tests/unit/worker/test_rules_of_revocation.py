"""What becomes of a worker's partitions at a rebalance, as a table: what the worker is doing × how its last
flush ends × who gets the partitions then. Whatever the row, each record changes its user's state once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.support.leaping_loop import in_leaping_time
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
    recounting,
    resizing,
    switching,
)
from tests.unit.worker.endings import (
    DEAD,
    ENDINGS,
    FENCED,
    TIMED_OUT,
    Ending,
    ends_well,
    waits_for_rows,
)

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


Then = Callable[[MemoryStage], Awaitable[None]]

TABLE: list[tuple[Doing, Ending, Then]] = [
    *((backlog, ending, then) for ending in ENDINGS for then in (it_gets_them_back, another_gets_them)),
    *((backlog, ending, another_gets_half) for ending in (ends_well, *TIMED_OUT, *FENCED)),
    *((switching, ending, another_gets_half) for ending in ENDINGS),
    *((resizing, ending, it_gets_them_back) for ending in (ends_well, waits_for_rows, DEAD[3])),
    *((recounting, ending, another_gets_half) for ending in (ends_well, waits_for_rows, DEAD[3])),
    *((idle, ends_well, then) for then in (it_gets_them_back, another_gets_them, another_gets_half)),
]


@pytest.mark.parametrize(("doing", "ending", "then"), TABLE, ids=sentence)
@in_leaping_time
async def test_each_record_counts_once_when_partitions_are_revoked(
    tmp_path: Path, versions: Versions, doing: Doing, ending: Ending, then: Then
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        worker = await stage.start_owner("a", checkpoint_ms=CHECKPOINT_MS)
        await stage.make_durable(EVENTS)
        undo = ending(stage, worker)
        await doing(stage, worker, versions)
        began = asyncio.get_running_loop().time()
        await stage.rebalance()  # nobody owns anything any more
        took_s = asyncio.get_running_loop().time() - began
        assert took_s < stage.settings.session_timeout_s, "the group would have expelled it"
        assert worker.alive == (ending not in DEAD), "the flush ended as it was to end"
        undo()
        await then(stage)
        stage.produce(EVENTS)
        await stage.require_promises()
