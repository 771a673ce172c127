"""Record batches through Faust: a transport that hands an agent one whole chunk of a partition at a time.

Faust's own path makes two asyncio tasks, locks and an Event per message (12,000 events/s); a chunk per
fetch costs the same once per thousands. Membership, rebalancing and flow control stay Faust's. Commits do
not: Faust's bookkeeping supposes one message per offset, so offsets are committed only by `commit_durable`,
which the checkpoint calls.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError
from aiokafka.structs import OffsetAndMetadata
from faust.serializers import codecs
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from eddy.stream.records.chunk import Chunk
from eddy.stream.worker.fetch_pace import AT_ONCE, FetchPace, Patience

CHUNK_CODEC = "eddy-chunk"


@dataclass(frozen=True)
class Reading:
    """How far the reading of a partition has come; offsets."""

    position: int
    """of the next record to fetch"""
    end: int | None
    """of what can be read, as the last fetch knew it"""
    handed: int | None
    """end of the last chunk handed out since the position was set"""
    seeks: int
    """how often positions had been set"""


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
        consumer._fetch_min_bytes, consumer._fetch_max_wait_ms = AT_ONCE
        consumer._isolation_level = "read_committed"  # Faust gives its own transactions a way, but not this
        commit = consumer.commit

        async def commit_with_note(offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
            await commit({tp: OffsetAndMetadata(at.offset, transport.note) for tp, at in offsets.items()})

        consumer.commit = commit_with_note
        transport.prepare(consumer)
        return consumer


class BatchConsumer(driver.Consumer):
    """Yields one message per partition and fetch: value = Chunk, offset = that of its last record.

    What was fetched is handed out or fetched again, whatever a rebalance does in between. Faust can still
    lose a chunk that it was handed; whoever takes chunks sees that from `follows`, and asks to `read_again`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._handed: dict[TP, int] = {}
        self._expected: dict[TP, int] = {}
        self._skipped: dict[TP, list[tuple[int, int]]] = {}
        self._seeks_begun = self._seeks_ended = 0
        self._pace = FetchPace()

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _CommittedThread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        generation, seeks = self.app.consumer_generation_id, self._seeks_ended
        fetched, active = await self._wait_next_records(timeout)
        if fetched is None or self.should_stop:
            return
        self._wait_at_broker(self._pace.after(sum(map(len, fetched.values()))))
        waiting = {tp: records for tp, records in fetched.items() if records}
        for tp in list(waiting):
            if not self._goes_on(generation, seeks) or (active is not None and tp not in active):
                await self._fetch_again(waiting)
                return
            records = waiting.pop(tp)
            follows, last = self._handed.get(tp), not waiting
            chunk = Chunk(tp.partition, list(records), generation, follows, seeks, last)
            self._skip(tp, int(records[0].offset))
            self._handed[tp] = self._expected[tp] = chunk.end
            message = self._to_message(tp, records[-1])
            message.value = cast(Any, chunk)  # through Faust as it is: see _ChunkCodec
            # Faust drops what ends before the offset that it noted last, also when a seek lies in between.
            self._read_offset[tp] = None
            yield tp, message

    def _wait_at_broker(self, patience: Patience) -> None:
        consumer = self._thread._consumer
        if consumer is not None:  # its fetcher looks at these for each request
            consumer._fetcher._fetch_min_bytes, consumer._fetcher._fetch_max_wait_ms = patience

    def _goes_on(self, generation: int, seeks: int) -> bool:
        """Whether no rebalance and no seek has begun since, or is under way."""
        return (
            self.flow_active
            and generation == self.app.consumer_generation_id
            and seeks == self._seeks_begun == self._seeks_ended
        )

    async def _fetch_again(self, dropped: Mapping[TP, Sequence[Any]]) -> None:
        """Go back, since these records cannot be handed out any more; until that has been done `follows`
        shows that they are missing.
        """
        self._handed |= {tp: int(records[-1].offset) + 1 for tp, records in dropped.items()}
        with suppress(IllegalStateError):  # taken away meanwhile: who gets them next seeks again
            await self.perform_seek()

    async def read_again(self, seeks: int) -> None:
        """Go back to the committed offsets, since a chunk got lost on its way; not if positions were set, or
        are about to be set, since they had been so often.
        """
        if self._goes_on(self.app.consumer_generation_id, seeks):
            with suppress(IllegalStateError):
                await self.perform_seek()

    def reading(self, tp: TP) -> Reading | None:
        """How far a partition has been read; None while it has no position."""
        consumer = self._thread._consumer
        subscription = consumer and consumer._subscription.subscription
        state = subscription and subscription.assignment and subscription.assignment.state_value(tp)
        if not state:
            return None
        position = state._position  # read once: it belongs to another thread
        return (
            None
            if position is None
            else Reading(position, state.lso, self._handed.get(tp), self._seeks_ended)
        )

    def _skip(self, tp: TP, to: int) -> None:
        """Note that reading goes on at an offset: records between were removed, or were never records."""
        expected = self._expected.get(tp, to)
        if to > expected:
            self._skipped.setdefault(tp, []).append((expected, to))
        self._expected[tp] = to

    def take_gone(self, tp: TP, start: int) -> int:
        """How many offsets were gone before they were read, now that the log starts there; told once."""
        if start > self._expected.get(tp, start):
            self._skip(tp, start)
        return sum(max(min(to, start) - begin, 0) for begin, to in self._skipped.pop(tp, ()))

    def on_buffer_full(self, tp: TP) -> None:
        """Nothing: a full queue holds back who puts. Faust would leave the partition out, and once all are
        left out look again after a second only: every few seconds under a backlog, with nothing left to do.
        """

    async def perform_seek(self) -> None:
        """Go back to the committed offsets; chunks start a new row of `follows`."""
        self._seeks_begun += 1  # what is fetched meanwhile may be from before or from after: see getmany
        try:
            try:
                await super().perform_seek()
            except AssertionError as error:  # aiokafka's word for it when nothing is assigned any more
                raise IllegalStateError(str(error)) from None
            # aiokafka leaves partitions without a committed offset where they are: behind what was dropped.
            fresh = [tp for tp in self.assignment() if not self._read_offset.get(tp)]
            if fresh:
                await self._thread.seek_to_beginning(*(TopicPartition(*tp) for tp in fresh))
            self._expected = {tp: self._read_offset.get(tp) or 0 for tp in self.assignment()}
            self._handed.clear()  # not before: were the seek to fail, `follows` would show what was dropped
        finally:
            self._seeks_ended += 1

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        for tp in revoked:
            for noted in (self._handed, self._expected, self._skipped):
                noted.pop(tp, None)
        await super().on_partitions_revoked(revoked)

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

    prepare: Callable[[AIOKafkaConsumer], None] = staticmethod(lambda _: None)
    """what is done with the consumer before it starts"""

    Consumer = BatchConsumer
