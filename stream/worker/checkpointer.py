"""Makes the work of all partitions durable, now and then and when partitions are revoked."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import numpy as np
from aiokafka import AIOKafkaProducer

from eddy.stream.kafka.producers import send_all
from eddy.stream.records.messages import Message
from eddy.stream.records.settings import Settings
from eddy.stream.state.availability import dictionary_records
from eddy.stream.worker.background import BackgroundTasks, EngineThread
from eddy.stream.worker.checkpoint import CheckpointData, checkpoint
from eddy.stream.worker.checkpoint_pace import interval_s
from eddy.stream.worker.consumer import EventsConsumer
from eddy.stream.worker.liveness import Standing
from eddy.stream.worker.partition_set import PartitionSet
from eddy.stream.worker.partition_task import PartitionTask
from eddy.stream.worker.sender import Sender

log = logging.getLogger("eddy.worker")

ABORT_S = 0.5
"""How long an abandoned checkpoint may take to abort its transactions, before it is cancelled again."""


class Checkpointer:
    """Takes checkpoints, one at a time. `batch_lock` is held while a micro-batch is applied: a checkpoint
    must not miss what a batch has applied and not noted yet. `applied` is set whenever one was.
    """

    def __init__(
        self,
        settings: Settings,
        topic_id: bytes,
        partitions: PartitionSet,
        consumer: EventsConsumer,
        sender: Sender,
        producer: AIOKafkaProducer,
        thread: EngineThread,
        background: BackgroundTasks,
        batch_lock: asyncio.Lock,
        applied: asyncio.Event,
        on_step: Callable[[str], None],
    ) -> None:
        self._settings, self._topic_id, self._partitions = settings, topic_id, partitions
        self._consumer, self._sender, self._producer = consumer, sender, producer
        self._thread, self._background, self._batch_lock = thread, background, batch_lock
        self._applied, self._on_step = applied, on_step
        self._lock = asyncio.Lock()
        self._unwritten_names: list[Message] = []
        """dictionary records of new items, until a checkpoint has written them: one that is abandoned leaves
        them to the next, also when it is abandoned while the engine's thread copies out
        """
        self._commits = True
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Take checkpoints from now on, until the worker's tasks are cancelled: at most one in an interval
        (`checkpoint_pace`), and on a quiet stream as soon as a micro-batch was applied.
        """
        self._loop = self._background.spawn(self._run(), "checkpoints")

    async def flush(self, within_s: float) -> bool:
        """Take a checkpoint now; False when it took longer. It is abandoned then, and what was copied out for
        it is lost from memory, whichever partition it belongs to. Errors: those of the checkpoint.
        """
        flushing = asyncio.ensure_future(self.take_checkpoint())
        await asyncio.wait([flushing], timeout=max(within_s, 0))
        if flushing.done():
            flushing.result()
            return True
        await _abandon(flushing)
        if self._loop is not None:
            await _abandon(self._loop)
            self.start()
        return False

    async def _run(self) -> None:
        longest, clock = self._settings.checkpoint_ms / 1000, asyncio.get_running_loop().time
        while True:
            # 1. What was applied so far.
            started = clock()
            self._applied.clear()
            await self.take_checkpoint()
            await self._carry_withdrawals()
            interval = interval_s(clock() - started, longest)
            self._show_lag()
            # 2. Nothing within the interval, so that a busy worker writes many rows at a time.
            await asyncio.sleep(max(0.0, interval - (clock() - started)))
            # 3. On a quiet stream, wait for the next micro-batch; rows change without one as well, now and
            # then.
            if not any(task.pending for task in self._partitions.tasks.values()):
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._applied.wait(), interval)

    def _show_lag(self) -> None:
        for number, task in list(self._partitions.tasks.items()):
            reading = self._consumer.reading(number)
            if reading is not None and reading.end is not None:
                standing = Standing(task.position, reading, 0, reading.end)
                self._partitions.metrics.lag.labels(number).set(standing.left)

    async def take_checkpoint(self) -> None:
        """Make what was applied so far durable. Errors: whatever the steps in `checkpoint` could not do."""
        metrics = self._partitions.metrics
        async with self._lock:
            # 1. Between two batches, copy out what is to be written.
            async with self._batch_lock:
                tasks = {number: task for number, task in self._partitions.tasks.items() if task.pending}
                if not tasks:
                    return
                parts, names = await self._thread.run(lambda: self._copy_out(tasks))
                answers = asyncio.gather(self._sender.take_unconfirmed(), self._write_names(names))
            # 2. Beside the next batches, confirm the answers, write the rows, and commit the offsets.
            with metrics.checkpoint_seconds.time():
                outcome = await checkpoint(
                    {number: (tasks[number].producer, part) for number, part in parts.items()},
                    self._settings.topics,
                    answers,
                    self._consumer.commit,
                    self._on_step,
                )
            # 3. Note what is durable, and forget the partitions that others took over.
            del self._unwritten_names[: len(names)]
            self._say_whether_committed(outcome.committed)
            lost = {loss.partition: loss for loss in outcome.lost}
            for number, part in parts.items():
                if number not in lost:
                    tasks[number].mark_committed(part, outcome.committed)
                    if part.appended:
                        metrics.freshness.observe(np.concatenate(part.appended), outcome.written_at)
                    for event in part.traced:
                        event.end()
            for loss in lost.values():
                await self._partitions.lose(loss)

    def _say_whether_committed(self, committed: bool) -> None:
        if self._commits != committed:
            self._commits = committed
            log.info(
                "offsets are committed again"
                if committed
                else "the group is rebalancing and offsets are not committed; rows are written, and the "
                "next checkpoint tries again"
            )

    def _copy_out(
        self, tasks: Mapping[int, PartitionTask]
    ) -> tuple[dict[int, CheckpointData], list[Message]]:
        """On the engine's thread: copy what each partition's part of a checkpoint writes, and the names of
        new items.
        """
        engine = self._partitions.engine
        self._unwritten_names += dictionary_records(engine.names.take_new(), engine.names.availability)
        names = list(self._unwritten_names)
        return {number: task.capture(engine, self._topic_id) for number, task in tasks.items()}, names

    async def _write_names(self, names: Sequence[Message]) -> None:
        if names:
            await asyncio.gather(*await send_all(self._producer, self._settings.topics.items, 0, names))

    async def _carry_withdrawals(self) -> None:
        """Write to the dictionary what only tombstones say of items, since compaction forgets tombstones in
        the end.
        """
        availability = self._partitions.engine.names.availability
        if not availability.has_to_carry:
            return  # nearly always: the engine's thread, which may be in a batch, is not waited for

        def copy_out() -> tuple[list[str], list[tuple[bytes, bytes]]]:
            ids = availability.to_carry()
            return ids, dictionary_records(ids, availability)

        ids, records = await self._thread.run(copy_out)
        if ids:
            await asyncio.gather(*await send_all(self._producer, self._settings.topics.items, 0, records))
            await self._thread.run(lambda: availability.note_carried(ids))


async def _abandon(checkpointing: asyncio.Future[None]) -> None:
    """End a checkpoint in any case: aiokafka waits without end for a transaction's outcome once its producer
    is stopped, and again when it is told to abort instead.
    """
    while not checkpointing.done():
        checkpointing.cancel()
        await asyncio.wait([checkpointing], timeout=ABORT_S)
