"""Clients of a cluster, in memory or real, on which the rules of `tests.support.kafka_contract` are tried."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Protocol

from aiokafka import AIOKafkaProducer, TopicPartition

from eddy.stream.kafka.clients import aiokafka_config
from eddy.stream.kafka.producers import new_producer, send_all, stop_producers
from eddy.stream.records.messages import Message
from eddy.stream.records.settings import Settings
from eddy.stream.worker.checkpoint import CheckpointData, EncodedCheckpoint, write_partition

PARTITIONS = 2
WITHIN_S = 60.0
"""How long a rule may take; a real broker needs seconds."""

CLOSE_S, SETTLES_S = 5.0, 10.0


class GroupMember(Protocol):
    """A member of the group that reads `events`."""

    owned: set[int]
    """the partitions that it was given when it joined"""

    async def commit(self, offsets: Mapping[int, int]) -> bool:
        """Commit offsets by partition, in the generation in which it joined; False if it is refused."""

    async def position(self, number: int) -> int:
        """From where it would read one of its partitions."""


async def _becomes(ask: Callable[[], Awaitable[object]], expected: object) -> None:
    """Ask until the answer is what is expected, or SETTLES_S have passed."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SETTLES_S
    while (answer := await ask()) != expected and loop.time() < deadline:
        await asyncio.sleep(0.05)
    assert answer == expected


class Reader:
    """A consumer of some partitions."""

    def __init__(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self.consumer, self.partitions = consumer, partitions
        consumer.assign(partitions)

    async def ends_at(self, expected: Mapping[int, int]) -> None:
        """Assert that it may read each partition up to there. A real broker ends a transaction a moment after
        it has said so.
        """
        await _becomes(self._ends, expected)

    async def reads(self, expected: Mapping[int, list[tuple[int, str]]]) -> None:
        """Assert that these are offset and value of all that it may read of these partitions; likewise."""

        async def of_these() -> dict[int, list[tuple[int, str]]]:
            records = await self.read()
            return {number: records[number] for number in expected}

        await _becomes(of_these, expected)

    async def _ends(self) -> dict[int, int]:
        return {tp.partition: end for tp, end in (await self.consumer.end_offsets(self.partitions)).items()}

    async def read(self, most: int = 5_000) -> dict[int, list[tuple[int, str]]]:
        """Offset and value of all that it may read now from the beginning, by partition; at most so many
        records at once.
        """
        await self.consumer.seek_to_beginning(*self.partitions)
        end = await self.consumer.end_offsets(self.partitions)
        records: dict[int, list[tuple[int, str]]] = {tp.partition: [] for tp in self.partitions}
        while any([await self.consumer.position(tp) < end[tp] for tp in self.partitions]):
            for tp, batch in (await self.consumer.getmany(timeout_ms=200, max_records=most)).items():
                assert len(batch) <= most
                records[tp.partition] += [(record.offset, record.value.decode()) for record in batch]
        return records


class Clients:
    """Clients of a cluster on which a rule is tried; all of them end with it."""

    def __init__(
        self,
        settings: Settings,
        consumer_class: Callable[..., Any],
        join: Callable[[AsyncExitStack], Awaitable[GroupMember]],
        committed: Callable[[], Awaitable[dict[int, int]]],
    ) -> None:
        """`join`: adds a member to the group; the other members are told nothing of it. `committed`: the
        group's offsets of `events`, by partition.
        """
        self.topics, self.committed = settings.topics, committed
        self._settings, self._consumer_class, self._join = settings, consumer_class, join
        self._ending = AsyncExitStack()

    async def producer(self, id_: str | None = None) -> AIOKafkaProducer:
        """A producer, transactional if it has an id."""
        producer = new_producer(self._settings, id_ and f"{self._settings.group}-{id_}")
        self._ending.push_async_callback(stop_producers, [producer], CLOSE_S)
        await producer.start()
        return producer

    async def reader(self, committed: bool = True, partitions: list[TopicPartition] | None = None) -> Reader:
        """A reader of committed records, or of all, in partitions, or in those of `user-state`."""
        if partitions is None:
            partitions = [TopicPartition(self.topics.user_state, number) for number in range(PARTITIONS)]
        consumer = self._consumer_class(
            **aiokafka_config(self._settings),
            isolation_level="read_committed" if committed else "read_uncommitted",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        await consumer.start()
        self._ending.push_async_callback(consumer.stop)
        return Reader(consumer, partitions)

    async def member(self) -> GroupMember:
        """A further member of the group, of which the others hear nothing."""
        return await self._join(self._ending)

    async def write(self, producer: AIOKafkaProducer, number: int, *values: str) -> int:
        """Write to a partition of `user-state`; returns the offset of the first record once the cluster has
        confirmed all.
        """
        messages = [(f"key-{value}".encode(), value.encode()) for value in values]
        sent = await send_all(producer, self.topics.user_state, number, messages)
        return int((await asyncio.gather(*sent))[0].offset)

    async def checkpoint(self, producer: AIOKafkaProducer, number: int, *values: str) -> int:
        """Write as a checkpoint does; returns the offset from which a restore reads on. Errors:
        PartitionLost.
        """
        data = CheckpointData(number, 0, list, list)
        rows: list[Message] = [(f"key-{value}".encode(), value.encode()) for value in values]
        await write_partition(producer, self.topics, data, EncodedCheckpoint(rows, []))
        return data.changelog_end


Rule = Callable[[Clients], Awaitable[None]]


async def keep(rule: Rule, clients: Clients) -> None:
    """Try a rule. Errors: AssertionError where it does not hold."""
    async with asyncio.timeout(WITHIN_S), clients._ending:
        await rule(clients)
