"""The topic `repartition`: rows, item statistics and unread events by their new partition, while the topics
that they came from are created anew, and notes on how far that is.

For N new partitions it has 3 N + 1: N with rows (unchanged), N with statistics, N with events, one with
notes.
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
"""The sections of the topic, of N partitions each."""

Record: TypeAlias = ConsumerRecord[bytes, bytes]


class Plan(msgspec.Struct):
    """What the topic holds."""

    events_id: str
    """id of the old topic `events`, hexadecimal"""
    configs: Configs
    """settings of the old topics"""
    rows: int = 0
    unread_moved: int = msgspec.field(default=0, name="carried")
    """events that no row includes yet"""


class Notes(msgspec.Struct):
    """How far a repartition is."""

    plan: Plan | None = None
    """as of its beginning"""
    complete: bool = False
    """the topic holds everything that is to last"""
    switched: bool = False
    """the new topics hold all rows and statistics"""


_decode_notes = msgspec.json.Decoder(Notes).decode


class Staging:
    """Writes the topic and reads it, for one process at a time."""

    def __init__(
        self, settings: Settings, topics: Topics, producer: AIOKafkaProducer, partitions: int
    ) -> None:
        self._settings, self._topics, self._producer = settings, topics, producer
        self.partitions = partitions

    def create(self) -> None:
        """Create the topic, empty."""
        self.delete()
        self._topics.create_staging(3 * self.partitions + 1)

    def delete(self) -> None:
        """Delete the topic, if it exists."""
        self._topics.delete([self._topics.staging])

    async def notes(self) -> Notes:
        """The newest notes. Errors: EddyError when the topic was created for another number of partitions."""
        existing = self._topics.partitions(self._topics.staging)
        notes = Notes()
        if not existing:
            return notes
        if existing != 3 * self.partitions + 1:
            raise EddyError(
                f"a repartition to {(existing - 1) // 3} partitions is unfinished: run that one again first"
            )

        async def take(records: Records) -> None:
            nonlocal notes
            try:
                notes = decoded(_decode_notes, records[-1].value)
            except Unreadable as reason:
                raise EddyError(
                    f"topic {self._topics.staging}, partition {3 * self.partitions}: the last record does "
                    f"not say how far the repartition is ({reason}); write the one before it there again"
                ) from None

        await self._read(3 * self.partitions, take)
        return notes

    async def write_notes(self, notes: Notes) -> None:
        """Append notes, which then are the newest."""
        value = msgspec.json.encode(notes)
        await self._producer.send_and_wait(self._topics.staging, value, partition=3 * self.partitions)

    async def put_rows(self, rows: Sequence[Message]) -> None:
        """Append rows to the section ROWS, by the new partition of their users."""
        by_partition: dict[int, list[Message]] = {}
        targets = self._partitions_of([user or b"" for user, _ in rows])
        for target, row in zip(targets, rows, strict=True):
            by_partition.setdefault(target, []).append(row)
        for target, messages in by_partition.items():
            await self.put(ROWS, target, messages)

    def _partitions_of(self, keys: Sequence[bytes]) -> list[int]:
        numbers: list[int] = partition_of(keys, self.partitions, self._settings.partitioner).tolist()
        return numbers

    async def put(self, section: int, target: int, messages: Sequence[Message]) -> None:
        """Append messages of one new partition to a section."""
        number = section * self.partitions + target
        await asyncio.gather(*await send_all(self._producer, self._topics.staging, number, messages))

    async def put_events(self, source: int, records: Sequence[Record]) -> None:
        """Append events of the old partition `source`, in order, by the new partition of their keys.

        Records without a key go by their old partition's number.
        """
        targets = self._partitions_of([record.key or b"" for record in records])
        sent = []
        for record, by_key in zip(records, targets, strict=True):
            target = source % self.partitions if record.key is None else by_key
            number = EVENTS * self.partitions + target
            sent.append(await self._send(self._topics.staging, number, record, []))
        await asyncio.gather(*sent)

    async def move(
        self, section: int, target: int, topic: str, change: Callable[[Any], list[Message]]
    ) -> None:
        """Write a section's messages of a new partition to `topic`, changed by `change`."""

        async def take(records: Records) -> None:
            messages = change([(record.key, record.value) for record in records])
            await asyncio.gather(*await send_all(self._producer, topic, target, messages))

        await self._read(section * self.partitions + target, take)

    async def move_events(self, target: int, header: str) -> None:
        """Append the events of a new partition to `events`, marked with `header`, but for those that an
        interrupted run has appended already.
        """
        appended = 0

        async def count(_: TopicPartition, records: Records) -> None:
            nonlocal appended
            appended += sum(any(name == header for name, _ in record.headers) for record in records)

        await read_to_end(self._settings, self._topics.events, [target], count)

        async def take(records: Records) -> None:
            nonlocal appended
            skipped, appended = min(appended, len(records)), max(appended - len(records), 0)
            events = self._topics.events
            sent = [await self._send(events, target, record, [(header, b"")]) for record in records[skipped:]]
            await asyncio.gather(*sent)

        await self._read(EVENTS * self.partitions + target, take)

    async def _send(
        self, topic: str, number: int, record: Record, headers: list[tuple[str, bytes]]
    ) -> Awaitable[object]:
        sent: Awaitable[object] = await self._producer.send(
            topic, record.value, record.key, partition=number, headers=[*record.headers, *headers]
        )
        return sent

    async def _read(self, number: int, take: Callable[[Records], Awaitable[None]]) -> None:
        async def take_any(_: TopicPartition, records: Records) -> None:
            await take(records)

        await read_to_end(self._settings, self._topics.staging, [number], take_any)


__all__ = ["EVENTS", "ROWS", "STATISTICS", "Notes", "Plan", "Staging"]
