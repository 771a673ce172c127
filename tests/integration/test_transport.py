"""Commits on the real broker: they reach the log's end, and never pass what is durable."""

from __future__ import annotations

import re
from itertools import groupby

import pytest
from kafka import TopicPartition

from eddy.stream.kafka.clients import admin_client
from tests.chaos.faults import Hold, LoseChunk
from tests.chaos.fleet import Worker
from tests.chaos.traffic import traffic
from tests.support.stage import PATIENCE_S, Stage
from tests.support.waiting import eventually


def test_nothing_is_committed_before_it_is_durable_and_everything_after(stage: Stage) -> None:
    hold = Hold("answered", stage.folder)
    stage.fleet.start(fault=hold)
    stage.send(traffic(2_000, users=50, seed=1))
    eventually(hold.reached.exists, PATIENCE_S, "a checkpoint before its writing")
    settings = stage.settings
    assert list(stage.cluster.read(settings.topics.user_state, settings.partitions)) == []
    assert stage.cluster.committed() == {}
    hold.release.touch()
    stage.await_end()
    stage.fleet.stop()
    assert stage.fleet.unexpected == []
    assert stage.cluster.committed() == stage.ends()
    assert stage.verdict().problems == []


def of_partitions(worker: Worker) -> dict[str, set[str]]:
    """Partitions that a worker's metrics tell of, by metric."""
    found = [re.match(r'(eddy_\w+){partition="(\d+)"}', name) for name in worker.metrics()]
    told = sorted((match[1], match[2]) for match in found if match)
    return {name: {number for _, number in group} for name, group in groupby(told, lambda pair: pair[0])}


def everywhere(numbers: set[str]) -> dict[str, set[str]]:
    return dict.fromkeys(["eddy_lag", "eddy_restore_progress", "eddy_restored_rows"], numbers)


def test_commits_of_moved_partitions_reach_the_end_after_a_worker_joins_and_after_one_leaves(
    stage: Stage,
) -> None:
    first = stage.fleet.start()
    stage.send(traffic(1_000, users=50, seed=1))
    stage.await_end()
    eventually(lambda: of_partitions(first) == everywhere({"0", "1"}), PATIENCE_S, "metrics of both")
    assert first.metrics()["eddy_ready"] == 1
    second = stage.fleet.start()
    stage.send(traffic(2_000, users=50, seed=2))
    eventually(lambda: stage.cluster.members() == 2, PATIENCE_S, "two workers")
    stage.send(traffic(1_000, users=50, seed=3))
    stage.await_end()

    def apart() -> bool:
        here, there = of_partitions(first), of_partitions(second)
        return {*here.get("eddy_lag", ()), *there.get("eddy_lag", ())} == {"0", "1"} and all(
            told == everywhere(told.get("eddy_lag", set())) and len(told.get("eddy_lag", ())) == 1
            for told in (here, there)
        )

    eventually(apart, PATIENCE_S, "each worker's metrics tell of its own partition alone")
    stage.fleet.remove(first)
    stage.send(traffic(1_000, users=50, seed=4))
    stage.await_end()
    stage.fleet.stop()
    assert stage.fleet.unexpected == []
    assert stage.verdict().problems == []


@pytest.mark.parametrize("more", [1_000, 0], ids=["with more after it", "as the last"])
def test_a_chunk_lost_on_its_way_is_read_again_and_costs_no_worker(stage: Stage, more: int) -> None:
    fault = LoseChunk("committed", stage.folder)
    worker = stage.fleet.start(fault=fault)
    stage.send(traffic(100, users=20, seed=1))
    stage.await_end()
    stage.send(traffic(100, users=20, seed=2))
    eventually(fault.lost.exists, PATIENCE_S, "a chunk lost")
    stage.send(traffic(more, users=20, seed=3))
    stage.await_end()
    assert b"fetched but not handed over" in worker.log()
    stage.fleet.stop()
    assert stage.fleet.unexpected == []
    assert stage.verdict().problems == []


def test_a_quiet_worker_stays_where_retention_has_removed_what_it_had_not_read(stage: Stage) -> None:
    stage.send(traffic(100, users=20, seed=1))
    ends = stage.ends()
    events = stage.settings.topics.events
    with admin_client(stage.settings) as admin:
        admin.delete_records({TopicPartition(events, number): end for number, end in ends.items()})
    worker = stage.fleet.start()
    eventually(lambda: stage.cluster.committed() == ends, PATIENCE_S, "the log's beginning committed")
    told = worker.metrics()
    assert told["eddy_events_gone_total"] == sum(ends.values())
    assert told["eddy_stalled_seconds"] == 0
    assert worker.log().count(b"were gone (retention) before they were read") == len(ends)
    eventually(
        lambda: {worker.metrics().get(f'eddy_lag{{partition="{number}"}}') for number in ends} == {0},
        PATIENCE_S, "no lag",
    )  # fmt: skip
    stage.send(traffic(100, users=20, seed=2))
    stage.await_end()
    assert worker.metrics()["eddy_events_gone_total"] == sum(ends.values())
    stage.fleet.stop()
    assert stage.fleet.unexpected == []
    assert stage.verdict().problems == []
