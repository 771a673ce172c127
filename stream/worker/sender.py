"""Recommendations and dead letters on their way to Kafka beside the engine's next batches: in order, and a
bounded number of batches.
"""

import asyncio
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor

from aiokafka import AIOKafkaProducer

from eddy.stream.kafka.producers import send_all
from eddy.stream.records.settings import TopicNames
from eddy.stream.worker.event_traces import headers_of_answers
from eddy.stream.worker.micro_batch import BatchOutput

BATCHES = 4
"""Micro-batches that may wait for their scores or for room in the producer; beyond that the engine waits,
too.
"""


class Sender:
    """Sends each batch's messages after those of the batch before."""

    def __init__(self, producer: AIOKafkaProducer, topics: TopicNames) -> None:
        self._producer, self._topics = producer, topics
        self._turn = asyncio.Lock()
        self._room = asyncio.Semaphore(BATCHES)
        self._unconfirmed: list[asyncio.Task[None]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="eddy-answers")

    async def room(self) -> None:
        """Wait until there is room for another batch."""
        async with self._room:
            pass

    def put_batch(self, output: BatchOutput) -> None:
        """Begin to send the messages of a batch."""
        sending = asyncio.create_task(self._send(output))
        sending.add_done_callback(lambda _: output.leave())  # a checkpoint that is abandoned cancels it
        self._unconfirmed.append(sending)

    def take_unconfirmed(self) -> Awaitable[object]:
        """Ends when the messages of all batches since the last call are confirmed. Errors: the producer's."""
        unconfirmed, self._unconfirmed = self._unconfirmed, []
        return asyncio.gather(*unconfirmed)

    def close(self) -> None:
        """End the thread on which messages are made."""
        self._thread.shutdown()

    # Station 7: durable as soon as `recommendations` confirms.
    async def _send(self, output: BatchOutput) -> None:
        confirmations: list[asyncio.Future[object]] = []
        async with self._room, self._turn:
            answers = await asyncio.get_running_loop().run_in_executor(self._thread, output.answers)
            output.leave()
            for partition, messages in answers.items():
                topic, traced = self._topics.recommendations, output.traced_in(partition)
                headers = headers_of_answers(messages, traced)
                confirmations += await send_all(self._producer, topic, partition, messages, headers)
            for letter in output.letters:
                confirmations.append(await self._producer.send(self._topics.dead_letters, **letter))
        await asyncio.gather(*confirmations)
        for event in output.traced:
            event.note("answered")
