"""What becomes of a worker's partitions at a rebalance, as a table: what the worker is doing × how its last
flush ends × who gets the partitions then. Whatever the row, each record changes its user's state once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from eddy.models.registry import Version
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.vocabulary import Catalogue
from eddy.stream.state.item_statistics import StatisticsReader
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


def announce_what_counts_as_the_first(stage: MemoryStage, versions: Versions) -> None:
    """The judge counts in one pass, and so knows nothing of re-sent events that count again where statistics
    are filled in.
    """
    stage.announce(versions.second)


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
        if doing is recounting:
            announce_what_counts_as_the_first(stage, versions)
        await stage.require_promises()


def lacking_on_the_topic(stage: MemoryStage, version: Version) -> set[int]:
    """Partitions whose records on `item-stats` lack half-lives that a version asks for."""
    config = version.recommender.config
    reader = StatisticsReader(Statistics(config.half_lives_ms, config.successors), Catalogue())
    for record in stage.kafka.records(stage.settings.topics.item_stats):
        reader.apply_records(record.partition, [(record.key, record.value)])
    return {number for number in ALL if reader.statistics.lacking(number)}


@in_leaping_time
async def test_statistics_that_are_filled_in_during_the_last_flush_are_written_in_the_end(
    tmp_path: Path, versions: Versions
) -> None:
    """The flush has no part in what changes after its data was copied out. Kept as if they were durable, such
    statistics would look complete here, and nobody would ever write them.
    """
    async with memory_stage(tmp_path, versions.first) as stage:
        worker = await stage.start_owner("a", checkpoint_ms=CHECKPOINT_MS)
        await stage.make_durable(EVENTS)
        filling = stage.kafka.hold("fetch", worker.client, stage.settings.topics.events)
        stage.announce(versions.recounted)
        await filling.reached.wait()
        await backlog(stage, worker, versions)
        writing = stage.kafka.hold("end transaction", worker.client)
        revoking = asyncio.create_task(worker.give_up())
        await writing.reached.wait()
        assert lacking_on_the_topic(stage, versions.recounted) == ALL
        filling.release()
        statistics = worker.worker.engine.statistics
        await stage.until(lambda: not any(statistics.lacking(number) for number in ALL))
        writing.release()
        await revoking
        worker.answers = False  # it does not hear of the next generation
        await stage.rebalance(b=ALL)
        worker.answers = True
        await stage.rebalance(a=ALL)
        async with asyncio.timeout(20):
            await stage.until(lambda: not lacking_on_the_topic(stage, versions.recounted))
        announce_what_counts_as_the_first(stage, versions)
        await stage.require_promises()
