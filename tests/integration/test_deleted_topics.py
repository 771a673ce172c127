"""A topic that somebody deletes under a running worker: one clear line each, and nothing lost once mended."""

from __future__ import annotations

from kafka import KafkaAdminClient, TopicPartition
from kafka.structs import OffsetAndMetadata

from tests.chaos.traffic import traffic
from tests.support.stage import PATIENCE_S, Stage


def last_error(log: bytes) -> str:
    raised = ("EddyError", "NotTheSame")
    return next(line for line in reversed(log.decode().splitlines()) if any(name in line for name in raised))


def test_deleted_events_end_the_worker_with_a_message(stage: Stage, admin: KafkaAdminClient) -> None:
    worker = stage.fleet.start()
    stage.send(traffic(200, users=20, seed=1))
    stage.await_end()
    admin.delete_topics([stage.settings.topics.events])
    assert worker.ended(PATIENCE_S) == 1
    assert f"topic {stage.settings.topics.events} was deleted while this worker ran" in last_error(
        worker.log()
    )


def test_deleted_rows_and_lists_are_told_of_and_made_again_from_the_events(
    stage: Stage, admin: KafkaAdminClient
) -> None:
    names = stage.settings.topics
    worker = stage.fleet.start()
    stage.send(traffic(400, users=20, seed=1))
    stage.await_end()
    admin.delete_topics([names.user_state, names.recommendations])
    assert worker.ended(PATIENCE_S) == 1
    assert f"topic {names.recommendations}, {names.user_state} was deleted" in last_error(worker.log())
    stage.fleet.mend()  # as a supervisor would
    (again,) = stage.fleet.workers
    assert again.ended(PATIENCE_S) == 1
    assert "the rows of" in last_error(again.log())
    assert "--reset-offsets --to-earliest" in last_error(again.log())
    # What that command does:
    first = {TopicPartition(names.events, number): OffsetAndMetadata(0, "", -1) for number in stage.ends()}
    admin.alter_group_offsets(stage.settings.group, first)
    stage.fleet.mend()
    stage.send(traffic(200, users=20, seed=2))
    stage.await_end()
    stage.fleet.stop()
    assert stage.verdict().problems == []
