"""What a worker may be doing when its partitions are taken from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from eddy.models.registry import Version
from tests.support.memory_group import Member
from tests.support.memory_stage import MemoryStage
from tests.unit.worker.conftest import Versions

EVENTS = 48
HALF, OTHER_HALF = {0, 1}, {2, 3}

CHECKPOINT_MS = 2_000
"""Long after all that a test does, so that only flushes take checkpoints, and short enough for its end."""

Doing = Callable[[MemoryStage, Member, Versions], Awaitable[None]]


async def idle(stage: MemoryStage, worker: Member, versions: Versions) -> None:
    """Everything is committed."""


async def backlog(stage: MemoryStage, worker: Member, versions: Versions) -> None:
    """Some events are applied and not durable yet, others wait."""
    stage.produce(EVENTS)
    applied = worker.figure("eddy_events_applied_total")
    await stage.until(lambda: worker.figure("eddy_events_applied_total") > applied)


async def switching(stage: MemoryStage, worker: Member, versions: Versions) -> None:
    """Another version has just gone live; its rows are not durable yet."""
    await _switch(stage, worker, versions, versions.second)


async def resizing(stage: MemoryStage, worker: Member, versions: Versions) -> None:
    """A version with a larger state has just gone live."""
    await _switch(stage, worker, versions, versions.larger)


async def recounting(stage: MemoryStage, worker: Member, versions: Versions) -> None:
    """A version that asks for item statistics which nobody has counted yet has just gone live."""
    await _switch(stage, worker, versions, versions.recounted)


async def _switch(stage: MemoryStage, worker: Member, versions: Versions, version: Version) -> None:
    await backlog(stage, worker, versions)
    stage.announce(version)
    await stage.until(lambda: worker.figure("eddy_epoch") == 2)
