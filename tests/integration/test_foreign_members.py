"""A consumer group that is not Eddy's alone: a worker says so and ends, and does its work once it is."""

from __future__ import annotations

from kafka import KafkaConsumer

from eddy.stream.kafka.clients import client_config
from tests.chaos.traffic import traffic
from tests.support.stage import PATIENCE_S, Stage
from tests.support.waiting import eventually


def test_a_worker_whose_group_has_other_consumers_ends_with_a_line_that_says_so(stage: Stage) -> None:
    settings = stage.settings
    stage.send(traffic(100, users=10, seed=1))
    other = KafkaConsumer(settings.topics.events, group_id=settings.group, **client_config(settings))
    eventually(lambda: other.poll(timeout_ms=200) is not None and other.assignment(), PATIENCE_S)
    worker = stage.fleet.start()
    eventually(lambda: not worker.alive, PATIENCE_S, "the worker ends")
    assert worker.ended() == 1
    assert worker.log().count(b"has members that are no Eddy workers") == 1
    stage.fleet.workers.remove(worker)
    other.close()
    stage.fleet.start()
    stage.await_end()
    stage.fleet.stop()
    assert stage.fleet.unexpected == []
