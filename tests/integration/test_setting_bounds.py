"""Workers whose settings are all at their least, or all at their greatest, read what is sent to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chaos.traffic import traffic
from tests.support.kafka_clusters import MakeSettings
from tests.support.setting_bounds import FIELDS, extremes
from tests.support.stage import PATIENCE_S, staged
from tests.support.waiting import eventually

NOT_HERE = {
    "partitions",  # ten thousand would keep one broker busy for minutes
    "replication",  # one broker has one replica
    "port",  # a server's
    "metrics_port",  # the greatest may be taken
    "security_protocol",  # needs another listener
    "sasl_mechanism",
    "device",
    "topic_prefix",  # the tests' own keep them apart
    "group",
    "negative_events",
}
EVENTS = 200


@pytest.mark.parametrize("which", [0, -1], ids=["least", "greatest"])
def test_a_worker_with_all_settings_at_a_bound_reads_its_events(
    make_settings: MakeSettings, tmp_path: Path, which: int
) -> None:
    values: dict[str, Any] = {
        name: extremes(name)[which] for name in FIELDS if name not in NOT_HERE and extremes(name)
    }
    settings = make_settings(partitions=2, metrics_port=0, **values)
    worker_id = values.pop("worker_id")
    with staged(settings, tmp_path) as stage:
        worker = stage.fleet.start(worker_id=worker_id)
        stage.send(traffic(EVENTS, users=10, seed=1))
        eventually(lambda: b"metrics: " in worker.log(), PATIENCE_S, "it has begun")
        eventually(
            lambda: worker.metrics()["eddy_events_read_total"] == EVENTS, PATIENCE_S, "it has read all"
        )
        stage.fleet.stop()
        assert stage.fleet.unexpected == []
        assert stage.cluster.committed() == {number: end for number, end in stage.ends().items() if end}
