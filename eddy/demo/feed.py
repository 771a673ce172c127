"""The records that the demo writes to Kafka, and counts of the records in a topic."""

import asyncio

from kafka import TopicPartition

from eddy.models.logs.events import Events, Items
from eddy.stream.feed import feed
from eddy.stream.kafka.clients import new_consumer
from eddy.stream.kafka.producers import new_producer, send_all
from eddy.stream.records.messages import Message
from eddy.stream.records.schema import Item, encode
from eddy.stream.records.settings import Settings

MALFORMED: tuple[bytes, ...] = (
    b"not JSON",
    b'{"user_id": "1", "timestamp": 1362062307000}',
    b'{"user_id": "1", "item_id": "2", "timestamp": "yesterday"}',
)


class Feed:
    """The demo as a producer; `sent` counts the valid events that the broker has confirmed."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.sent = 0

    async def events(self, events: Events, rate: float | None = None) -> None:
        """Replay a log, `rate` events per second (None: as fast as it goes)."""
        self.sent += await feed(self.settings, events, rate)

    async def items(self, items: Items) -> None:
        """Write titles and genres to `items`."""
        messages: list[Message] = [
            (item.encode(), encode(Item(item, title, items.genres.get(item, []))))
            for item, title in items.title.items()
        ]
        await self._write(self.settings.topics.items, messages)

    async def malformed(self) -> None:
        """Write records that are no events, in spite of which the stream must go on."""
        await self._write(self.settings.topics.events, [(b"1", value) for value in MALFORMED])

    async def _write(self, topic: str, messages: list[Message]) -> None:
        producer = new_producer(self.settings)
        await producer.start()
        try:
            await asyncio.gather(*await send_all(producer, topic, 0, messages))
        finally:
            await producer.stop()

    def count(self, topic: str, partitions: int) -> int:
        """Records in a topic, by its end offsets."""
        consumer = new_consumer(self.settings)
        try:
            tps = [TopicPartition(topic, number) for number in range(partitions)]
            return int(sum(consumer.end_offsets(tps).values()))
        finally:
            consumer.close()
