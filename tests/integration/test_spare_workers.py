"""More workers than partitions: those without any stay in the group, and take over."""

from __future__ import annotations

import time

from tests.chaos.faults import Impatient
from tests.chaos.traffic import traffic
from tests.support.stage import PATIENCE_S, Stage
from tests.support.waiting import eventually

POLL_INTERVAL_S = 4.0
"""Longer than `MEMBER_S`; Faust's own is 1,000 s."""


def test_a_worker_without_partitions_takes_over_however_long_it_has_had_none(stage: Stage) -> None:
    workers = [stage.fleet.start(fault=Impatient(POLL_INTERVAL_S)) for _ in range(3)]
    eventually(lambda: stage.cluster.members() == 3, PATIENCE_S, "three members")
    joined = time.monotonic()
    stage.send(traffic(300, users=20, seed=1))
    stage.await_end()
    eventually(lambda: time.monotonic() - joined > 2 * POLL_INTERVAL_S, PATIENCE_S)
    assert stage.cluster.members() == 3
    owners = [worker for worker in workers if any("eddy_lag" in name for name in worker.metrics())]
    assert len(owners) == 2
    for worker in owners:
        stage.fleet.remove(worker)
    stage.send(traffic(300, users=20, seed=2))
    stage.await_end()
    stage.fleet.stop()
    assert stage.fleet.unexpected == []
    assert stage.verdict().problems == []
