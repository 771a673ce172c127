"""A worker: restores its partitions, applies their events, answers, and makes all of it durable.

The engine's work runs on one thread, one call after another; Kafka's on the event loop beside it. Faust
(stream.app) hands in chunks and tells of partitions gained and lost. Whatever cannot be answered for ends
the process: the log and the changelog bring everything back.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec
import torch
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition

from models.errors import EddyError
from models.statistics import Statistics
from models.vocabulary import Catalogue
from stream.answers import encode_lists
from stream.checkpoint import Capture, PartitionLost, checkpoint
from stream.dead_letters import Letter, dead_letter
from stream.encoder import Encoder
from stream.engine import Engine, Options
from stream.events import EventBatch, Rejected, TypeTable, decode_events
from stream.item_stats import Journal, Reader
from stream.items import ItemNames, dictionary_records
from stream.metrics import WorkerMetrics
from stream.partitions import Owned
from stream.producers import Message, new_producer, send_all
from stream.reader import Follower, Records, read_to_end
from stream.rows import decode_rows
from stream.schema import Announcement, DictionaryEntry
from stream.settings import Settings
from stream.transport import Chunk
from stream.versions import decode_announcement, open_version

log = logging.getLogger("eddy.worker")
T = TypeVar("T")

_decode_named = msgspec.json.Decoder(DictionaryEntry).decode

MAX_BATCH_EVENTS = 4096
"""Records applied at once: large enough for batched arithmetic, small enough to answer soon."""

QUEUED_CHUNKS = 4
MIGRATE_ROWS = 1024
NO_GENERATION = -2
REVOKE_BUDGET = 0.5
"""Share of the session timeout that the last flush of revoked partitions may take."""


def wall_ms() -> int:
    """Wall clock, ms since 1970."""
    return time.time_ns() // 1_000_000


class Worker:
    """See the module. `commit` is given by stream.app once the consumer exists."""

    def __init__(
        self, settings: Settings, topic_id: bytes, on_step: Callable[[str], None] = lambda _: None
    ) -> None:
        self.settings = settings
        self.topics = settings.topics
        self.topic_id = topic_id
        self.metrics = WorkerMetrics()
        self.commit: Callable[[dict[int, int]], Awaitable[bool]] | None = None
        self.highwater: Callable[[int], int | None] = lambda _: None
        self.on_step = on_step
        self.owned: dict[int, Owned] = {}
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.catalogue = Catalogue()
        self.names = ItemNames(self.catalogue)
        self.types = TypeTable()
        self._engine: Engine | None = None
        self._stats: Reader | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="eddy-engine")
        self._chunks: asyncio.Queue[Chunk] = asyncio.Queue(QUEUED_CHUNKS)
        self._settled = asyncio.Event()
        self._settled.set()
        self._busy = asyncio.Lock()
        self._checkpointing = asyncio.Lock()
        self._unconfirmed: list[asyncio.Future[object]] = []
        self._names_again: list[Message] = []
        self._announced: Announcement | None = None
        self._first_version = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._restore: asyncio.Task[None] | None = None
        partitions = range(settings.partitions)
        self._follow_items = Follower(settings, self.topics.items, [0], self._take_items)
        self._follow_versions = Follower(settings, self.topics.model_versions, [0], self._take_versions)
        self._follow_stats = Follower(settings, self.topics.item_stats, partitions, self._take_stats)
        self._answers: AIOKafkaProducer | None = None

    @property
    def engine(self) -> Engine:
        """The engine; exists once the first model version is known."""
        if self._engine is None:
            raise RuntimeError("the worker has not started")
        return self._engine

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _spawn(self, work: Awaitable[None], name: str) -> asyncio.Task[None]:
        async def guarded() -> None:
            try:
                await work
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                if not self.failed.done():
                    self.failed.set_exception(error)

        task = asyncio.create_task(guarded(), name=name)
        self._tasks.append(task)
        return task

    # -- life -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Read what is common to all partitions, load the live version (waiting for the first), begin to
        work.
        """
        self._answers = new_producer(self.settings)
        await self._answers.start()
        self._spawn(self._follow_items.run(), "items")
        self._spawn(self._follow_versions.run(), "versions")
        await self._unless_failed(self._follow_items.caught_up())
        await self._unless_failed(self._follow_versions.caught_up())
        if self._announced is None:
            log.info("no model version is announced yet; waiting (make one with: eddy train)")
        await self._unless_failed(self._first_version.wait())
        await self._run(self._build_engine)
        self._spawn(self._follow_stats.run(), "item-stats")
        self._spawn(self._work(), "work")
        self._spawn(self._checkpoints(), "checkpoints")

    async def _unless_failed(self, work: Awaitable[object]) -> None:
        task = asyncio.ensure_future(work)
        waiting: list[asyncio.Future[Any]] = [task, self.failed]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if self.failed.done():
            task.cancel()
            self.failed.result()
        await task

    def _build_engine(self) -> None:
        assert self._announced is not None
        torch.set_num_threads(self.settings.torch_threads)
        encoder = self._encoder(self._announced)
        config = encoder.recommender.config
        statistics = Statistics(config.half_lives_ms, config.successors)
        options = Options(
            partitions=self.settings.partitions,
            k=self.settings.k,
            emit=self.settings.emit,
            exclude_seen=self.settings.exclude_seen,
            sample=self.settings.prequential_sample,
        )
        self._engine = Engine(encoder, self.names, self.types, statistics, options, wall_ms)
        self._stats = Reader(statistics, self.catalogue)
        self.metrics.epoch.set(encoder.epoch)

    def _encoder(self, announcement: Announcement) -> Encoder:
        version = open_version(announcement, self.settings.registry)
        self.names.add(version.vocabulary.items)
        self.types.hashes(version.vocabulary.types)
        device = torch.device(self.settings.torch_device)
        log.info("epoch %d: version %s", announcement.epoch, version.id)
        return Encoder(version, announcement.epoch, self.catalogue, self.types, device)

    async def stop(self) -> None:
        """Flush what was applied and give up all partitions."""
        await self.revoked(set(self.owned))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._answers is not None:
            await self._answers.stop()
        self._thread.shutdown()

    # -- what is followed -------------------------------------------------------------------------------

    async def _take_items(self, _: TopicPartition, records: Records) -> None:
        ids = [item for record in records if (item := item_id_of(record)) is not None]
        await self._run(lambda: self.names.add(ids))

    async def _take_stats(self, tp: TopicPartition, records: Records) -> None:
        values = [(record.key, record.value) for record in records]
        reader = self._stats
        assert reader is not None
        await self._run(lambda: reader.take(tp.partition, values))

    async def _take_versions(self, _: TopicPartition, records: Records) -> None:
        for record in records:
            if record.value is None:
                continue
            announcement = decode_announcement(record.value)
            if self._announced is None or announcement.epoch > self._announced.epoch:
                self._announced = announcement
        if self._announced is not None:
            self._first_version.set()
            if self._engine is not None and self._announced.epoch > self.engine.encoder.epoch:
                announced = self._announced
                encoder = await self._run(lambda: self._encoder(announced))
                await self._run(lambda: self.engine.exchange(encoder))
                self.metrics.epoch.set(encoder.epoch)

    # -- partitions -------------------------------------------------------------------------------------

    async def assigned(self, partitions: set[int], generation: int) -> None:
        """Partitions were gained (the whole assignment is given); restores in the background, holding
        chunks back.
        """
        self._settled.clear()
        self.metrics.ready.set(0)
        if self._restore is not None:
            self._restore.cancel()
            await asyncio.gather(self._restore, return_exceptions=True)
        self._restore = self._spawn(self._restore_all(partitions, generation), "restore")

    async def _restore_all(self, partitions: set[int], generation: int) -> None:
        for owned in self.owned.values():
            owned.generation = generation
        for number in sorted(partitions - set(self.owned)):
            await self._take_over(number, generation)
        self.metrics.ready.set(1)
        self._settled.set()

    async def _take_over(self, number: int, generation: int) -> None:
        started = time.monotonic()
        producer = new_producer(self.settings, f"{self.settings.group}-{number}")
        await producer.start()  # from here on no former owner can write
        try:
            await self._follow_versions.caught_up()
            await self._follow_items.caught_up()
            await self._follow_stats.caught_up()
            await read_to_end(self.settings, self.topics.user_state, [number], self._take_rows)
        except BaseException:
            await producer.stop()
            await self._run(lambda: self._forget(number))
            raise
        assert self._stats is not None
        journal = Journal(number, self._stats.sequence.get(number, -1))
        self.owned[number] = Owned(number, producer, journal, generation)
        rows = len(self.engine.slab.of_partition(number))
        log.info("partition %d: %d rows restored in %.1f s", number, rows, time.monotonic() - started)
        self.metrics.rows.set(len(self.engine.slab))

    async def _take_rows(self, tp: TopicPartition, records: Records) -> None:
        newest = {record.key: record.value for record in records if record.key is not None}
        await self._run(lambda: self._load_rows(tp.partition, newest))
        self.metrics.restored.labels(tp.partition).inc(len(records))

    def _load_rows(self, partition: int, newest: dict[bytes, bytes | None]) -> None:
        erased = [user.decode() for user, value in newest.items() if value is None]
        if erased:
            slots = self.engine.slab.find(erased)
            self.engine.slab.remove(slots[slots >= 0])
        stored = [(user, value) for user, value in newest.items() if value is not None]
        if not stored:
            return
        for rows in decode_rows([user for user, _ in stored], [value for _, value in stored]):
            if rows.topic_id != self.topic_id or (rows.partition != partition).any():
                raise EddyError(
                    f"rows on {self.topics.user_state} partition {partition} come from another topic or "
                    f"partition than {self.topics.events} now has: it was recreated, or its partition "
                    "count changed by hand; run `eddy repartition`, or give the new stream its own "
                    "EDDY_TOPIC_PREFIX"
                )
            self.engine.load(rows)

    async def revoked(self, partitions: set[int]) -> None:
        """Partitions are about to be lost: flush within the budget, then forget them whether that worked or
        not.
        """
        if self._restore is not None:
            self._restore.cancel()
            await asyncio.gather(self._restore, return_exceptions=True)
            self._restore = None
        self._settled.clear()
        while not self._chunks.empty():
            self._chunks.get_nowait()
        leaving = [self.owned[number] for number in sorted(partitions) if number in self.owned]
        for owned in leaving:
            owned.generation = NO_GENERATION  # chunks still on their way are not applied any more
        flushed = False
        try:
            async with asyncio.timeout(self.settings.session_timeout_s * REVOKE_BUDGET):
                await self._checkpoint()
            flushed = True
        except (TimeoutError, asyncio.CancelledError):
            log.warning("the last flush took too long; its events will be read again by the next owner")
        finally:
            for owned in leaving:
                await self._drop(owned, keep_statistics=flushed)

    async def _drop(self, owned: Owned, keep_statistics: bool) -> None:
        self.owned.pop(owned.number, None)
        with contextlib.suppress(Exception):  # a fenced producer cannot say goodbye
            async with asyncio.timeout(5):
                await owned.producer.stop()
        await self._run(lambda: self._forget(owned.number))
        if not keep_statistics and self._stats is not None:
            reader = self._stats
            await self._run(lambda: reader.forget(owned.number))
            await self._follow_stats.rewind(owned.number)
        self.metrics.drop_partition(owned.number)
        self.metrics.rows.set(len(self.engine.slab))

    def _forget(self, number: int) -> None:
        self.engine.slab.remove(self.engine.slab.of_partition(number))

    # -- events -----------------------------------------------------------------------------------------

    async def put(self, chunk: Chunk) -> None:
        """Take in a chunk; waits while partitions are being restored and while the engine is behind."""
        await self._settled.wait()
        await self._chunks.put(chunk)

    async def _gather(self) -> list[Chunk]:
        """The chunks of the next micro-batch: what is there, up to a bound; at most one per partition."""
        chunks = [await self._chunks.get()]
        events = len(chunks[0].records)
        while events < MAX_BATCH_EVENTS and not self._chunks.empty():
            chunks.append(self._chunks.get_nowait())
            events += len(chunks[-1].records)
        return chunks

    async def _work(self) -> None:
        while True:
            gather = asyncio.ensure_future(self._gather())
            while not (await asyncio.wait([gather], timeout=0.05))[0]:
                async with self._busy:
                    await self._migrate()
            async with self._busy:
                await self._process(gather.result())
                await self._migrate()

    async def _migrate(self) -> None:
        """Encode some rows of older epochs anew, if there are any and no partition is between owners."""
        if not self._settled.is_set():
            return
        changed = await self._run(lambda: self.engine.migrate(MIGRATE_ROWS))
        if len(changed):
            home = self.engine.slab.partition[changed]
            for number, owned in self.owned.items():
                owned.changed(changed[home == number])
        self.metrics.stale_rows.set(self.engine.stale)

    async def _process(self, chunks: Sequence[Chunk]) -> None:
        taken: dict[int, list[ConsumerRecord[bytes, bytes]]] = {}
        ends: dict[int, int] = {}
        for chunk in chunks:
            owned = self.owned.get(chunk.partition)
            if owned is None or chunk.generation != owned.generation:
                continue  # from before a rebalance: its records will come again
            owned.accept(chunk)
            taken.setdefault(chunk.partition, []).extend(chunk.records)
            ends[chunk.partition] = chunk.end
        if not taken:
            return
        read = sum(map(len, taken.values()))
        self.metrics.read.inc(read)
        self.metrics.batch_events.observe(read)
        answers, letters = await self._run(lambda: self._apply(taken, ends))
        assert self._answers is not None
        for partition, messages in answers.items():
            self._unconfirmed += await send_all(
                self._answers, self.topics.recommendations, partition, messages
            )
        for letter in letters:
            self._unconfirmed.append(await self._answers.send(self.topics.dead_letters, **letter))

    def _apply(
        self, taken: dict[int, list[ConsumerRecord[bytes, bytes]]], ends: dict[int, int]
    ) -> tuple[dict[int, list[Message]], list[Letter]]:
        """On the engine's thread: decode, apply, encode answers."""
        engine, metrics = self.engine, self.metrics
        batches: list[EventBatch] = []
        rejected: list[tuple[int, Rejected]] = []
        for partition, records in taken.items():
            decoded = decode_events(records, partition, wall_ms())
            batches.append(decoded.batch)
            rejected += [(partition, one) for one in decoded.rejected]
        outcome = engine.apply(batches)
        by_offset = {}
        if outcome.refused:
            by_offset = {(p, record.offset): record for p, records in taken.items() for record in records}
        rejected += [(p, Rejected(by_offset[p, offset], reason)) for p, offset, reason in outcome.refused]
        home = engine.slab.partition[outcome.dirty]
        for number, end in ends.items():
            self.owned[number].note(outcome, outcome.dirty[home == number], end)
        metrics.applied.inc(outcome.applied)
        metrics.replayed.inc(outcome.replayed)
        metrics.repeats.inc(outcome.repeats)
        metrics.late.inc(outcome.late)
        metrics.too_late.inc(outcome.too_late)
        metrics.dead.inc(len(rejected))
        metrics.rows.set(len(engine.slab))
        for name, value in engine.prequential.metrics().items():
            metrics.prequential.labels(name).set(value)
        answers = encode_lists(engine, outcome.lists, self.topic_id, self.settings.partitions)
        metrics.answers.inc(sum(map(len, answers.values())))
        return answers, [dead_letter(self.topics.events, partition, one) for partition, one in rejected]

    # -- durability -------------------------------------------------------------------------------------

    async def _checkpoints(self) -> None:
        interval = self.settings.checkpoint_ms / 1000
        while True:
            started = time.monotonic()
            await self._checkpoint()
            for number, owned in self.owned.items():
                end = self.highwater(number)
                if end is not None and owned.position is not None:
                    self.metrics.lag.labels(number).set(max(end - owned.position, 0))
            await asyncio.sleep(max(0.0, interval - (time.monotonic() - started)))

    async def _checkpoint(self) -> None:
        async with self._checkpointing:
            pending = [owned for owned in self.owned.values() if owned.pending]
            if not pending or self.commit is None:
                return
            with self.metrics.checkpoint_seconds.time():
                async with self._busy:  # a batch's answers are queued before its rows are captured
                    captures, unconfirmed = await self._run(lambda: self._capture(pending))
                lost = await checkpoint(
                    {number: (self.owned[number].producer, capture) for number, capture in captures.items()},
                    self.topics,
                    asyncio.gather(*unconfirmed),
                    self.commit,
                    self.on_step,
                )
                for number, capture in captures.items():
                    if number in self.owned:
                        self.owned[number].committed = capture.position
            for one in lost:
                self._names_again += captures[one.partition].names
                await self._lose(one)

    def _capture(self, pending: Sequence[Owned]) -> tuple[dict[int, Capture], list["asyncio.Future[object]"]]:
        """On the engine's thread, so between batches: copy out what is to be written."""
        unconfirmed, self._unconfirmed = self._unconfirmed, []
        names = [*self._names_again, *dictionary_records(self.names.take_new())]
        self._names_again.clear()
        captures = {}
        for owned in pending:
            captures[owned.number] = owned.capture(self.engine, self.topic_id, names)
            names = []  # once is enough
        return captures, unconfirmed

    async def _lose(self, lost: PartitionLost) -> None:
        log.warning("%s: forgetting it", lost)
        if lost.partition in self.owned:
            await self._drop(self.owned[lost.partition], keep_statistics=False)


def item_id_of(record: ConsumerRecord[bytes, bytes]) -> str | None:
    """The item that a record of `items` names, None if it cannot be read."""
    if record.value is None:
        return None
    try:
        return _decode_named(record.value).item_id
    except msgspec.DecodeError:
        log.warning("items offset %d: not an item; passed over", record.offset)
        return None
