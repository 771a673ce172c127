"""The topics as an operator finds them: made once, checked ever after, told apart by their ids."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from eddy.models.errors import EddyError
from eddy.stream.kafka.clients import admin_client, client_config
from eddy.stream.kafka.topics import ensure_topics, topic_ids, topic_specs
from eddy.stream.records.settings import Settings
from tests.support.waiting import eventually


def test_topics_are_made_as_specified_and_making_them_again_changes_nothing(
    admin: KafkaAdminClient, settings: Settings
) -> None:
    ensure_topics(admin, settings)
    names = [spec.name for spec in topic_specs(settings)]
    before = topic_ids(admin, names)
    ensure_topics(admin, settings)
    assert topic_ids(admin, names) == before
    partitions = {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics(names)}
    assert partitions == {spec.name: spec.partitions for spec in topic_specs(settings)}


def test_two_processes_may_make_the_topics_at_once(settings: Settings) -> None:
    def make(_: int) -> None:
        with admin_client(settings) as own:
            ensure_topics(own, settings)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(make, range(4)))


def test_another_partition_count_is_refused_and_the_error_says_how_to_go_on(
    admin: KafkaAdminClient, settings: Settings
) -> None:
    ensure_topics(admin, settings)
    with pytest.raises(EddyError, match=r"events has 4 partitions, 5 .*EDDY_PARTITIONS=4.*eddy repartition"):
        ensure_topics(admin, settings.replace(partitions=5))


@pytest.mark.parametrize(
    ("topic", "key", "value"),
    [
        ("user_state", "cleanup.policy", "compact,delete"),  # would forget the users who stay away
        ("events", "cleanup.policy", "compact"),  # would keep one event of each user
        ("events", "message.timestamp.type", "CreateTime"),  # would delete old event times at once
        ("dead_letters", "max.message.bytes", "1000"),  # would stop at the first bad record
    ],
)
def test_a_setting_that_would_lose_data_is_refused_with_the_command_that_mends_it(
    admin: KafkaAdminClient, settings: Settings, topic: str, key: str, value: str
) -> None:
    ensure_topics(admin, settings)
    name = getattr(settings.topics, topic)
    resource = ConfigResource(ConfigResourceType.TOPIC, name)
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, {key: value})])
    eventually(lambda: admin.describe_configs([resource])["topic"][name].get(key, {}).get("value") == value)
    with pytest.raises(EddyError, match=f"{name} has {key}={value}.*--add-config {key}="):
        ensure_topics(admin, settings)


def test_a_topic_that_was_made_again_has_another_id(admin: KafkaAdminClient, settings: Settings) -> None:
    ensure_topics(admin, settings)
    events = settings.topics.events
    first = topic_ids(admin, [events])[events]
    admin.delete_topics([events])
    eventually(lambda: events not in admin.list_topics())
    ensure_topics(admin, settings)
    assert topic_ids(admin, [events])[events] != first


def test_the_id_of_a_missing_topic_is_an_error_that_names_it(admin: KafkaAdminClient) -> None:
    with pytest.raises(EddyError, match="nowhere does not exist"):
        topic_ids(admin, ["nowhere"])


def test_an_old_event_is_stamped_with_its_arrival_so_that_retention_spares_it(
    admin: KafkaAdminClient, settings: Settings
) -> None:
    ensure_topics(admin, settings)
    started_ms = time.time() * 1000
    producer = KafkaProducer(**client_config(settings))
    producer.send(settings.topics.events, b"{}", timestamp_ms=1_362_062_307_000, partition=0)
    producer.close()
    consumer = KafkaConsumer(
        settings.topics.events,
        auto_offset_reset="earliest",
        consumer_timeout_ms=20_000,
        **client_config(settings),
    )
    record = next(consumer)
    consumer.close()
    assert record.timestamp >= started_ms - 1000
