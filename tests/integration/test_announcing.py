"""Announcements follow each other, however many are made at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from kafka import KafkaConsumer, TopicPartition

from eddy.stream.kafka.clients import client_config, records_to_end
from eddy.stream.kafka.topics import prepare_topics
from eddy.stream.kafka.versions import all_announcements, announce, decode_announcement, live_announcement
from eddy.stream.records.schema import Announcement
from eddy.stream.records.settings import Settings
from tests.support.engines import random_version

AT_ONCE = 4


def written(settings: Settings) -> list[Announcement]:
    """Every announcement under the key "live", in the order of the log."""
    topic = TopicPartition(settings.topics.model_versions, 0)
    consumer = KafkaConsumer(**client_config(settings), isolation_level="read_committed")
    consumer.assign([topic])
    consumer.seek_to_beginning(topic)
    records = list(records_to_end(consumer, consumer.end_offsets([topic]), 30))
    consumer.close()
    return [decode_announcement(record.value) for record in records if record.key == b"live"]


def test_announcements_made_at_once_have_an_epoch_each_and_the_last_one_is_live(settings: Settings) -> None:
    prepare_topics(settings)
    versions = [random_version(settings.registry, items=5, seed=seed) for seed in range(AT_ONCE)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        made = list(pool.map(lambda version: announce(settings, version), versions))
    assert sorted(each.epoch for each in made) == [1, 2, 3, 4]
    assert {each.epoch: each.version for each in made} == {
        each.epoch: each.version for each in all_announcements(settings)
    }
    assert [each.epoch for each in written(settings)] == [1, 2, 3, 4]
    live = live_announcement(settings)
    assert live is not None
    assert live.epoch == AT_ONCE
