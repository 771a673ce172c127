"""Announcements follow each other, however many are made at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from eddy.models.errors import EddyError
from eddy.stream.announce import make_live
from eddy.stream.kafka import versions as announcing
from eddy.stream.kafka.clients import (
    NotReadInTime,
    admin_client,
    client_config,
    new_sync_producer,
    records_to_end,
)
from eddy.stream.kafka.security.permissions import announcer_of
from eddy.stream.kafka.topics import prepare_topics
from eddy.stream.kafka.versions import (
    AnnouncementReader,
    all_announcements,
    announce,
    decode_announcement,
    live_announcement,
    withdraw,
)
from eddy.stream.records.schema import Announcement
from eddy.stream.records.settings import Settings
from tests.support.engines import random_version
from tests.support.waiting import eventually

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
    # A transaction's records can be read some milliseconds after it was committed.
    eventually(
        lambda: all_announcements(settings) == sorted(made, key=lambda each: each.epoch),
        what="all announcements are read",
    )
    assert [each.epoch for each in written(settings)] == [1, 2, 3, 4]
    live = live_announcement(settings)
    assert live is not None
    assert live.epoch == AT_ONCE


def test_an_announcement_that_another_one_overtakes_between_its_records_is_made_after_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The producer tells of it at the second record, in an error of another class."""
    prepare_topics(settings)
    send, others = KafkaProducer.send, [announcer_of(settings.topics.model_versions)]

    def overtaken_once(producer: KafkaProducer, *record: Any, **fields: Any) -> Any:
        if not others:
            return send(producer, *record, **fields)
        with closing(new_sync_producer(settings, transactional_id=others.pop())) as other:
            other.init_transactions()
        sent = send(producer, *record, **fields)
        eventually(producer._transaction_manager.has_error, what="the producer has heard of it")
        return sent

    monkeypatch.setattr(KafkaProducer, "send", overtaken_once)
    made = announce(settings, random_version(settings.registry, items=5))
    eventually(lambda: all_announcements(settings) == [made], what="the announcement is read")
    assert [each.epoch for each in written(settings)] == [1]


@pytest.mark.parametrize("is_committed", [True, False])
def test_an_announcement_whose_end_is_unclear_is_made_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, is_committed: bool
) -> None:
    """The broker has answered the end of a transaction with an error that says nothing."""
    prepare_topics(settings)
    commit, failures = KafkaProducer.commit_transaction, [KafkaError("Unhandled error in EndTxnResponse")]

    def fails_once(producer: KafkaProducer) -> None:
        if not failures or is_committed:
            commit(producer)
        if failures:
            raise failures.pop()

    monkeypatch.setattr(KafkaProducer, "commit_transaction", fails_once)
    made = announce(settings, random_version(settings.registry, items=5))
    eventually(lambda: all_announcements(settings) == [made], what="the announcement is read")
    assert [each.epoch for each in written(settings)] == [1]


def test_a_reader_that_is_asked_again_reads_on_and_hears_of_withdrawals(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_topics(settings)
    version = random_version(settings.registry, items=5)
    decode = Mock(side_effect=decode_announcement)
    monkeypatch.setattr(announcing, "decode_announcement", decode)
    with closing(AnnouncementReader(settings)) as reader:
        assert reader.all() == []
        made = [announce(settings, version) for _ in range(2)]
        decode.reset_mock()  # whoever announces reads what is there
        eventually(lambda: reader.all() == made, what="both announcements are read")
        assert decode.call_count == 4, "two records of each, once"
        withdraw(settings, [b"epoch-1"])
        eventually(lambda: reader.all() == made[1:], what="one is withdrawn")
        assert decode.call_count == 4


def test_a_reader_begins_anew_after_a_failure_and_with_a_topic_that_was_made_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_topics(settings)
    version = random_version(settings.registry, items=5)
    with closing(AnnouncementReader(settings)) as reader:
        first = announce(settings, version)
        with monkeypatch.context() as patched:
            patched.setattr(announcing, "records_to_end", Mock(side_effect=NotReadInTime("late")))
            with pytest.raises(NotReadInTime):
                reader.all()
        eventually(lambda: reader.all() == [first], what="the announcement is read")
        announce(settings, version)
        eventually(lambda: len(reader.all()) == 2, what="both announcements are read")
        make_again(settings, settings.topics.model_versions)
        other = announce(settings, random_version(settings.registry, items=5, seed=1))
        assert other.epoch == 1
        eventually(lambda: reader.all() == [other], what="what was announced before is forgotten")


def make_again(settings: Settings, topic: str) -> None:
    """Delete a topic, and let Eddy create it."""
    with admin_client(settings) as admin:
        admin.delete_topics([topic])
        eventually(lambda: topic not in admin.list_topics(), what="the topic is gone")
    prepare_topics(settings)


def test_who_announces_a_version_that_cannot_be_recorded_hears_that_it_is_live(settings: Settings) -> None:
    version = random_version(settings.registry, items=5)
    Path(settings.registry / "decisions").touch()  # where a folder should be
    with pytest.raises(EddyError, match=rf"{version.id} is live as epoch 1, but there is no record of it"):
        make_live(settings, [(version, 100)])
    live = live_announcement(settings)
    assert live is not None
    assert live.version == version.id
