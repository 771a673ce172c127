"""Reading topics: once to their end (`read_to_end`), from a time on (`read_since`), or for ever (`Follower`).
Only committed records.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from eddy.stream.kafka.clients import aiokafka_config
from eddy.stream.kafka.starting import started
from eddy.stream.records.settings import Settings

Records = Sequence[ConsumerRecord[bytes, bytes]]
Take = Callable[[TopicPartition, Records], Awaitable[None]]
DoNext = Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]

_POLL_MS = 200
_MAX_RECORDS, _MAX_FOLLOWED = 5_000, 500
"""Records that are handed over at a time: to readers that have nothing else to do, and to followers, beside
whom others wait for their turn. 500 rows are taken in 6 ms, at the same cost for each as 5,000 at once, for
which lists over HTTP waited 60 ms at every checkpoint of a busy worker.
"""

_FETCH_BYTES = 16 << 20
_AHEAD = 4
"""So many batches are read while another is taken: about one fetch, so that the next fetch is under way."""


@asynccontextmanager
async def _consumer(
    settings: Settings, partitions: Iterable[TopicPartition]
) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = await started(
        lambda: AIOKafkaConsumer(
            **aiokafka_config(settings),
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",  # behind a log's beginning: "latest" would skip the rest
            fetch_max_wait_ms=_POLL_MS,
            max_partition_fetch_bytes=_FETCH_BYTES,
            fetch_max_bytes=_FETCH_BYTES * 4,
        )
    )
    try:
        consumer.assign(list(partitions))
        yield consumer
    finally:
        await consumer.stop()


async def read_to_end(
    settings: Settings,
    topic: str,
    partitions: Collection[int],
    take: Take,
    start: Mapping[int, int] | None = None,
    expect: Callable[[TopicPartition, int, int], Awaitable[None]] | None = None,
    ended: Callable[[TopicPartition, int], Awaitable[None]] | None = None,
) -> dict[int, int]:
    """Hand everything that is in the partitions now to `take`, in the order of each partition; returns the
    end offset of each partition.

    `take` works beside the reading, one batch after another; if it fails, no later batch is handed over
    and its exception is raised here. `expect` is told the first and the end offset of each partition before
    anything is read, and `ended` the end offset of a partition as soon as all of it is taken. start: the
    first offset to read of some partitions; the others are read from the beginning, and so is one that ends
    before that offset, since it has lost its end. A transaction that is still open is not waited for: who
    must see its outcome fences its producer first.
    """
    tps = [TopicPartition(topic, partition) for partition in partitions]
    if not tps:
        return {}
    async with _consumer(settings, tps) as consumer, _in_order() as do_next:
        # 1. Where to read from and to.
        start = start or {}
        await _seek(consumer, tps, start)
        end = await consumer.end_offsets(tps)
        if cut_short := [tp for tp in tps if start.get(tp.partition, 0) > end[tp]]:
            await consumer.seek_to_beginning(*cut_short)
        if expect is not None:
            for tp in tps:
                await expect(tp, await consumer.position(tp), end[tp])
        # 2. Read.
        await _read_until(consumer, end, take, do_next, ended)
        return {tp.partition: end[tp] for tp in tps}


async def read_since(
    settings: Settings, topic: str, partition: int, since_ms: int, end: int, take: Take
) -> None:
    """Hand the records of a partition that were appended at `since_ms` (ms) or later, and whose offsets are
    below `end`, to `take`, in order and beside the reading.
    """
    tp = TopicPartition(topic, partition)

    async def take_below_end(_: TopicPartition, records: Records) -> None:
        await take(tp, [record for record in records if record.offset < end])

    async with _consumer(settings, [tp]) as consumer, _in_order() as do_next:
        first = (await consumer.offsets_for_times({tp: max(since_ms, 0)}))[tp]
        if first is None:  # nothing is as new as that
            return
        consumer.seek(tp, first.offset)
        await _read_until(consumer, {tp: end}, take_below_end, do_next)


async def _read_until(
    consumer: AIOKafkaConsumer,
    end: Mapping[TopicPartition, int],
    take: Take,
    do_next: DoNext,
    ended: Callable[[TopicPartition, int], Awaitable[None]] | None = None,
) -> None:
    """Read what lies before the end offset of each partition, and perhaps something behind it. A partition
    that is read is not fetched any more.
    """
    unfinished = set(end)
    while True:
        for tp in list(unfinished):
            if await consumer.position(tp) >= end[tp]:
                unfinished.discard(tp)
                consumer.pause(tp)
                if ended is not None:
                    await do_next(partial(ended, tp, end[tp]))
        if not unfinished:
            return
        for tp, records in (await consumer.getmany(timeout_ms=_POLL_MS, max_records=_MAX_RECORDS)).items():
            await do_next(partial(take, tp, records))


async def read_on(
    settings: Settings, topic: str, partitions: Collection[int], take: Take, start: Mapping[int, int]
) -> None:
    """As `read_to_end`, but go on with what comes, until cancelled, a few hundred records at a time."""
    tps = [TopicPartition(topic, partition) for partition in partitions]
    async with _consumer(settings, tps) as consumer:
        await _seek(consumer, tps, start)
        while True:
            batches = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_MAX_FOLLOWED)
            for tp, records in batches.items():
                await take(tp, records)


async def _seek(consumer: AIOKafkaConsumer, tps: Sequence[TopicPartition], start: Mapping[int, int]) -> None:
    """Go to the offsets in `start`, by partition, or else to the beginning."""
    whole = [tp for tp in tps if tp.partition not in start]
    if whole:
        await consumer.seek_to_beginning(*whole)
    for tp in set(tps).difference(whole):
        consumer.seek(tp, start[tp.partition])


@asynccontextmanager
async def _in_order() -> AsyncIterator[DoNext]:
    """A function that has work done beside the caller, one piece after another, and lets the caller be up to
    _AHEAD pieces ahead; on leaving, all of it is done.
    """
    at_work: deque[asyncio.Task[None]] = deque()

    async def after(before: asyncio.Task[None] | None, work: Callable[[], Awaitable[None]]) -> None:
        if before is not None:
            await before
        await work()

    async def do_next(work: Callable[[], Awaitable[None]]) -> None:
        before = at_work[-1] if at_work else None
        at_work.append(asyncio.create_task(after(before, work)))
        if len(at_work) > _AHEAD:
            await at_work.popleft()

    try:
        yield do_next
        if at_work:
            await at_work[-1]
    finally:
        for task in at_work:
            task.cancel()
        await asyncio.gather(*at_work, return_exceptions=True)


class Follower:
    """Keeps handing new records of all partitions of a topic to `take`, from the beginning on, a few hundred
    at a time.

    Failures of the connection are retried by the client; an exception from `take` ends the task and is
    raised by `caught_up` and `run`.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        partitions: Sequence[int],
        take: Take,
        last: int | None = None,
    ) -> None:
        """last: begin with so many records before each partition's end, not with its first one."""
        self._settings, self._last = settings, last
        self._tps = [TopicPartition(topic, partition) for partition in partitions]
        self._take = take
        self._position: dict[TopicPartition, int] = {}
        self._rewound = 0
        self._moved = asyncio.Condition()
        self._consumer: AIOKafkaConsumer | None = None
        self._failed: BaseException | None = None

    async def run(self) -> None:
        """Follow until cancelled."""
        try:
            async with _consumer(self._settings, self._tps) as consumer:
                await self._seek_start(consumer)
                self._consumer = consumer
                while True:
                    batches = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_MAX_FOLLOWED)
                    for tp, records in batches.items():
                        await self._take(tp, records)
                    rewound = self._rewound
                    position = {tp: await consumer.position(tp) for tp in self._tps}
                    async with self._moved:
                        if rewound == self._rewound:  # otherwise it may still be where it was before
                            self._position = position
                        self._moved.notify_all()
        except Exception as error:
            async with self._moved:
                self._failed = error
                self._moved.notify_all()
            raise

    async def _seek_start(self, consumer: AIOKafkaConsumer) -> None:
        if self._last is None:
            await consumer.seek_to_beginning(*self._tps)
            return
        starts, ends = await consumer.beginning_offsets(self._tps), await consumer.end_offsets(self._tps)
        for tp in self._tps:
            consumer.seek(tp, max(starts[tp], ends[tp] - self._last))

    async def caught_up(self) -> None:
        """Wait until everything that is in the topic at this moment was handed over."""
        async with self._moved:
            await self._moved.wait_for(lambda: self._consumer is not None or self._failed is not None)
            if self._consumer is None:
                raise self._failed or RuntimeError("not running")
        end = await self._consumer.end_offsets(self._tps)
        async with self._moved:
            await self._moved.wait_for(
                lambda: (
                    self._failed is not None or all(self._position.get(tp, -1) >= end[tp] for tp in self._tps)
                )
            )
            if self._failed is not None:
                raise self._failed

    def position(self, partition: int) -> int:
        """The offset before which everything in a partition was handed over; -1 before that is known."""
        return max((at for tp, at in self._position.items() if tp.partition == partition), default=-1)

    def left(self) -> int:
        """How many offsets lie between what was handed over and the partitions' ends, as far as the cluster
        has told of these.
        """
        if self._consumer is None or self._failed is not None:
            return 0
        ends = {tp: self._consumer.highwater(tp) for tp in self._tps}
        return sum(max((end or 0) - self._position.get(tp, 0), 0) for tp, end in ends.items())

    async def spans(self, tps: Sequence[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """The first and the end offset of any partitions now. Errors: aiokafka's, when no cluster answers."""
        if self._consumer is None:
            return {}
        starts, ends = await asyncio.gather(
            self._consumer.beginning_offsets(list(tps)), self._consumer.end_offsets(list(tps))
        )
        return {tp: (starts[tp], ends[tp]) for tp in tps}

    async def rewind(self, partition: int) -> None:
        """Read one partition from the beginning again."""
        if self._consumer is not None:
            for tp in self._tps:
                if tp.partition == partition:
                    self._position.pop(tp, None)
                    await self._consumer.seek_to_beginning(tp)
                    self._position.pop(tp, None)
                    self._rewound += 1
