"""A worker: restores its partitions, applies their events, answers, and makes all of it durable.

The engine's work runs on one thread, one call after another; Kafka's work runs on the event loop beside it.
Faust (eddy.stream.worker.app) hands in chunks and tells of partitions gained and lost. Whatever cannot be
answered for ends the process: the log and the changelog bring everything back.

| part | what it does |
| --- | --- |
| PartitionSet | restores, keeps and drops partition tasks |
| BatchLoop | chunks -> micro-batches -> the engine -> the sender |
| Checkpointer | rows, statistics and offsets -> Kafka |
| LogWatch | stalls, and records that retention removed |
| StatisticsFill | item statistics that a new version asks for |
| ItemRetirement | items that nobody touches |
| RankPublisher | ranks, counted for all to see -> Kafka |
| SelfReport | how the worker is doing, once a second -> Kafka |
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Self

import torch
from aiokafka import AIOKafkaProducer

from eddy.stream.engine.engine import Engine, Options
from eddy.stream.engine.live_shares import LiveShares
from eddy.stream.kafka.producers import new_producer, stop_producers
from eddy.stream.kafka.starting import started
from eddy.stream.records.chunk import Chunk
from eddy.stream.records.clock import wall_ms
from eddy.stream.records.settings import Settings
from eddy.stream.tracing import Tracer
from eddy.stream.worker.background import BackgroundTasks, EngineThread
from eddy.stream.worker.batch_loop import BatchLoop
from eddy.stream.worker.checkpointer import Checkpointer
from eddy.stream.worker.consumer import EventsConsumer
from eddy.stream.worker.event_traces import EventTraces
from eddy.stream.worker.followed_topics import FollowedTopics
from eddy.stream.worker.item_retirement import ItemRetirement
from eddy.stream.worker.log_watch import LogWatch
from eddy.stream.worker.metrics import WorkerMetrics
from eddy.stream.worker.partition_set import CLOSE_S, PartitionSet
from eddy.stream.worker.rank_publisher import RankPublisher
from eddy.stream.worker.restore import Restorer
from eddy.stream.worker.self_report import SelfReport
from eddy.stream.worker.sender import Sender
from eddy.stream.worker.statistics_fill import StatisticsFill

log = logging.getLogger("eddy.worker")

REVOKE_BUDGET = 0.5
"""Share of the session timeout that giving up revoked partitions may take, their last flush and all else."""

LAST_WORDS_S = 2.0
"""How long the end of a worker may wait for the last counts of its ranks, and for the word that it ends."""


class Worker:
    """One member of the group; made by `start` once the first model version is known."""

    def __init__(
        self,
        settings: Settings,
        topic_id: bytes,
        engine: Engine,
        followed: FollowedTopics,
        consumer: EventsConsumer,
        producer: AIOKafkaProducer,
        thread: EngineThread,
        background: BackgroundTasks,
        metrics: WorkerMetrics,
        on_step: Callable[[str], None] = lambda _: None,
        tracer: Tracer | None = None,
    ) -> None:
        """tracer: of events, where their spans are recorded."""
        self.settings, self.engine, self.background = settings, engine, background
        self._thread, self._followed = thread, followed
        restorer = Restorer(settings, topic_id, engine, followed.statistics, metrics, thread.run)
        self.partitions = PartitionSet(
            settings, topic_id, restorer, followed, consumer, thread.run, background
        )
        self._producer, self._sender = producer, Sender(producer, settings.topics)
        batch_lock, applied = asyncio.Lock(), asyncio.Event()
        self.batches = BatchLoop(
            settings, topic_id, self.partitions, consumer, self._sender, thread.run, background,
            batch_lock, applied, EventTraces(tracer, settings.topics.events, settings.group),
        )  # fmt: skip
        self.checkpointer = Checkpointer(
            settings, topic_id, self.partitions, consumer, self._sender, producer, thread, background,
            batch_lock, applied, on_step,
        )  # fmt: skip
        self._log_watch = LogWatch(settings, self.partitions, consumer, followed.items, self.batches)
        self._statistics_fill = StatisticsFill(
            settings, self.partitions, engine.newest.live.version.rules, thread.run
        )
        self._item_retirement = ItemRetirement(
            self.partitions, followed.item_stats, producer, settings.topics.items, thread.run
        )
        self._rank_publisher = RankPublisher(engine.prequential, producer, settings.topics.metrics)
        self._self_report = SelfReport(settings, self.partitions, producer)

    @classmethod
    async def start(
        cls,
        settings: Settings,
        topic_id: bytes,
        consumer: EventsConsumer,
        metrics: WorkerMetrics,
        on_step: Callable[[str], None] = lambda _: None,
        tracer: Tracer | None = None,
    ) -> Self:
        """Read what is common to all partitions, load the live version (waiting until one is announced),
        begin to work, and read stand-by copies, if any are kept, before the worker joins its group.

        Errors: EddyError, or whatever a part could not do.
        """
        torch.set_num_threads(1)  # tiles are scored side by side instead: see Settings.threads
        thread, background = EngineThread(), BackgroundTasks()
        followed = FollowedTopics(settings, thread.run)  # may refuse a setting
        producer = await started(partial(new_producer, settings))
        try:
            live = await _first_version(followed, background)
            engine = await thread.run(lambda: new_engine(settings, live, followed))
            worker = cls(
                settings, topic_id, engine, followed, consumer, producer, thread, background, metrics,
                on_step, tracer,
            )  # fmt: skip
            await worker._run(live)
            await background.unless_failed(worker.partitions.read_copies())
        except BaseException:
            await background.cancel()
            await stop_producers([producer], CLOSE_S)
            thread.close()
            followed.close()
            raise
        return worker

    async def _run(self, first: LiveShares) -> None:
        self._followed.version.on_loaded = self._switch_version
        # Another one may have been loaded while the engine was built.
        await self._switch_version(self._followed.version.loaded or first)
        background = self.background
        background.spawn(self._followed.version.keep_trying(), "version")
        background.spawn(self._followed.item_stats.run(), "item-stats")
        background.spawn(self.batches.run(), "batches")
        self.checkpointer.start()
        background.spawn(self._log_watch.run(), "log watch")
        background.spawn(self._statistics_fill.run(), "statistics")
        background.spawn(self._item_retirement.run(), "items that leave")
        background.spawn(self._rank_publisher.run(), "ranks")
        background.spawn(self._self_report.run(), "report")

    async def _switch_version(self, live: LiveShares) -> None:
        """Go on with a version, all of which is built beside the engine."""
        await self._statistics_fill.until_filled(live)
        engine = self.engine
        while live.epoch > engine.newest.live.epoch:
            builder = await self._thread.run(lambda: engine.builder(live))
            versions = await self._followed.beside(builder)
            await self._thread.run(partial(engine.switch_version, versions, builder))
        self.partitions.metrics.epoch.set(engine.newest.live.epoch)

    async def put(self, chunk: Chunk) -> None:
        """Take in a chunk; waits while the engine is behind."""
        await self.batches.put(chunk)

    async def assigned(self, numbers: set[int], generation: int) -> None:
        """The worker owns these partitions from now on, those that it had before among them. What it does
        not have in memory is restored beside the caller.
        """
        await self.partitions.assign(numbers, generation)

    async def revoked(self, numbers: set[int]) -> None:
        """The worker may lose these partitions: make durable what was applied, within the budget. After a
        clean flush their rows are kept until the next assignment, else they are forgotten.
        """
        loop, partitions = asyncio.get_running_loop(), self.partitions
        deadline = loop.time() + self.settings.session_timeout_s * REVOKE_BUDGET
        # 1. Apply nothing more of them.
        await partitions.pause(deadline - loop.time())
        leaving = [partitions.tasks[number] for number in sorted(numbers) if number in partitions.tasks]
        partitions.stop_accepting(leaving)
        # 2. Make durable what was applied.
        flushed = False
        try:
            flushed = await self.checkpointer.flush(deadline - loop.time())
            if not flushed:
                log.warning("the last flush took too long; its events will be read again by the next owner")
        finally:
            # 3. Keep their rows, or forget what the flush may have left half done: what was copied out of any
            # partition is lost then.
            if flushed:
                await partitions.give_up(leaving)
            else:
                await partitions.drop(list(partitions.tasks.values()))
                for number in numbers - {task.number for task in leaving}:
                    await partitions.forget(number)  # the abandoned flush may have been about to do so

    async def stop(self, leave_group: Callable[[], Awaitable[object]] | None = None) -> None:
        """Flush what was applied, give up all partitions, leave the group, so that others go on with them,
        then leave snapshots and end.
        """
        await self.revoked(set(self.partitions.tasks))
        if leave_group is not None:
            await leave_group()
        await self.partitions.close()
        await self.background.cancel()
        await asyncio.gather(
            self._rank_publisher.publish_last(LAST_WORDS_S), self._self_report.end(LAST_WORDS_S)
        )
        await stop_producers([self._producer], CLOSE_S)  # of what it holds back nothing is committed
        self._sender.close()
        self._thread.close()
        self.batches.close()
        self._followed.close()


async def _first_version(followed: FollowedTopics, background: BackgroundTasks) -> LiveShares:
    """Follow items and versions, and wait for a version that can be loaded."""
    background.spawn(followed.items.run(), "items")
    await background.unless_failed(followed.items.caught_up())
    background.spawn(followed.versions.run(), "versions")
    await background.unless_failed(followed.versions.caught_up())
    if followed.version.loaded is None:
        log.info("no model version is announced yet; waiting (make one with: eddy train --announce)")
        await background.unless_failed(followed.version.reached(0))
    assert followed.version.loaded is not None
    return followed.version.loaded


def new_engine(settings: Settings, live: LiveShares, followed: FollowedTopics) -> Engine:
    """An engine of a live version, with all that its first event needs compiled."""
    options = Options(
        k=settings.k,
        emit=settings.emit,
        exclude_seen=settings.exclude_seen,
        precision=settings.precision,
        threads=settings.threads,
        sample=settings.prequential_sample,
        ranking_time=settings.prequential_time if settings.prequential_time < 1 else None,
    )
    followed.count_for(live)
    engine = Engine(live, followed.names, followed.statistics.statistics, options, wall_ms)
    engine.warm_up()
    return engine
