"""A worker: restores its partitions, applies their events, answers, and makes all of it durable.

The engine's work runs on one thread, one call after another; Kafka's on the event loop beside it. Faust
(eddy.stream.worker.app) hands in chunks and tells of partitions gained and lost. Whatever cannot be answered
for ends the process: the log and the changelog bring everything back.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import torch
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from eddy.models.errors import EddyError
from eddy.stream.engine.engine import Engine, NewerRows, Options
from eddy.stream.engine.live_version import LiveVersion
from eddy.stream.kafka.producers import new_producer, send_all, stop_producers
from eddy.stream.records.chunk import Chunk
from eddy.stream.records.clock import wall_ms
from eddy.stream.records.decode import decode_events
from eddy.stream.records.messages import Message
from eddy.stream.records.partitioner import OtherPartitioner
from eddy.stream.records.settings import Settings
from eddy.stream.state.availability import dictionary_records
from eddy.stream.state.retirement import removals
from eddy.stream.state.snapshots import snapshot_path, sweep_snapshots, write_snapshot
from eddy.stream.worker.checkpoint import CheckpointData, PartitionLost, checkpoint
from eddy.stream.worker.followed_topics import FollowedTopics
from eddy.stream.worker.inbox import Inbox
from eddy.stream.worker.liveness import StallWatch, Standing
from eddy.stream.worker.metrics import WorkerMetrics
from eddy.stream.worker.micro_batch import BatchOutput, apply_micro_batch
from eddy.stream.worker.partition_task import PartitionTask
from eddy.stream.worker.restore import MAX_SNAPSHOT_AGE_MS, Restorer
from eddy.stream.worker.sender import Sender
from eddy.stream.worker.transport import Reading

log = logging.getLogger("eddy.worker")
T = TypeVar("T")

MAX_BATCH_EVENTS = 4096
"""Records applied at once: large enough for batched arithmetic, small enough to answer soon."""

DECODE_ASIDE = 256
"""Records from which on a chunk is decoded on a thread of its own; fewer take less time than the way
there.
"""

FETCH_ENDS_S = 0.002
"""How long a small batch waits at most for the other partitions' chunks of the same fetch."""

MIGRATE_ROWS = 1024
NO_GENERATION = -2
REVOKE_BUDGET = 0.5
"""Share of the session timeout that giving up revoked partitions may take, their last flush and all else."""

GOODBYE_S = 5.0
"""How long the producer of a partition that was taken over may take to close."""

ABORT_S = 0.5
"""How long an abandoned checkpoint may take to abort its transactions."""

REBALANCE_SESSIONS = 2.0
"""Session timeouts within which a worker that was fenced must have heard of the rebalance that did it."""

IDLE_CHECK_S = 60.0
LOOK_S = 5.0
"""Between looks at how the partitions stand in the log."""

ITEM_CHECK_S, ITEM_CHECK_SHARE = 5.0, 0.01
"""How often to look for items that leave: at most so often, and in so much of the time."""


