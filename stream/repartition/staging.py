"""The topic `repartition`: rows, item statistics and unread events by their new partition, while the topics
that they came from are made again; and notes on how far that is.

For N new partitions it has 3 N + 1: N of rows (as they were), N of statistics, N of events, and the notes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import msgspec
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition

from eddy.models.errors import EddyError
from eddy.models.untrusted import Unreadable, decoded
from eddy.stream.kafka.producers import send_all
from eddy.stream.kafka.reader import Records, read_to_end
from eddy.stream.records.messages import Message
from eddy.stream.records.partitioner import partition_of
from eddy.stream.records.settings import Settings
from eddy.stream.repartition.topics import Configs, Topics

ROWS, STATISTICS, EVENTS = range(3)

Record: TypeAlias = ConsumerRecord[bytes, bytes]


class Plan(msgspec.Struct):
    """What is set aside."""

    events_id: str
    """of the old topic, hexadecimal"""
    configs: Configs
    """of the old topics"""
    rows: int = 0
    carried: int = 0
    """unread events"""


class Notes(msgspec.Struct):
    """How far a repartition is."""

    plan: Plan | None = None
    """as of its beginning"""
    complete: bool = False
    """everything is set aside"""
    switched: bool = False
    """the new topics hold all rows and statistics"""


_decode_notes = msgspec.json.Decoder(Notes).decode


class Staging:
    """Writing to the topic and reading it; one process at a time."""

    def __init__(
        self, settings: Settings, topics: Topics, producer: AIOKafkaProducer, partitions: int
    ) -> None:
        self._settings, self._topics, self._producer = settings, topics, producer
        self.partitions = partitions

    def create(self) -> None:
        """Make it, empty."""
        self._topics.delete([self._topics.aside])
        self._topics.create_aside(3 * self.partitions + 1)

    def delete(self) -> None:
        """It is not needed any more."""
        self._topics.delete([self._topics.aside])

    async def notes(self) -> Notes:
        """The newest. Errors: EddyError when it was made for another number of partitions."""
        found = self._topics.partitions(self._topics.aside)
        notes = Notes()
        if not found:
            return notes
        if found != 3 * self.partitions + 1:
            raise EddyError(
                f"a repartition to {(found - 1) // 3} partitions is unfinished: run that one again first"
            )

        async def take(records: Records) -> None:
            nonlocal notes
            try:
                notes = decoded(_decode_notes, records[-1].value)
            except Unreadable as reason:
                place = f"topic {self._topics.aside}, partition {3 * self.partitions}"
                raise EddyError(
                    f"{place}: the last record does not say how far the repartition is ({reason}); write the "
                    "one before it there again"
                ) from None

        await self._read(3 * self.partitions, take)
        return notes

    async def note(self, notes: Notes) -> None:
        """Write it down."""
        value = msgspec.json.encode(notes)
        await self._producer.send_and_wait(self._topics.aside, value, partition=3 * self.partitions)

    async def put_rows(self, rows: Sequence[Message]) -> None:
        """Rows by the new home of their users."""
        by_home: dict[int, list[Message]] = {}
        for home, row in zip(self._homes([user or b"" for user, _ in rows]), rows, strict=True):
            by_home.setdefault(home, []).append(row)
        for home, some in by_home.items():
            await self.put(ROWS, home, some)

    def _homes(self, keys: Sequence[bytes]) -> list[int]:
        homes: list[int] = partition_of(keys, self.partitions, self._settings.partitioner).tolist()
        return homes

    async def put(self, section: int, home: int, messages: Sequence[Message]) -> None:
        """Messages of one new partition."""
        target = section * self.partitions + home
        await asyncio.gather(*await send_all(self._producer, self._topics.aside, target, messages))

    async def put_events(self, number: int, records: Sequence[Record]) -> None:
        """Events of an old partition, in order, by the new home of their keys (none: of their partition)."""
        targets = self._homes([record.key or b"" for record in records])
        sent = []
        for record, home in zip(records, targets, strict=True):
            target = number % self.partitions if record.key is None else home
            sent.append(await self._send(self._topics.aside, EVENTS * self.partitions + target, record, []))
        await asyncio.gather(*sent)

    async def move(self, section: int, home: int, topic: str, change: Callable[[Any], list[Message]]) -> None:
        """Write what is aside for a new partition to `topic`, changed."""

        async def take(records: Records) -> None:
            messages = change([(record.key, record.value) for record in records])
            await asyncio.gather(*await send_all(self._producer, topic, home, messages))

        await self._read(section * self.partitions + home, take)

    async def move_events(self, home: int, header: str) -> None:
        """Append events to their new partition, marked with `header`; those that are there already stay."""
        there = 0

        async def count(_: TopicPartition, records: Records) -> None:
            nonlocal there
            there += sum(any(name == header for name, _ in record.headers) for record in records)

        await read_to_end(self._settings, self._topics.events, [home], count)

        async def take(records: Records) -> None:
            nonlocal there
            known, there = min(there, len(records)), max(there - len(records), 0)
            events = self._topics.events
            sent = [await self._send(events, home, record, [(header, b"")]) for record in records[known:]]
            await asyncio.gather(*sent)

        await self._read(EVENTS * self.partitions + home, take)

    async def _send(
        self, topic: str, target: int, record: Record, headers: list[tuple[str, bytes]]
    ) -> Awaitable[object]:
        sent: Awaitable[object] = await self._producer.send(
            topic, record.value, record.key, partition=target, headers=[*record.headers, *headers]
        )
        return sent

    async def _read(self, number: int, take: Callable[[Records], Awaitable[None]]) -> None:
        async def take_any(_: TopicPartition, records: Records) -> None:
            await take(records)

        await read_to_end(self._settings, self._topics.aside, [number], take_any)


__all__ = ["EVENTS", "ROWS", "STATISTICS", "Notes", "Plan", "Staging"]
