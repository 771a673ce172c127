"""Writing to Kafka in batches: records grouped by partition, whole batches sent at once."""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import RecordMetadata

from eddy.stream.kafka.clients import aiokafka_config
from eddy.stream.records.messages import Message
from eddy.stream.records.settings import Settings
from eddy.stream.records.trace_context import Headers

_NO_HEADERS: Headers = []

BATCH_BYTES = 512 << 10
"""The largest batch of messages that is sent at once."""


def new_producer(settings: Settings, transactional_id: str | None = None) -> AIOKafkaProducer:
    """An idempotent producer; with a transactional id one that, when it starts, fences older producers of
    that id.
    """
    return AIOKafkaProducer(
        **aiokafka_config(settings),
        acks="all",
        enable_idempotence=True,
        transactional_id=transactional_id,
        transaction_timeout_ms=30_000,
        compression_type="snappy",  # aiokafka's lz4 takes 18 times as long for a row, its zstd 5 times
        max_batch_size=BATCH_BYTES,
        max_request_size=16 << 20,
        linger_ms=0,
    )


async def stop_producers(producers: Iterable[AIOKafkaProducer], within_s: float) -> None:
    """Close producers side by side, for at most `within_s`; those that take longer are given up.

    A producer that fails to close, as a fenced one does, holds up no other.
    """

    async def stop(producer: AIOKafkaProducer) -> None:
        with suppress(Exception):
            await producer.stop()

    stops = [asyncio.ensure_future(stop(producer)) for producer in producers]
    if stops:
        try:
            await asyncio.wait(stops, timeout=within_s)
        finally:
            for stopping in stops:
                stopping.cancel()


def fatal_error(producer: AIOKafkaProducer) -> BaseException | None:
    """The error after which a transactional producer refuses all work, None while there is none. aiokafka
    gives this error to the calls that are under way, and answers later ones with IllegalOperation or
    AssertionError.
    """
    transaction = producer._txn_manager
    return transaction.wait_for_transaction_end().exception() if transaction.is_fatal_error() else None


async def send_all(
    producer: AIOKafkaProducer,
    topic: str,
    partition: int,
    messages: Iterable[Message],
    headers: Mapping[int, Headers] = MappingProxyType({}),
) -> list["asyncio.Future[RecordMetadata]"]:
    """Queue messages for one partition in as few batches as they fit into. headers: of those messages that
    have any, by their place.

    Returns a future for each batch, which is done when the cluster has confirmed it.
    """
    futures = []
    batch: BatchBuilder = producer.create_batch()
    for place, (key, value) in enumerate(messages):
        added = headers.get(place, _NO_HEADERS)
        if batch.append(key=key, value=value, timestamp=None, headers=added) is None:
            futures.append(await _send(producer, batch, topic, partition))
            batch = producer.create_batch()
            batch.append(key=key, value=value, timestamp=None, headers=added)
    if batch.record_count():
        futures.append(await _send(producer, batch, topic, partition))
    return futures


async def _send(
    producer: AIOKafkaProducer, batch: BatchBuilder, topic: str, partition: int
) -> "asyncio.Future[RecordMetadata]":
    batch.close()
    future: asyncio.Future[RecordMetadata] = await producer.send_batch(batch, topic, partition=partition)
    return future
