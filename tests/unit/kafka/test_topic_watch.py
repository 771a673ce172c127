"""Topics that are no longer those that the worker started with: told of by name, never on a first look."""

from __future__ import annotations

import uuid

import pytest
from kafka.errors import LeaderNotAvailableError, UnknownTopicOrPartitionError

from eddy.models.errors import EddyError
from eddy.stream.kafka.topic_watch import TopicWatch
from eddy.stream.records.settings import load_settings

IDS = {"events": uuid.UUID(int=1), "user-state": uuid.UUID(int=2)}
GONE = (UnknownTopicOrPartitionError.errno, str(uuid.UUID(int=0)))


def seen(**changed: tuple[int, str]) -> dict[str, tuple[int, str]]:
    there = {name: (0, str(id_)) for name, id_ in IDS.items()}
    return there | {name.replace("_", "-"): what for name, what in changed.items()}


@pytest.fixture
def watch() -> TopicWatch:
    return TopicWatch(load_settings(bootstrap_servers="127.0.0.1:1"), IDS)


def test_a_topic_missing_twice_in_a_row_is_deleted(watch: TopicWatch) -> None:
    watch.judge(seen(user_state=GONE))
    with pytest.raises(EddyError, match="topic user-state was deleted while"):
        watch.judge(seen(user_state=GONE))


def test_a_broker_that_does_not_know_a_topic_for_a_moment_is_no_deletion(watch: TopicWatch) -> None:
    for _ in range(3):
        watch.judge(seen(events=GONE))
        watch.judge(seen())
        watch.judge(seen(events=(LeaderNotAvailableError.errno, str(uuid.UUID(int=0)))))


def test_another_topic_of_the_same_name_is_noticed_at_once(watch: TopicWatch) -> None:
    with pytest.raises(EddyError, match="topic events was deleted and made again"):
        watch.judge(seen(events=(0, str(uuid.UUID(int=9)))))


def test_a_cluster_that_does_not_answer_is_no_deletion(watch: TopicWatch) -> None:
    watch.look()
