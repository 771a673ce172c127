"""A checkpoint of a fenced partition: whenever the producer learns of it, only the partition is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import IllegalOperation, ProducerFenced

from eddy.stream.kafka.producers import fatal_error
from eddy.stream.records.settings import Settings
from eddy.stream.worker.checkpoint import CheckpointData, EncodedCheckpoint, PartitionLost, write_partition

TOPICS = Settings().topics
DATA = CheckpointData(0, 7, list, list)
ENCODED = EncodedCheckpoint([(b"user", b"row")], [(b"0/journal/1", b"counts")])


async def new_transactional_producer() -> Any:
    """aiokafka's own, with an id as if from a cluster, and topics of one partition."""
    producer = AIOKafkaProducer(bootstrap_servers="127.0.0.1:1", transactional_id="group-0")
    producer._txn_manager.set_pid_and_epoch(1, 0)

    async def know_topic(_: str) -> None:
        """Nothing to wait for."""

    producer.client._wait_on_metadata = know_topic
    producer._partition = lambda *_: 0
    return producer


async def fail(producer: Any, error: Exception) -> None:
    """What aiokafka does when its sender meets an error that it cannot recover from."""

    async def raise_error() -> None:
        raise error

    task = asyncio.ensure_future(raise_error())
    await asyncio.wait([task])
    producer._sender._fail_all(task)


@pytest.mark.parametrize("batches_before", [None, 0, 1])
@pytest.mark.parametrize(
    ("error", "outcomes"),
    [(ProducerFenced, PartitionLost), (TimeoutError, (TimeoutError, IllegalOperation, AssertionError))],
)
def test_an_error_between_two_batches_is_told_as_what_it_was(
    batches_before: int | None, error: type[Exception], outcomes: type[Exception]
) -> None:
    """Before the transaction, or before its first or second batch."""

    async def run() -> None:
        producer = await new_transactional_producer()
        send_batch = producer.send_batch
        confirmations: list[asyncio.Future[Any]] = []

        async def send(*arguments: Any, **options: Any) -> Any:
            if len(confirmations) == batches_before:
                await fail(producer, error())
            confirmations.append(await send_batch(*arguments, **options))
            return confirmations[-1]

        producer.send_batch = send
        if batches_before is None:
            producer._txn_manager.begin_transaction()
            await fail(producer, error())
        with pytest.raises(outcomes):
            await write_partition(producer, TOPICS, DATA, ENCODED)
        assert isinstance(fatal_error(producer), error)
        batches = [batch for queue in producer._message_accumulator._batches.values() for batch in queue]
        unheard = [*confirmations, *(batch._drain_waiter for batch in batches)]
        await asyncio.gather(*unheard, return_exceptions=True)
        producer._closed = True  # nothing was ever connected
        await producer.client.close()

    asyncio.run(run())