class Worker:
    """See the module. `commit`, `read_again`, `reading` and `take_gone` are the consumer's, once there is one
    (eddy.stream.worker.app).
    """

    def __init__(
        self, settings: Settings, topic_id: bytes, on_step: Callable[[str], None] = lambda _: None
    ) -> None:
        self.settings = settings
        self.topics = settings.topics
        self.topic_id = topic_id
        self.metrics = WorkerMetrics()
        self.commit: Callable[[dict[int, int]], Awaitable[bool]] | None = None
        self.read_again: Callable[[int], Awaitable[None]] | None = None
        self.reading: Callable[[int], Reading | None] = lambda _: None
        self.take_gone: Callable[[int, int], int] = lambda _number, _start: 0
        self.on_step = on_step
        self.tasks: dict[int, PartitionTask] = {}
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # One torch thread here, too: oneDNN would use all cores on a thread that is not told otherwise.
        self._thread = ThreadPoolExecutor(1, "eddy-engine", torch.set_num_threads, (1,))
        self.followed = FollowedTopics(settings, self._run)
        self._engine: Engine | None = None
        self._restorer: Restorer | None = None
        self._answers: AIOKafkaProducer | None = None
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="eddy-decoder")
        self._inbox = Inbox(2 * MAX_BATCH_EVENTS)
        self._sender: Sender | None = None
        self._other_partitioner = OtherPartitioner(settings.partitions, settings.partitioner)
        self._settled = asyncio.Event()
        self._settled.set()
        self._busy = asyncio.Lock()
        self._checkpointing = asyncio.Lock()
        self._names_again: list[Message] = []
        self._background: set[asyncio.Task[None]] = set()
        self._restore: asyncio.Task[None] | None = None
        self._checkpointer: asyncio.Task[None] | None = None
        self._generation = NO_GENERATION
        self._commits = True

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
                self.fail(error)

        task = asyncio.create_task(guarded(), name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    def fail(self, error: BaseException) -> None:
        """End the worker with this error; the first one counts."""
        if not self.failed.done():
            self.failed.set_exception(error)

    # -- life -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Read what is common to all partitions and load the live version, waiting for the first."""
        torch.set_num_threads(1)  # tiles are scored side by side instead: see Settings.threads
        self._answers = new_producer(self.settings)
        await self._answers.start()
        self._sender = Sender(self._answers, self.topics)
        known = asyncio.Event()
        first: list[LiveVersion] = []

        async def on_first(encoder: LiveVersion) -> None:
            first[:] = [encoder]
            known.set()

        self.followed.version.on_loaded = on_first
        self._spawn(self.followed.items.run(), "items")
        await self._unless_failed(self.followed.items.caught_up())
        self._spawn(self.followed.versions.run(), "versions")
        await self._unless_failed(self.followed.versions.caught_up())
        if not known.is_set():
            log.info("no model version is announced yet; waiting (make one with: eddy train --announce)")
        await self._unless_failed(known.wait())
        await self._run(lambda: self._build(first[0]))
        self.followed.version.on_loaded = self._switch_version
        if first[0].epoch > self.engine.live.epoch:
            await self._switch_version(first[0])
        self._spawn(self.followed.version.keep_trying(), "version")
        self._spawn(self.followed.item_stats.run(), "item-stats")
        self._spawn(self._work(), "work")
        self._checkpointer = self._spawn(self._checkpoints(), "checkpoints")
        self._spawn(self._watch(), "watch")
        self._spawn(self._retire_items(), "items that leave")

    async def _unless_failed(self, work: Awaitable[object]) -> None:
        task = asyncio.ensure_future(work)
        waiting: list[asyncio.Future[Any]] = [task, self.failed]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if self.failed.done():
            task.cancel()
            self.failed.result()
        await task

    def _build(self, encoder: LiveVersion) -> None:
        settings = self.settings
        options = Options(
            k=settings.k,
            emit=settings.emit,
            exclude_seen=settings.exclude_seen,
            precision=settings.precision,
            threads=settings.threads,
            sample=settings.prequential_sample,
            ranking_time=settings.prequential_time if settings.prequential_time < 1 else None,
        )
        self.followed.count_for(encoder)
        reader = self.followed.statistics
        self._engine = Engine(encoder, self.followed.names, reader.statistics, options, wall_ms)
        self._engine.warm_up()
        self._restorer = Restorer(settings, self.topic_id, self._engine, reader, self.metrics, self._run)
        self.metrics.epoch.set(encoder.epoch)

    async def _switch_version(self, encoder: LiveVersion) -> None:
        await self._run(lambda: self.engine.switch_version(encoder))
        self.metrics.epoch.set(encoder.epoch)

    async def stop(self) -> None:
        """Flush what was applied, leave snapshots, and give up all partitions."""
        await self.revoked(set(self.tasks), snapshots=True)
        tasks = list(self._background)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._answers is not None:
            await self._answers.stop()
        if self._sender is not None:
            self._sender.close()
        self._thread.shutdown()
        self._decoder.shutdown()

    # -- partitions -------------------------------------------------------------------------------------

    async def assigned(self, partitions: set[int], generation: int) -> None:
        """Partitions were gained (all of them are given); restores in the background, holding chunks back."""
        self._settled.clear()
        self.metrics.ready.set(0)
        await self._end_restore()
        self._generation = generation
        self._restore = self._spawn(self._restore_all(partitions, generation), "restore")

    async def _end_restore(self) -> None:
        if self._restore is not None:
            self._restore.cancel()
            await asyncio.gather(self._restore, return_exceptions=True)
            self._restore = None

    async def _restore_all(self, partitions: set[int], generation: int) -> None:
        for owned in self.tasks.values():
            owned.generation = generation
        for number in sorted(partitions - set(self.tasks)):
            self.tasks[number] = await self._take_over(number, generation)
            self.metrics.rows.set(len(self.engine.slab))
        self.metrics.ready.set(1)
        self._settled.set()

    async def _take_over(self, number: int, generation: int) -> PartitionTask:
        """Restore a partition. While its rows are of a newer epoch than this worker can load, they and the
        events wait: encoded for an older version they would lose what is before their windows. Errors:
        EddyError when that takes longer than a stall may; other workers get the partitions then.
        """
        assert self._restorer is not None
        while True:
            try:
                return await self._restorer.take_over(number, generation, self.followed.caught_up)
            except NewerRows as newer:
                why = f"partition {number}: {newer}; " + self.followed.version.waiting_for(
                    newer.epoch, self.settings.registry
                )
                log.error("its events are held back, %s", why)
                self.metrics.awaited_epoch.set(newer.epoch)
                try:
                    async with asyncio.timeout(self.settings.stall_s):
                        await self.followed.version.reached(newer.epoch)
                except TimeoutError:
                    raise EddyError(
                        f"{why}; ending after EDDY_STALL_S ({self.settings.stall_s:g} s), so that workers "
                        "which have it get the partitions"
                    ) from None
                finally:
                    self.metrics.awaited_epoch.set(0)

    async def revoked(self, partitions: set[int], snapshots: bool = False) -> None:
        """Partitions are about to be lost: flush within the budget, then forget them in any case."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.session_timeout_s * REVOKE_BUDGET
        self._settled.clear()
        await self._end_restore()
        await self._inbox.clear()
        leaving = [self.tasks[number] for number in sorted(partitions) if number in self.tasks]
        for owned in leaving:
            owned.generation = NO_GENERATION  # chunks still on their way are not applied any more
        flushed = False
        flush = asyncio.ensure_future(self._checkpoint())
        try:
            await asyncio.wait([flush], timeout=max(deadline - loop.time(), 0))
            if flush.done():
                flush.result()
                flushed = True
            else:
                log.warning("the last flush took too long; its events will be read again by the next owner")
                leaving = list(self.tasks.values())  # what was captured of any is lost
                await self._abandon(flush)
                await self._abandon(self._checkpointer)
                self._checkpointer = self._spawn(self._checkpoints(), "checkpoints")
        finally:
            for owned in leaving:
                held = self.tasks.get(owned.number) is owned  # the flush may have found it taken over
                if snapshots and flushed and held and not owned.pending:
                    await self._run(lambda owned=owned: self._snapshot(owned))  # type: ignore[misc]
            await self._drop(leaving, keep_statistics=flushed, within_s=deadline - loop.time())
            if not flushed:  # the abandoned checkpoint may have been about to forget one of them
                for number in partitions - {owned.number for owned in leaving}:
                    await self._forget(number)

    async def _abandon(self, checkpoint: asyncio.Future[None] | None) -> None:
        """End a checkpoint in any case: aiokafka waits without end for a transaction's outcome once its
        producer is stopped, and again when it is told to abort instead.
        """
        while checkpoint is not None and not checkpoint.done():
            checkpoint.cancel()
            await asyncio.wait([checkpoint], timeout=ABORT_S)

    def _snapshot(self, owned: PartitionTask) -> None:
        """On the engine's thread: leave a durable partition's rows on the local disk."""
        snapshot = owned.snapshot(self.engine, self.topic_id)
        path = snapshot_path(self.settings.cache_dir, self.settings.group, self.topic_id, owned.number)
        try:
            write_snapshot(path, snapshot)
        except EddyError as error:
            log.warning("%s; the next start reads the changelog instead", error)

    async def _drop(self, leaving: Sequence[PartitionTask], keep_statistics: bool, within_s: float) -> None:
        """Forget partitions; their producers have so long, all together, to close."""
        if not leaving:
            return
        assert self._restorer is not None
        restorer = self._restorer
        for owned in leaving:
            self.tasks.pop(owned.number, None)
        await stop_producers([owned.producer for owned in leaving], max(within_s, ABORT_S))
        for number in [owned.number for owned in leaving]:
            if keep_statistics:
                await self._run(lambda number=number: restorer.forget(number))  # type: ignore[misc]
            else:
                await self._forget(number)
            self.metrics.drop_partition(number)
        self.metrics.rows.set(len(self.engine.slab))

    async def _forget(self, number: int) -> None:
        """Drop rows and statistics that may be ahead of what is durable."""
        assert self._restorer is not None
        restorer = self._restorer
        await self._run(lambda: restorer.forget(number))
        await self.followed.forget_statistics(number)

    # -- events -----------------------------------------------------------------------------------------

    async def put(self, chunk: Chunk) -> None:
        """Take in a chunk; waits while partitions are being restored and while the engine is behind."""
        await self._settled.wait()

        if len(chunk.records) >= DECODE_ASIDE:
            decoded = await asyncio.get_running_loop().run_in_executor(
                self._decoder, decode_events, chunk.records, chunk.partition, self.settings.admission
            )
            chunk = replace(chunk, decoded=decoded)
        await self._inbox.put_chunk(chunk)

    async def _work(self) -> None:
        idle_checked = time.monotonic()
        while True:
            filled = asyncio.ensure_future(self._inbox.filled())
            while not (await asyncio.wait([filled], timeout=0.05))[0]:
                async with self._busy:
                    await self._reencode_oldest()
            if self._inbox.events < DECODE_ASIDE:
                await self._inbox.fetch_ended(FETCH_ENDS_S)
            assert self._sender is not None
            await self._sender.room()
            async with self._busy:
                await self._process(await self._inbox.take_chunks(MAX_BATCH_EVENTS))
                await self._reencode_oldest()
                if time.monotonic() - idle_checked > IDLE_CHECK_S:
                    idle_checked = time.monotonic()
                    await self._forget_idle()

    async def _reencode_oldest(self) -> None:
        """Encode some rows of older epochs anew, if there are any and no partition is between owners."""
        if not (self._settled.is_set() and self.engine.may_be_stale):
            return
        changed = await self._run(lambda: self.engine.reencode_oldest(MIGRATE_ROWS))
        if len(changed):
            home = self.engine.slab.partition[changed]
            for number, owned in self.tasks.items():
                owned.changed(changed[home == number])
        self.metrics.stale_rows.set(self.engine.stale)

    async def _forget_idle(self) -> None:
        """Drop rows that nobody touched for longer than the setting says."""
        days = self.settings.idle_days
        if days is None:
            return
        for owned in list(self.tasks.values()):  # partitions may come and go meanwhile
            idle = await self._run(lambda owned=owned: self._erase_idle(owned, days))  # type: ignore[misc]
            if idle:
                self.metrics.idle.inc(idle)
                log.info("partition %d: %d rows idle for more than %g days dropped", owned.number, idle, days)

    def _erase_idle(self, owned: PartitionTask, days: float) -> int:
        """On the engine's thread: returns how many rows were dropped."""
        users = self.engine.idle_users(owned.number, round(days * 86_400_000), owned.committed or 0)
        owned.erase(self.engine, users)
        return len(users)

    async def _process(self, arrived: Sequence[Chunk]) -> None:
        taken: dict[int, list[Chunk]] = {}
        for chunk in arrived:
            owned = self.tasks.get(chunk.partition)
            if owned is None or chunk.generation != owned.generation:
                continue  # from before a rebalance: its records will come again
            if not owned.accept(chunk):
                self._read_again(chunk.partition, chunk.seeks)
                continue
            taken.setdefault(chunk.partition, []).append(chunk)
        if not taken:
            return
        owners = {number: self.tasks[number] for number in taken}
        output: BatchOutput = await self._run(
            lambda: apply_micro_batch(
                self.engine,
                self.settings,
                self.topic_id,
                owners,
                taken,
                self.metrics,
                self._other_partitioner,
            )
        )
        assert self._sender is not None
        self._sender.put_batch(output)

    def _read_again(self, number: int, seeks: int) -> None:
        """Have records fetched once more that were lost between Kafka and here."""
        assert self.read_again is not None
        log.warning(
            "partition %d: records were fetched but not handed over; going back to the committed offset",
            number,
        )
        # Not awaited: a rebalance may be waiting for this batch, and the seek for the rebalance.
        self._spawn(self.read_again(seeks), "read again")

    # -- durability -------------------------------------------------------------------------------------

    async def _checkpoints(self) -> None:
        interval = self.settings.checkpoint_ms / 1000
        while True:
            started = time.monotonic()
            await self._checkpoint()
            await self._carry_withdrawals()
            for number, owned in list(self.tasks.items()):
                reading = self.reading(number)
                if reading is not None and reading.end is not None:
                    standing = Standing(owned.position, reading, 0, reading.end)
                    self.metrics.lag.labels(number).set(standing.left)
            await asyncio.sleep(max(0.0, interval - (time.monotonic() - started)))

    async def _carry_withdrawals(self) -> None:
        """Write to the dictionary what only tombstones say of items, which compaction forgets in the end."""
        assert self._answers is not None
        availability = self.followed.names.availability
        ids = await self._run(availability.take_to_carry)
        if not ids:
            return
        try:
            records = await self._run(lambda: dictionary_records(ids, availability))
            await asyncio.gather(*await send_all(self._answers, self.topics.items, 0, records))
        except asyncio.CancelledError:  # abandoned with its checkpoint: the next one carries them
            self._thread.submit(availability.carry_again, ids)
            raise

    async def _retire_items(self) -> None:
        """Let items leave that nobody touches: see `eddy.stream.state.retirement`."""
        names, took = self.followed.names, 0.0
        while True:
            await asyncio.sleep(max(ITEM_CHECK_S, took / ITEM_CHECK_SHARE))
            if not self._settled.is_set():
                continue
            try:
                await self.followed.item_stats.caught_up()  # what is not read yet may have touched an item
            except KafkaError:  # the cluster is away
                continue
            removed, took = await self._run(self._retire)
            if removed:
                assert self._answers is not None
                await asyncio.gather(*await send_all(self._answers, self.topics.items, 0, removed))
            self.metrics.items.set(len(names.catalogue))

    def _retire(self) -> tuple[list[Message], float]:
        """On the engine's thread: what is to be written to `items`, by one worker of all, and the seconds
        that this took.
        """
        if not self._settled.is_set():  # partitions are on their way, and their statistics with them
            return [], 0.0
        began = time.thread_time()
        engine, owned = self.engine, dict(self.tasks)
        for number, partition in owned.items():
            if engine.drop_idle_items(number):
                partition.rewrite_statistics()
        engine.forget_items()
        removed: list[Message] = []
        if 0 in owned:
            removed = removals(engine.names, engine.statistics, engine.clock.now(engine.wall()))
        return removed, time.thread_time() - began

    async def _checkpoint(self) -> None:
        async with self._checkpointing:
            # A batch that is being applied belongs to it, too: a flush must not miss what is not noted yet.
            async with self._busy:
                owners = {number: owned for number, owned in self.tasks.items() if owned.pending}
                if self.commit is None or self._sender is None or not owners:
                    return
                captures = await self._run(lambda: self._capture(owners))
                confirmed = self._sender.take_unconfirmed()
            with self.metrics.checkpoint_seconds.time():
                try:
                    outcome = await checkpoint(
                        {number: (owners[number].producer, capture) for number, capture in captures.items()},
                        self.topics,
                        confirmed,
                        self.commit,
                        self.on_step,
                    )
                except asyncio.CancelledError:
                    self._names_again += [name for capture in captures.values() for name in capture.names]
                    raise
            if self._commits != outcome.committed:
                self._commits = outcome.committed
                log.info(
                    "offsets are committed again"
                    if outcome.committed
                    else "the group is rebalancing and offsets are not committed; rows are written, and the "
                    "next checkpoint tries again"
                )
            gone = {one.partition for one in outcome.lost}
            for number, capture in captures.items():
                if number not in gone:
                    owners[number].mark_committed(capture, outcome.committed)
            for one in outcome.lost:
                self._names_again += captures[one.partition].names
                await self._lose(one)

    async def _watch(self) -> None:
        """End the worker when its commits stand still although the cluster answers and has more; tell of
        records that were gone before they were read, and go back for those that were lost on their way.
        """
        watch = StallWatch(self.settings.stall_s)
        unreceived: dict[int, Reading] = {}
        while True:
            await asyncio.sleep(LOOK_S)
            sweep_snapshots(self.settings.cache_dir, self.settings.group, MAX_SNAPSHOT_AGE_MS)
            spans = await self._spans()
            if not self._settled.is_set():
                spans = {}
            standings = {
                number: Standing(owned.committed, self.reading(number), *spans[number])
                for number, owned in self.tasks.items()
                if number in spans
            }
            self.metrics.stalled.set(watch.stalled_seconds(standings))
            for number, standing in standings.items():
                self._note_gone(number, standing.start)
            before, unreceived = unreceived, self._unreceived(standings)
            for number, reading in unreceived.items():
                if before.get(number) == reading:
                    self._read_again(number, reading.seeks)

    async def _spans(self) -> dict[int, tuple[int, int]]:
        """First and end offset of the owned partitions in the log; none when the cluster does not answer."""
        events = [TopicPartition(self.topics.events, number) for number in self.tasks]
        with contextlib.suppress(KafkaError, TimeoutError):
            async with asyncio.timeout(LOOK_S):
                spans = await self.followed.items.spans(events)
                return {tp.partition: span for tp, span in spans.items()}
        return {}

    def _note_gone(self, number: int, start: int) -> None:
        gone = self.take_gone(number, start)
        if gone:
            log.warning(
                "%s partition %d: %d offsets before %d were gone (retention) before they were read",
                self.topics.events, number, gone, start,
            )  # fmt: skip
            self.metrics.gone.inc(gone)
            self.tasks[number].applied_up_to(
                start
            )  # committed next, so that no later owner tells of them again

    def _unreceived(self, standings: Mapping[int, Standing]) -> dict[int, Reading]:
        """Partitions whose last chunk was handed out but has not come, though nothing is on its way."""
        readings = {number: standing.reading for number, standing in standings.items()}
        return {
            number: reading
            for number, reading in readings.items()
            if reading is not None
            and not self._inbox.events
            and (reading.handed or 0) > (self.tasks[number].received or 0)
        }

    def _capture(self, owners: dict[int, PartitionTask]) -> dict[int, CheckpointData]:
        """On the engine's thread, so between batches: copy out what is to be written."""
        items = self.followed.names
        names = [*self._names_again, *dictionary_records(items.take_new(), items.availability)]
        self._names_again.clear()
        captures = {}
        for number, owned in owners.items():
            captures[number] = owned.capture(self.engine, self.topic_id, names)
            names = []  # once is enough
        return captures

    async def _lose(self, lost: PartitionLost) -> None:
        log.warning("%s: forgetting it", lost)
        if lost.partition in self.tasks:
            await self._drop([self.tasks[lost.partition]], keep_statistics=False, within_s=GOODBYE_S)
        self._spawn(self._await_rebalance(lost, self._generation), "rebalance")

    async def _await_rebalance(self, lost: PartitionLost, generation: int) -> None:
        """A partition is taken over in a rebalance; without one nobody would work on it any more."""
        await asyncio.sleep(REBALANCE_SESSIONS * self.settings.session_timeout_s)
        if self._generation == generation:
            raise EddyError(
                f"{lost}, but the group still gives it to this one: is EDDY_GROUP also the name of something "
                "else? Restarting takes it back"
            )
