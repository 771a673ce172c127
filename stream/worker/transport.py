"""Station 1: a Faust transport that hands an agent one whole chunk of a partition at a time.

For each message, Faust makes two asyncio tasks, locks and an Event, which allows 12,000 events/s. Here a
chunk of thousands of records costs what one message costs there. Membership, rebalancing and flow control
stay with Faust. Commits do not, because Faust expects one message per offset: `commit_durable` alone commits
offsets, and the checkpoint alone calls it.
"""

import asyncio
import time
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

LOOK_AGAIN_S = 0.05
"""How long a fetch may wait for records while a partition is not read yet."""

MEMBER_S = 1.0
"""How often the group's member counts as alive anew."""


@dataclass(frozen=True)
class Reading:
    """How far a partition has been read, in offsets."""

    position: int
    """the next record to fetch"""
    end: int | None
    """the end of what can be read, as of the last fetch"""
    handed: int | None
    """the end of the last chunk that was handed out since the position was set"""
    seeks: int
    """how often positions have been set"""


class _ChunkCodec(codecs.Codec):
    """Passes chunks through Faust's decoding unchanged."""

    def _loads(self, s: Any) -> Any:
        return s

    def _dumps(self, obj: Any) -> Any:
        return obj


codecs.register(CHUNK_CODEC, _ChunkCodec())


