"""Record batches through Faust: a transport that hands an agent one whole chunk of a partition at a time.

Faust's own path makes two asyncio tasks, locks and an Event per message (12,000 events/s); a chunk per
fetch costs the same once per thousands. Membership, rebalancing and flow control stay Faust's. Commits do
not: Faust's bookkeeping supposes one message per offset, so offsets are committed only by `commit_durable`,
which the checkpoint calls.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import IllegalStateError
from aiokafka.structs import OffsetAndMetadata
from faust.serializers import codecs
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

CHUNK_CODEC = "eddy-chunk"

FETCH_MIN_BYTES, FETCH_WAIT_MS = 64 << 10, 20
"""The broker answers a fetch when it has so much, or after so long. Chunks of a few records cost as much as
large ones: at 5,000 events/s in slices of 5 ms this halves the median time to an answer, at 500 it adds 8 ms.
"""


@dataclass(frozen=True)
class Chunk:
    """Records of one partition, contiguous in the log."""

    partition: int
    records: list[ConsumerRecord[bytes, bytes]]
    generation: int
    """of the consumer group when it was fetched"""
    follows: int | None
    """end of the chunk handed out just before, None for the first one since the position was set"""

    @property
    def end(self) -> int:
        """Offset after the last record."""
        return int(self.records[-1].offset) + 1


class _ChunkCodec(codecs.Codec):
    """Hands chunks through Faust's decoding as they are."""

    def _loads(self, s: Any) -> Any:
        return s

    def _dumps(self, obj: Any) -> Any:
        return obj


codecs.register(CHUNK_CODEC, _ChunkCodec())


class _CommittedThread(driver.AIOKafkaConsumerThread):
    """Reads committed records only: what a transactional producer aborted never happened."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_min_bytes, consumer._fetch_max_wait_ms = FETCH_MIN_BYTES, FETCH_WAIT_MS
        consumer._isolation_level = "read_committed"  # Faust gives its own transactions a way, but not this
        commit = consumer.commit

        async def commit_with_note(offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
            await commit({tp: OffsetAndMetadata(at.offset, transport.note) for tp, at in offsets.items()})

        consumer.commit = commit_with_note
        return consumer


class BatchConsumer(driver.Consumer):
    """Yields one message per partition and fetch: value = Chunk, offset = that of its last record."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._handed: dict[TP, int] = {}

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _CommittedThread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        generation = self.app.consumer_generation_id
        fetched, active = await self._wait_next_records(timeout)
        if fetched is None or self.should_stop:
            return
        # A rebalance began, or began and ended, during the fetch: what was fetched will be fetched again.
        if not self.flow_active or generation != self.app.consumer_generation_id:
            self._handed |= {tp: int(records[-1].offset) + 1 for tp, records in fetched.items() if records}
            with suppress(IllegalStateError):  # taken away meanwhile: who gets them next seeks again
                await self.perform_seek()
            return
        for tp, records in fetched.items():
            if not self.flow_active or generation != self.app.consumer_generation_id:
                return
            if not records or (
                active is not None and tp not in active and tp not in self._buffered_partitions
            ):
                continue
            chunk = Chunk(tp.partition, list(records), generation, self._handed.get(tp))
            self._handed[tp] = chunk.end
            message = self._to_message(tp, records[-1])
            message.value = cast(Any, chunk)  # through Faust as it is: see _ChunkCodec
            yield tp, message

    def on_buffer_full(self, tp: TP) -> None:
        """Nothing: a full queue holds back who puts. Faust would leave the partition out, and once all are
        left out look again after a second only: every few seconds under a backlog, with nothing left to do.
        """

    async def perform_seek(self) -> None:
        """Go back to the committed offsets; chunks start a new row of `follows`."""
        try:
            await super().perform_seek()
        except AssertionError as error:  # aiokafka's word for it when nothing is assigned any more
            raise IllegalStateError(str(error)) from None
        # aiokafka leaves partitions without a committed offset where they are: behind what was dropped.
        fresh = [tp for tp in self.assignment() if not self._read_offset.get(tp)]
        if fresh:
            await self._thread.seek_to_beginning(*(TopicPartition(*tp) for tp in fresh))
        self._handed.clear()  # not before: were the seek to fail, `follows` would show what was dropped

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        for tp in revoked:
            self._handed.pop(tp, None)
        await super().on_partitions_revoked(revoked)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Chunks advance by thousands of offsets: to Faust each would be a gap."""

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Faust's timers, rebalances and shutdown ask for this; asking does not make anything durable."""
        return False

    async def commit_durable(self, offsets: Mapping[TP, int]) -> bool:
        """Commit next-to-read offsets that a checkpoint made durable; False if partitions were lost."""
        return bool(await self._commit(offsets))


class BatchTransport(driver.Transport):
    """Faust's aiokafka transport with chunks."""

    note = ""
    """kept on the cluster beside each committed offset"""

    Consumer = BatchConsumer
