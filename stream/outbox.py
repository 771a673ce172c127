"""Recommendations and dead letters on their way to Kafka, beside the engine's next batch: in order, and
bounded.
"""

import asyncio
from collections.abc import Awaitable

from aiokafka import AIOKafkaProducer

from stream.applying import Applied
from stream.producers import send_all
from stream.settings import TopicNames

BATCHES = 2
"""Micro-batches whose messages may wait for room in the producer: then the engine waits, too."""


class Outbox:
    """Sends a batch's messages after those of the batch before."""

    def __init__(self, producer: AIOKafkaProducer, topics: TopicNames) -> None:
        self._producer, self._topics = producer, topics
        self._turn = asyncio.Lock()
        self._room = asyncio.Semaphore(BATCHES)
        self._unconfirmed: list[asyncio.Task[None]] = []

    async def room(self) -> None:
        """Wait until another batch's messages may come."""
        async with self._room:
            pass

    def put(self, applied: Applied) -> None:
        """Take over the messages of a batch."""
        self._unconfirmed.append(asyncio.create_task(self._send(applied)))

    def take_unconfirmed(self) -> Awaitable[object]:
        """Ends when everything that was put since the last call is confirmed. Errors: the producer's."""
        unconfirmed, self._unconfirmed = self._unconfirmed, []
        return asyncio.gather(*unconfirmed)

    async def _send(self, applied: Applied) -> None:
        confirmations: list[asyncio.Future[object]] = []
        async with self._room, self._turn:
            for partition, messages in applied.answers.items():
                topic = self._topics.recommendations
                confirmations += await send_all(self._producer, topic, partition, messages)
            for letter in applied.letters:
                confirmations.append(await self._producer.send(self._topics.dead_letters, **letter))
        await asyncio.gather(*confirmations)
