"""A follower of a topic shares its thread with others who wait for their turn."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaProducer, TopicPartition

from eddy.stream.kafka.clients import aiokafka_config
from eddy.stream.kafka.reader import Follower, Records
from eddy.stream.records.settings import Settings

RECORDS = 1_800


def test_a_follower_is_handed_what_was_written_at_once_a_few_hundred_records_at_a_time(
    installed: Settings,
) -> None:
    topic = installed.topics.user_state
    taken: list[list[bytes | None]] = []

    async def take(_: TopicPartition, records: Records) -> None:
        taken.append([record.key for record in records])

    async def follow() -> None:
        producer = AIOKafkaProducer(**aiokafka_config(installed))
        await producer.start()
        sent = [await producer.send(topic, b"-", b"%d" % n, partition=0) for n in range(RECORDS)]
        await asyncio.gather(*sent)
        await producer.stop()
        follower = Follower(installed, topic, [0], take)
        running = asyncio.create_task(follower.run())
        await follower.caught_up()
        running.cancel()

    asyncio.run(follow())
    assert [key for keys in taken for key in keys] == [b"%d" % n for n in range(RECORDS)]
    assert max(map(len, taken)) <= 500
