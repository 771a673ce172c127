"""Every codec of Kafka is read by each client in use: kafka-python (ingest, export, announce), and aiokafka
(workers and servers).
"""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from eddy.stream.event_log.export import export
from eddy.stream.ingest.ingest import Counts, ingest
from eddy.stream.ingest.mapping import parse_map
from eddy.stream.kafka.clients import admin_client, aiokafka_config
from eddy.stream.kafka.reader import Records, read_to_end
from eddy.stream.kafka.topics import ensure_topics
from eddy.stream.kafka.versions import live_announcement
from eddy.stream.records.schema import Announcement, Event, encode
from eddy.stream.records.settings import Settings
from tests.support.kafka_clusters import MakeSettings

EVENT = Event("ada", "heat", 1_700_000_000_000, event_id="e")


async def write(settings: Settings, codec: str, topic: str, key: bytes, value: bytes) -> None:
    producer = AIOKafkaProducer(**aiokafka_config(settings), compression_type=codec)
    await producer.start()
    await producer.send_and_wait(topic, value, key, partition=0)
    await producer.stop()


async def read(settings: Settings, topic: str) -> list[bytes | None]:
    values: list[bytes | None] = []

    async def take(_: TopicPartition, records: Records) -> None:
        values.extend(record.value for record in records)

    await read_to_end(settings, topic, [0], take)
    return values


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_each_client_reads_what_was_written_with(
    codec: str, make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings, source = make_settings(partitions=1), f"clicks-{uuid.uuid4().hex[:8]}"
    announcement = Announcement(1, "v000001-00000000", "/nowhere", 0)
    with admin_client(settings) as admin:
        ensure_topics(admin, settings)
        admin.create_topics({source: {"num_partitions": 1, "replication_factor": 1}})
        admin.wait_for_topics([source])
    for topic, value in (
        (settings.topics.events, encode(EVENT)),
        (source, encode(EVENT)),
        (settings.topics.model_versions, encode(announcement)),
    ):
        asyncio.run(write(settings, codec, topic, b"ada", value))
        assert asyncio.run(read(settings, topic)) == [value]
    assert export(settings, tmp_path / "log") == 1
    fields = parse_map("user_id=user_id,item_id=item_id,timestamp=timestamp")
    assert asyncio.run(ingest(settings, source, fields, until_end=True)) == Counts(written=1)
    assert live_announcement(settings) == announcement
