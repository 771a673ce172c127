"""Commits on the real broker: they reach the log's end, and never pass what is durable."""

from __future__ import annotations

from tests.chaos.faults import Hold
from tests.chaos.traffic import traffic
from tests.chaos.waiting import eventually
from tests.stage import PATIENCE_S, Stage


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


def test_commits_of_moved_partitions_reach_the_end_after_a_worker_joins_and_after_one_leaves(
    stage: Stage,
) -> None:
    first = stage.fleet.start()
    stage.send(traffic(1_000, users=50, seed=1))
    stage.await_end()
    stage.fleet.start()
    stage.send(traffic(2_000, users=50, seed=2))
    eventually(lambda: stage.cluster.members() == 2, PATIENCE_S, "two workers")
    stage.send(traffic(1_000, users=50, seed=3))
    stage.await_end()
    stage.fleet.remove(first)
    stage.send(traffic(1_000, users=50, seed=4))
    stage.await_end()
    stage.fleet.stop()
    assert stage.fleet.unexpected == []
    assert stage.verdict().problems == []
