"""From chunks to micro-batches: takes chunks in, applies them on the engine's thread, and hands over what
they say. Between batches it encodes rows of older epochs anew and drops rows that nobody touches.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from eddy.stream.records.chunk import Chunk
from eddy.stream.records.clock import DAY_MS
from eddy.stream.records.decode import decode_events
from eddy.stream.records.partitioner import OtherPartitioner
from eddy.stream.records.settings import Settings
from eddy.stream.worker.background import BackgroundTasks, OnThread
from eddy.stream.worker.consumer import EventsConsumer
from eddy.stream.worker.event_traces import EventTraces
from eddy.stream.worker.inbox import Inbox
from eddy.stream.worker.micro_batch import BatchOutput, apply_micro_batch
from eddy.stream.worker.partition_set import PartitionSet
from eddy.stream.worker.partition_task import PartitionTask, note_changed
from eddy.stream.worker.sender import Sender

log = logging.getLogger("eddy.worker")

MAX_BATCH_EVENTS = 4096
"""Records applied at once: enough for batched arithmetic, and few enough to answer soon."""

DECODE_ASIDE = 256
"""Records from which on a chunk is decoded on a thread of its own; fewer are decoded sooner than that thread
has begun.
"""

FETCH_ENDS_S = 0.002
"""How long a small batch waits at most for the other partitions' chunks of the same fetch."""

REENCODE_S, MOST_REENCODE_S = 0.05, 0.1
"""How long rows of older epochs are encoded anew at a time, while there are no events, and at most between
two batches: answers wait so long. Up to there it takes half of the time. While two versions have rows every
event costs more, so that a worker at half of its capacity falls behind if more is done at a time (with 0.25 s
the slowest answers took 5 s instead of 1.3 s), and needs longer if less is done.
"""

IDLE_POLL_S = 0.05
"""How often a worker without events looks for rows of older epochs."""

IDLE_ROWS_S = 60.0
"""How often a worker with events looks for rows that nobody touches."""


class BatchLoop:
    """Takes chunks and applies them, one micro-batch after another, holding `batch_lock` meanwhile, and sets
    `applied` after each.
    """

    def __init__(
        self,
        settings: Settings,
        topic_id: bytes,
        partitions: PartitionSet,
        consumer: EventsConsumer,
        sender: Sender,
        run: OnThread,
        background: BackgroundTasks,
        batch_lock: asyncio.Lock,
        applied: asyncio.Event,
        traces: EventTraces,
    ) -> None:
        self.inbox = Inbox(2 * MAX_BATCH_EVENTS)
        self._settings, self._topic_id, self._partitions = settings, topic_id, partitions
        self._consumer, self._sender, self._run = consumer, sender, run
        self._background, self._batch_lock, self._applied = background, batch_lock, applied
        self._traces = traces
        self._reencoded_at = time.monotonic()
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="eddy-decoder")
        self._other_partitioner = OtherPartitioner(settings.partitions, settings.partitioner)

    def close(self) -> None:
        """End the decoder's thread."""
        self._decoder.shutdown()

    async def put(self, chunk: Chunk) -> None:
        """Take in a chunk; waits while the engine is behind."""
        if len(chunk.records) >= DECODE_ASIDE:
            decoded = await asyncio.get_running_loop().run_in_executor(
                self._decoder, decode_events, chunk.records, chunk.partition, self._settings.admission
            )
            chunk = replace(chunk, decoded=decoded)
        await self.inbox.put_chunk(chunk)

    async def run(self) -> None:
        """Apply what comes, until cancelled."""
        looked_for_idle = time.monotonic()
        while True:
            # 1. Wait for chunks. Meanwhile rows of older epochs are encoded anew.
            filled = asyncio.ensure_future(self.inbox.filled())
            while not (await asyncio.wait([filled], timeout=self._poll_s))[0]:
                async with self._batch_lock:
                    await self._reencode_oldest()
            if self.inbox.events < DECODE_ASIDE:
                await self.inbox.fetch_ended(FETCH_ENDS_S)
            # 2. Wait until the messages of the batches before are on their way.
            await self._sender.room()
            # 3. Apply them.
            async with self._batch_lock:
                await self._process(await self.inbox.take_chunks(MAX_BATCH_EVENTS))
                since = time.monotonic() - self._reencoded_at
                await self._reencode_oldest(min(since, MOST_REENCODE_S))
                if time.monotonic() - looked_for_idle > IDLE_ROWS_S:
                    looked_for_idle = time.monotonic()
                    await self.drop_idle_rows()

    async def _process(self, arrived: Sequence[Chunk]) -> None:
        chunks: dict[int, list[Chunk]] = {}
        for chunk in arrived:
            task = self._partitions.tasks.get(chunk.partition)
            if task is None or chunk.generation != task.generation:
                continue  # from before a rebalance: its records will come again
            if task.accept(chunk):
                chunks.setdefault(chunk.partition, []).append(chunk)
            else:
                self.read_again(chunk.partition, chunk.seeks)
        if not chunks:
            return
        tasks = {number: self._partitions.tasks[number] for number in chunks}
        output: BatchOutput = await self._run(
            lambda: apply_micro_batch(
                self._partitions.engine,
                self._settings,
                self._topic_id,
                tasks,
                chunks,
                self._partitions.metrics,
                self._other_partitioner,
                self._traces,
            )
        )
        self._sender.put_batch(output)
        self._applied.set()

    def read_again(self, number: int, seeks: int) -> None:
        """Have records fetched once more that were lost between Kafka and here, unless the consumer's
        positions were set since they had been `seeks` times.
        """
        log.warning(
            "partition %d: records were fetched but not handed over; going back to the committed offset",
            number,
        )
        # Not awaited: a rebalance may be waiting for this batch, and the seek for the rebalance.
        self._background.spawn(self._consumer.read_again(seeks), "read again")

    @property
    def _poll_s(self) -> float:
        """How long to wait for events before rows of older epochs are looked for: not at all if there are."""
        busy = self._partitions.settled and self._partitions.engine.rows.may_be_stale
        return 0.0 if busy else IDLE_POLL_S

    async def _reencode_oldest(self, seconds: float = REENCODE_S) -> None:
        """For about so long, encode rows of older epochs anew, if there are any and no partition is between
        owners.
        """
        engine = self._partitions.engine
        if not (self._partitions.settled and engine.rows.may_be_stale):
            return
        reencoded = await self._run(lambda: engine.reencode_oldest(seconds))
        self._reencoded_at = time.monotonic()
        note_changed(self._partitions.tasks, reencoded)
        self._partitions.metrics.stale_rows.set(engine.reencoding.left)

    async def drop_idle_rows(self) -> None:
        """Drop the rows that nobody touched for longer than the setting says."""
        days = self._settings.idle_days
        if days is None:
            return
        for task in list(self._partitions.tasks.values()):  # partitions may come and go meanwhile
            dropped = await self._run(partial(self._drop_idle_rows, task, days))
            if dropped:
                self._partitions.metrics.idle.inc(dropped)
                log.info(
                    "partition %d: %d rows idle for more than %g days dropped", task.number, dropped, days
                )

    def _drop_idle_rows(self, task: PartitionTask, days: float) -> int:
        """On the engine's thread: returns how many rows were dropped."""
        engine = self._partitions.engine
        users = engine.idle_users(task.number, round(days * DAY_MS), task.committed or 0)
        task.erase(engine, users)
        return len(users)
