"""What a worker tells of itself, by real workers on a cluster in memory."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import generate_latest

from eddy.stream.records.worker_reports import Reported, decode_report, is_report
from eddy.stream.worker.self_report import INTERVAL_S
from tests.support.leaping_loop import in_leaping_time
from tests.support.memory_stage import ALL, MemoryStage, memory_stage
from tests.unit.worker.conftest import Versions

EVENTS = 60


def reported(stage: MemoryStage) -> list[Reported]:
    """All reports that workers have written, oldest first."""
    records = stage.kafka.records(stage.settings.topics.metrics)
    return [decode_report(record.key, record.value) for record in records if is_report(record.key)]


@in_leaping_time
async def test_a_worker_s_report_counts_what_it_has_made_durable(tmp_path: Path, versions: Versions) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        worker = await stage.start_owner("a")
        await stage.make_durable(EVENTS)
        await stage.pass_time(INTERVAL_S + 0.1)
        metrics = worker.worker.partitions.metrics
        report = reported(stage)[-1].report
        assert report is not None
        assert (report.state, report.progress, report.partitions) == ("running", None, sorted(ALL))
        assert report.applied == metrics.registry.get_sample_value("eddy_events_applied_total")
        assert report.dead == metrics.registry.get_sample_value("eddy_dead_letters_total")
        assert (report.rows, report.epoch) == (len(worker.worker.engine.rows), 1)
        assert sum(report.freshness) == metrics.registry.get_sample_value("eddy_events_read_total")
        assert sum(report.freshness) >= EVENTS
        users = {user.encode() for user in worker.worker.engine.rows.newest.slab.slot_of}
        written = [record.value for record in stage.kafka.records(stage.settings.topics.metrics)]
        assert len(users) > 5
        assert not any(user in (value or b"") for user in users for value in written), "it names nobody"
        shown = metrics.registry.get_sample_value("eddy_freshness_seconds_count")
        assert shown == sum(report.freshness)
        assert b"eddy_freshness_seconds_bucket" in generate_latest(metrics.registry)


@in_leaping_time
async def test_a_worker_that_ends_says_so_and_one_that_is_killed_leaves_its_last_report(
    tmp_path: Path, versions: Versions
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        first = await stage.start_owner("a", worker_id="first")
        await stage.pass_time(INTERVAL_S + 0.1)
        await first.kill()
        killed = {said.worker: said.report for said in reported(stage)}
        assert killed["first"] is not None
        second = await stage.start_owner("b", worker_id="first")
        await stage.pass_time(INTERVAL_S + 0.1)
        again = reported(stage)[-1].report
        assert again is not None
        assert again.instance != killed["first"].instance
        await second.stop()
        assert {said.worker: said.report for said in reported(stage)} == {"first": None}


@in_leaping_time
async def test_a_report_that_the_cluster_does_not_take_holds_up_nothing(
    tmp_path: Path, versions: Versions
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        worker = await stage.start_owner("a")
        await stage.pass_time(INTERVAL_S + 0.1)
        held = stage.kafka.hold("produce", worker.client, stage.settings.topics.metrics)
        told = len(reported(stage))
        await stage.make_durable(EVENTS)
        await stage.pass_time(3 * INTERVAL_S)
        assert len(reported(stage)) == told
        held.release()
        await stage.pass_time(3 * INTERVAL_S)
        assert len(reported(stage)) > told