class _CommittedThread(driver.AIOKafkaConsumerThread):
    """Reads committed records only: what a transactional producer has aborted never happened."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_min_bytes, consumer._fetch_max_wait_ms = AT_ONCE
        consumer._isolation_level = "read_committed"  # Faust sets this for its own transactions only
        commit = consumer.commit

        async def commit_with_note(offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
            await commit({tp: OffsetAndMetadata(at.offset, transport.note) for tp, at in offsets.items()})

        consumer.commit = commit_with_note
        transport.prepare(consumer)
        return consumer


class BatchConsumer(driver.Consumer):
    """Yields one message per partition and fetch: its value is a Chunk, its offset that of the chunk's last
    record.

    Whatever a rebalance does meanwhile, fetched records are either handed out or fetched again. Faust can
    still lose a chunk that was handed to it; `Chunk.follows` shows that to the receiver, who then calls
    `read_again`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._handed: dict[TP, int] = {}
        self._expected: dict[TP, int] = {}
        self._skipped: dict[TP, list[tuple[int, int]]] = {}
        self._passed: dict[TP, int] = {}
        """where the consumer was at the last look at the log"""
        self._seeks_begun = self._seeks_ended = 0
        self._read: set[TP] = set()
        """partitions whose records may be handed out"""
        self._reads = asyncio.Event()
        """set while there are such partitions"""
        self._pace = FetchPace()

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _CommittedThread(self, loop=self.loop, beacon=self.beacon)

    async def on_start(self) -> None:
        await super().on_start()
        self.add_future(self._stay_a_member())

    async def _stay_a_member(self) -> None:
        """Let the member count as alive for as long as its event loop is: its work is judged by its commits.

        aiokafka takes a member for dead that has asked for no records for `broker_max_poll_interval` (1,000
        s), has it leave the group, and does not let it join again before it asks. A worker without partitions
        never does, nor one that still restores all of its own.
        """
        while True:
            consumer = self._thread._consumer
            if consumer is not None:
                consumer._subscription._last_fetch_ended = time.monotonic()
            await asyncio.sleep(MEMBER_S)

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

    def start_reading(self, tp: TP) -> None:
        """Hand out chunks of a partition from now on. After each rebalance no partition is read at first."""
        self._read.add(tp)
        self._reads.set()

    def stop_reading(self, tp: TP) -> None:
        """Hand out no more chunks of a partition."""
        self._read.discard(tp)
        if not self._read:
            self._reads.clear()

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        active = active_partitions or set()
        read = active & self._read
        if read < active:  # another one may be read soon
            timeout = min(timeout, LOOK_AGAIN_S)
        if read:
            return await super()._getmany(read, timeout)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._reads.wait(), timeout)
        return {}

    def _wait_at_broker(self, patience: Patience) -> None:
        consumer = self._thread._consumer
        if consumer is not None:  # its fetcher reads these for each request
            consumer._fetcher._fetch_min_bytes, consumer._fetcher._fetch_max_wait_ms = patience

    def _goes_on(self, generation: int, seeks: int) -> bool:
        """Whether no rebalance and no seek has begun since then, and none is under way."""
        return (
            self.flow_active
            and generation == self.app.consumer_generation_id
            and seeks == self._seeks_begun == self._seeks_ended
        )

    async def _fetch_again(self, dropped: Mapping[TP, Sequence[Any]]) -> None:
        """Go back to the committed offsets, because these records can no longer be handed out. If that fails,
        the `follows` of the next chunk shows that they are missing.
        """
        self._handed |= {tp: int(records[-1].offset) + 1 for tp, records in dropped.items()}
        with suppress(IllegalStateError):  # the partitions were taken away: their next owner seeks anyway
            await self.perform_seek()

    async def read_again(self, seeks: int) -> None:
        """Go back to the committed offsets, because a chunk was lost on its way. Does nothing if positions
        have been set more than `seeks` times, or are about to be set.
        """
        if self._goes_on(self.app.consumer_generation_id, seeks):
            with suppress(IllegalStateError):
                await self.perform_seek()

    def reading(self, tp: TP) -> Reading | None:
        """How far a partition has been read; None while the consumer has no position in it."""
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
        """Note that reading continues at an offset: what lies before was removed, or holds no records."""
        expected = self._expected.get(tp, to)
        if to > expected:
            self._skipped.setdefault(tp, []).append((expected, to))
        self._expected[tp] = to

    def take_gone(self, tp: TP, start: int) -> int:
        """How many offsets were removed unread, now that the log starts at `start`. Each is reported once.

        What the consumer had passed at the look before was there then: records on their way, markers of
        transactions, or records of aborted ones, none of which are missed when they are removed. Where it is
        now may already be the log's new start.
        """
        if tp in self._expected:
            self._expected[tp] = max(self._expected[tp], self._passed.get(tp, 0))
        if start > self._expected.get(tp, start):
            self._skip(tp, start)
        if reading := self.reading(tp):
            self._passed[tp] = reading.position
        return sum(max(min(to, start) - begin, 0) for begin, to in self._skipped.pop(tp, ()))

    def on_buffer_full(self, tp: TP) -> None:
        """Do nothing: a full queue makes its producers wait. Faust would exclude the partition from fetching,
        and once all are excluded it looks again only after a second. Under a backlog the worker would stand
        idle for a second every few seconds.
        """

    async def perform_seek(self) -> None:
        """Go back to the committed offsets. The next chunk of each partition follows none."""
        self._seeks_begun += 1  # a fetch that is under way may be from before or after the seek
        try:
            try:
                await super().perform_seek()
            except AssertionError as error:  # what aiokafka raises when nothing is assigned any more
                raise IllegalStateError(str(error)) from None
            # Where no offset is committed aiokafka keeps the position, which is behind the dropped records.
            fresh = [tp for tp in self.assignment() if not self._read_offset.get(tp)]
            if fresh:
                await self._thread.seek_to_beginning(*(TopicPartition(*tp) for tp in fresh))
            self._expected = {tp: self._read_offset.get(tp) or 0 for tp in self.assignment()}
            self._passed.clear()
            self._handed.clear()  # last: if the seek fails, `follows` must show what was dropped
        finally:
            self._seeks_ended += 1

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        for tp in revoked:
            self.stop_reading(tp)
            for noted in (self._handed, self._expected, self._skipped, self._passed):
                noted.pop(tp, None)
        await super().on_partitions_revoked(revoked)

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Refuse: Faust's timers, rebalances and shutdown ask for commits of what is not durable yet."""
        return False

    async def commit_durable(self, offsets: Mapping[TP, int]) -> bool:
        """Commit offsets before which everything is durable; False if partitions were lost."""
        return bool(await self._commit(offsets))


class BatchTransport(driver.Transport):
    """Faust's aiokafka transport with chunks."""

    note = ""
    """what the cluster stores beside each committed offset"""

    prepare: Callable[[AIOKafkaConsumer], None] = staticmethod(lambda _: None)
    """called with the consumer before it starts"""

    Consumer = BatchConsumer
