"""The checkpoint: the order in which a batch becomes durable.

1. recommendations and dead letters of the batch are confirmed;
2. per owned partition, side by side, one transaction: rows on `user-state`, the journal on `item-stats`,
names of new
   items on `items`. The producer's transactional id is group-partition, so a paused former owner is fenced;
3. offsets are committed.

A crash between any two leaves offsets behind rows, never ahead: what is read again is recognised by its
offset.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer
from aiokafka.errors import InvalidProducerEpoch, ProducerFenced

from eddy.stream.kafka.producers import send_all
from eddy.stream.records.messages import Message
from eddy.stream.records.settings import TopicNames

STEPS = ("captured", "answered", "written", "committed")


class PartitionLost(Exception):
    """Another worker took the partition over: nothing of it may be written any more."""

    def __init__(self, partition: int) -> None:
        super().__init__(f"partition {partition} was taken over by another worker")
        self.partition = partition


@dataclass
class CheckpointData:
    """What one partition's part of a checkpoint writes, copied out of memory between two batches and encoded
    while the next ones are applied.
    """

    partition: int
    position: int | None
    """offset of the next record to read, None before the first"""
    rows: Callable[[], list[Message]]
    """encodes the rows' copies"""
    statistics: Callable[[], list[Message]]
    names: list[Message]
    changelog_end: int = 0
    """after writing: offset after the last row written"""


@dataclass
class EncodedCheckpoint:
    """A capture as messages."""

    rows: list[Message]
    statistics: list[Message]


@dataclass(frozen=True)
class CheckpointOutcome:
    """What a checkpoint made durable."""

    lost: list[PartitionLost]
    """partitions of which nothing was written; the rows of the others are durable"""
    committed: bool
    """whether their offsets are committed; a group that is rebalancing refuses"""


def encode_checkpoints(captures: Iterable[CheckpointData]) -> list[EncodedCheckpoint]:
    """Not on the event loop: it takes milliseconds."""
    return [EncodedCheckpoint(capture.rows(), capture.statistics()) for capture in captures]


async def write_partition(
    producer: AIOKafkaProducer, topics: TopicNames, capture: CheckpointData, encoded: EncodedCheckpoint
) -> None:
    """Step 2 for one partition. Errors: PartitionLost when fenced; then nothing was written."""
    if not (encoded.rows or encoded.statistics or capture.names):
        return
    try:
        async with producer.transaction():
            rows = await send_all(producer, topics.user_state, capture.partition, encoded.rows)
            others = [
                *await send_all(producer, topics.item_stats, capture.partition, encoded.statistics),
                *await send_all(producer, topics.items, 0, capture.names),
            ]
            written = await asyncio.gather(*rows)
            await asyncio.gather(*others)
        # A batch's metadata names its first record; the tail is read from the last batch on, a few rows
        # twice.
        capture.changelog_end = max((batch.offset for batch in written), default=0)
    except (ProducerFenced, InvalidProducerEpoch):
        raise PartitionLost(capture.partition) from None


async def checkpoint(
    captures: Mapping[int, tuple[AIOKafkaProducer, CheckpointData]],
    topics: TopicNames,
    answers: Awaitable[object],
    commit: Callable[[dict[int, int]], Awaitable[bool]],
    on_step: Callable[[str], None],
) -> CheckpointOutcome:
    """Make captures durable; `answers` ends when the batch's recommendations and dead letters are
    confirmed, and `commit` says whether it could.

    Any failure but those that the outcome tells of is raised and must end the process.
    """
    on_step("captured")
    encoding = asyncio.to_thread(encode_checkpoints, [capture for _, capture in captures.values()])
    encoded, _ = await asyncio.gather(encoding, answers)
    on_step("answered")
    results = await asyncio.gather(
        *(
            write_partition(producer, topics, capture, messages)
            for (producer, capture), messages in zip(captures.values(), encoded, strict=True)
        ),
        return_exceptions=True,
    )
    lost = [result for result in results if isinstance(result, PartitionLost)]
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, PartitionLost):
            raise result
    on_step("written")
    gone = {one.partition for one in lost}
    offsets = {
        number: capture.position
        for number, (_, capture) in captures.items()
        if number not in gone and capture.position is not None
    }
    committed = await commit(offsets) if offsets else True
    on_step("committed")
    return CheckpointOutcome(lost, committed)


__all__ = [
    "STEPS",
    "CheckpointData",
    "CheckpointOutcome",
    "EncodedCheckpoint",
    "PartitionLost",
    "checkpoint",
    "encode_checkpoints",
    "write_partition",
]
