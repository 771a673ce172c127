"""Station 10: the order in which a micro-batch becomes durable.

1. The cluster confirms the recommendations, the dead letters, and the names of new items on `items`: rows of
   any partition may hold these items, so that no partition's transaction may take the names with it.
2. For each owned partition one transaction writes rows to `user-state` (tombstones of erased users first) and
   the journal to `item-stats`. The transactions run side by side. The producer's transactional id is
   group-partition, so that a paused former owner is fenced.
3. The offsets are committed.

A crash between two steps leaves the offsets behind the rows, never ahead of them. Records that are read again
are recognised by their offsets.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from aiokafka import AIOKafkaProducer
from aiokafka.errors import InvalidProducerEpoch, InvalidProducerIdMapping, ProducerFenced
from numpy.typing import NDArray

from eddy.stream.kafka.producers import fatal_error, send_all
from eddy.stream.records.clock import wall_ms
from eddy.stream.records.messages import Message
from eddy.stream.records.settings import TopicNames
from eddy.stream.worker.event_traces import TracedEvent, headers_of_rows

_FENCED = (ProducerFenced, InvalidProducerEpoch)
STEPS = ("captured", "answered", "written", "committed")


class PartitionLost(Exception):
    """Nothing more may be written to the partition: another worker has taken it over, or the cluster has
    forgotten the producer's transactional id, as it does after a week in which nothing came
    (`transactional.id.expiration.ms`).
    """

    def __init__(self, partition: int, forgotten: bool = False) -> None:
        if forgotten:
            super().__init__(f"partition {partition}: the cluster has forgotten its producer")
        else:
            super().__init__(f"partition {partition} was taken over by another worker")
        self.partition, self.forgotten = partition, forgotten


@dataclass
class CheckpointData:
    """What a checkpoint writes for one partition: copied out of memory between two batches, and encoded while
    the next ones are applied.
    """

    partition: int
    position: int | None
    """offset of the next record to read; None before the first one"""
    rows: Callable[[], list[Message]]
    """encodes the copied rows, and tombstones of erased users"""
    statistics: Callable[[], list[Message]]
    appended: Sequence[NDArray[np.int64]] = ()
    """when its records were appended to `events`, ms"""
    traced: Sequence[TracedEvent] = ()
    """events whose traces the rows carry on"""
    changelog_end: int = 0
    """once written: the offset on `user-state` from which a restore has to read on"""


@dataclass
class EncodedCheckpoint:
    """The same as messages."""

    rows: list[Message]
    statistics: list[Message]


@dataclass(frozen=True)
class CheckpointOutcome:
    """What a checkpoint has made durable."""

    lost: list[PartitionLost]
    """partitions to which nothing was written; the rows of all others are durable"""
    written_at: int
    """ms since 1970, when those rows had become durable"""
    committed: bool
    """whether their offsets are committed; a group that is rebalancing refuses commits"""


def encode_checkpoints(captures: Iterable[CheckpointData]) -> list[EncodedCheckpoint]:
    """Encode rows and statistics. Takes milliseconds, and so must not run on the event loop."""
    return [EncodedCheckpoint(capture.rows(), capture.statistics()) for capture in captures]


async def write_partition(
    producer: AIOKafkaProducer, topics: TopicNames, capture: CheckpointData, encoded: EncodedCheckpoint
) -> None:
    """Step 2 for one partition. Errors: PartitionLost, and nothing was written."""
    if not (encoded.rows or encoded.statistics):
        return
    try:
        async with producer.transaction():
            headers = headers_of_rows(encoded.rows, capture.traced)
            rows = await send_all(producer, topics.user_state, capture.partition, encoded.rows, headers)
            statistics = await send_all(producer, topics.item_stats, capture.partition, encoded.statistics)
            written = await asyncio.gather(*rows)
            await asyncio.gather(*statistics)
        # The metadata of a produced batch names its first record only. So a restore reads on from the last
        # batch, and reads a few rows twice.
        capture.changelog_end = max((batch.offset for batch in written), default=0)
    except Exception as error:
        failures = (error, fatal_error(producer))
        if any(isinstance(failure, _FENCED) for failure in failures):
            raise PartitionLost(capture.partition) from None
        if any(isinstance(failure and failure.__cause__, InvalidProducerIdMapping) for failure in failures):
            raise PartitionLost(capture.partition, forgotten=True) from None
        raise


async def checkpoint(
    captures: Mapping[int, tuple[AIOKafkaProducer, CheckpointData]],
    topics: TopicNames,
    answers: Awaitable[object],
    commit: Callable[[dict[int, int]], Awaitable[bool]],
    on_step: Callable[[str], None],
) -> CheckpointOutcome:
    """Make the copied data durable, by the steps above. `answers` ends when all that step 1 names is
    confirmed; `commit` returns whether it could commit; `on_step` is called after each of `STEPS`.

    Errors: any failure that the outcome does not tell of. It must end the process.
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
    written_at = wall_ms()
    on_step("written")
    gone = {one.partition for one in lost}
    offsets = {
        number: capture.position
        for number, (_, capture) in captures.items()
        if number not in gone and capture.position is not None
    }
    committed = await commit(offsets) if offsets else True
    on_step("committed")
    return CheckpointOutcome(lost, written_at, committed)


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
