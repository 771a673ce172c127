"""What workers tell of their ranks, by real workers on a cluster in memory: all of it, but for what one that
is killed had not told of.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from eddy.stream.records.rank_counts import decode_ranks
from eddy.stream.records.worker_reports import is_report
from eddy.stream.worker.rank_publisher import INTERVAL_S
from tests.support.leaping_loop import in_leaping_time
from tests.support.memory_group import Member
from tests.support.memory_stage import MemoryStage, memory_stage
from tests.unit.worker.conftest import Versions

EVENTS = 60


def told_by_instance(stage: MemoryStage) -> Counter[str]:
    """Ranked events that each start of a worker has told of; every interval has a key of its own."""
    told: Counter[str] = Counter()
    keys = set()
    for record in stage.kafka.records(stage.settings.topics.metrics):
        if is_report(record.key):
            continue
        assert record.key not in keys
        keys.add(record.key)
        said = decode_ranks(record.key, record.value)
        told[said.instance] += sum(int(sums[0].sum()) for sums in said.sums.values())
    return told


async def ranking_owner(stage: MemoryStage, name: str) -> Member:
    """Start a worker that owns everything and ranks all events."""
    return await stage.start_owner(name, prequential_sample=1.0, prequential_time=1.0)


@in_leaping_time
async def test_a_worker_tells_of_every_rank_in_its_intervals_and_at_its_end(
    tmp_path: Path, versions: Versions
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        worker = await ranking_owner(stage, "a")
        await stage.make_durable(EVENTS)
        await stage.pass_time(INTERVAL_S + 1)
        ranks = worker.worker.engine.prequential
        assert list(told_by_instance(stage).values()) == [ranks.events]
        await stage.make_durable(EVENTS)
        await worker.stop()
        assert list(told_by_instance(stage).values()) == [ranks.events]
        assert ranks.events > EVENTS


@in_leaping_time
async def test_the_metrics_of_a_version_go_with_its_last_row(tmp_path: Path, versions: Versions) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        worker = await ranking_owner(stage, "a")

        def shown() -> set[str]:
            return {version for _, version in worker.metrics.prequential._metrics}

        await stage.make_durable(EVENTS)
        assert shown() == {versions.first.id}
        stage.announce(versions.second)
        await stage.until_durable()
        await stage.make_durable(EVENTS)
        await stage.until(lambda: shown() == {versions.second.id})


@in_leaping_time
async def test_what_a_killed_worker_had_told_of_stays_and_its_successor_adds_its_own(
    tmp_path: Path, versions: Versions
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        first = await ranking_owner(stage, "a")
        await stage.make_durable(EVENTS)
        await stage.pass_time(INTERVAL_S + 1)
        (before,) = told_by_instance(stage).values()
        stage.kafka.hold("produce", first.client, stage.settings.topics.metrics)  # it tells of nothing more
        await stage.make_durable(EVENTS)
        assert first.worker.engine.prequential.events > before
        await first.kill()
        second = await ranking_owner(stage, "a")
        await stage.make_durable(EVENTS)
        await second.stop()
        assert list(told_by_instance(stage).values()) == [before, second.worker.engine.prequential.events]
