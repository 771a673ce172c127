"""The partitions that a worker owns, from their assignment to their revocation.

A rebalance takes all partitions from all workers and gives them out anew (aiokafka knows this protocol only),
but most of them come back. So rows that are as the changelog has them stay in memory meanwhile:

| a partition | goes on |
| --- | --- |
| that stays | at once: between two generations that follow each other nobody else can have had it |
| that comes back later | once its owner of meanwhile is fenced and the changelog's tail is read |
| that is new here | once it is restored |
| that somebody else got | not here: its rows are dropped, or followed as a stand-by copy if settings say so |
"""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from functools import partial

from aiokafka import AIOKafkaProducer

from eddy.models.errors import EddyError
from eddy.stream.engine.engine import Engine
from eddy.stream.engine.rows_by_version import NewerRows
from eddy.stream.kafka.producers import stop_producers
from eddy.stream.records.settings import Settings
from eddy.stream.state.snapshots import snapshot_path, write_snapshot
from eddy.stream.worker.background import BackgroundTasks, OnThread
from eddy.stream.worker.checkpoint import PartitionLost
from eddy.stream.worker.consumer import EventsConsumer
from eddy.stream.worker.followed_topics import FollowedTopics
from eddy.stream.worker.metrics import WorkerMetrics
from eddy.stream.worker.partition_task import PartitionTask
from eddy.stream.worker.restore import Restorer, RowCopy

log = logging.getLogger("eddy.worker")

NO_GENERATION = -2
"""No chunk is of this generation of the consumer group (Faust says -1 before the first one)."""

CLOSE_S = 5.0
"""How long producers that are not needed any more may take to close, beside everything else."""

FENCES_AT_ONCE = 16
"""So many producers are started side by side; each opens connections of its own."""

REBALANCE_SESSIONS = 2.0
"""Session timeouts within which a worker that was fenced must have heard of the rebalance that did it."""


class PartitionSet:
    """The partition tasks of one worker. Each begins to work as soon as it is restored. Between an assignment
    and the end of all restores nothing is settled: nothing is counted as idle, left over or lost.
    """

    def __init__(
        self,
        settings: Settings,
        topic_id: bytes,
        restorer: Restorer,
        followed: FollowedTopics,
        consumer: EventsConsumer,
        run: OnThread,
        background: BackgroundTasks,
    ) -> None:
        self.tasks: dict[int, PartitionTask] = {}
        """by number; only those that are at work"""
        self._given_up: dict[int, PartitionTask] = {}
        """revoked after a clean flush, until the next assignment: all of their rows are durable"""
        self._settings, self._topic_id = settings, topic_id
        self._restorer, self._followed, self._consumer = restorer, followed, consumer
        self._run, self._background = run, background
        self._settled = False
        self._restoring: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._assigned: set[int] = set()
        self._generation = NO_GENERATION
        self._reclaimed: set[int] = set()
        """partitions of this assignment that were fenced off and are taken back"""

    @property
    def engine(self) -> Engine:
        """The engine that holds the rows."""
        return self._restorer.engine

    @property
    def metrics(self) -> WorkerMetrics:
        """The worker's metrics."""
        return self._restorer.metrics

    @property
    def assigned(self) -> set[int]:
        """The partitions that the group gives to this worker, those that are being restored included."""
        return set(self._assigned)

    @property
    def settled(self) -> bool:
        """Whether all assigned partitions are restored and none is being revoked."""
        return self._settled

    # -- assignment -------------------------------------------------------------------------------------

    async def read_copies(self) -> None:
        """Read copies of all partitions, if the worker keeps stand-by copies: what its group gives it later
        begins at once.
        """
        if self._settings.standby:
            await self._restorer.read(range(self._settings.partitions))

    async def assign(self, numbers: set[int], generation: int) -> None:
        """Own these partitions from now on. Those that stayed go on at once; the others are restored, beside
        the caller.
        """
        await self.pause()
        # Under a stable name, another process may have had them in the same generation.
        stays = generation == self._generation + 1 and self._settings.worker_id is None
        self._assigned, self._generation = numbers, generation
        self._reclaimed.clear()
        # 1. What stayed, or was not even revoked, goes on.
        for task in [*self.tasks.values(), *self._given_up.values()]:
            if task.number in numbers and (stays or task.number in self.tasks):
                task.generation = generation
                self._given_up.pop(task.number, None)
                self._begin(task)
        # 2. Of the rest the rows are kept, up to what is durable, where they may be needed.
        producers = [task.producer for task in self._given_up.values()]
        self._restorer.copies |= {
            number: RowCopy(task.changelog_end, "memory and the changelog's tail")
            for number, task in self._given_up.items()
        }
        self._given_up.clear()
        self._close(producers)
        for number in self._restorer.copies.keys() - numbers:
            self.metrics.drop_partition(number)
            if not self._settings.standby:
                await self._restorer.forget(number)
        # 3. What is missing is restored.
        await self._restore_missing()

    def _begin(self, task: PartitionTask) -> None:
        self.tasks[task.number] = task
        self._consumer.start_reading(task.number)
        self.metrics.rows.set(len(self.engine.rows))

    async def _restore_missing(self) -> None:
        """Begin to restore the assigned partitions that are not at work; call `pause` before."""
        missing = self._assigned - set(self.tasks)
        if missing:
            self.metrics.ready.set(0)
            self._restoring = self._background.spawn(self._restore(missing, self._generation), "restore")
        else:
            await self._settle()

    async def _settle(self) -> None:
        """All assigned partitions are at work."""
        # Rows of the others' partitions stay as the changelog has them: only an owner writes what it encodes.
        others = set(range(self._settings.partitions)) - self._assigned
        await self._run(lambda: self.engine.reencoding.leave_out(others))
        self._settled = True
        self.metrics.ready.set(self._assigned <= set(self.tasks))  # one may have been lost meanwhile
        if self._settings.standby and others:
            following = self._restorer.follow(others, self._followed.version.reached)
            self._following = self._background.spawn(following, "stand-by copies")

    async def _restore(self, missing: Collection[int], generation: int) -> None:
        """1. Fence the partitions' former owners.
        2. Wait for the followed topics, so that items and statistics are complete.
        3. Bring the rows up to the changelog's end; a partition begins as soon as its rows are there.

        If this fails or is cancelled, partitions that have not begun leave what they have read as copies.
        """
        producers: dict[int, AIOKafkaProducer] = {}

        async def begin(number: int, end: int) -> None:
            task = await self._restorer.begin_task(number, generation, producers[number], end)
            del producers[number]
            self._begin(task)

        try:
            await self._fence(missing, producers)
            await self._followed.caught_up()
            while newer := await self._restorer.read(set(producers), begin):
                await self._await_version(newer)
        finally:
            self._close(list(producers.values()))
        await self._settle()

    async def _fence(self, numbers: Collection[int], producers: dict[int, AIOKafkaProducer]) -> None:
        """Start the producers of partitions, side by side."""
        at_once = asyncio.Semaphore(FENCES_AT_ONCE)

        async def fence(number: int) -> None:
            async with at_once:
                producers[number] = await self._restorer.fence(number)

        results = await asyncio.gather(*map(fence, sorted(numbers)), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _await_version(self, newer: Mapping[int, NewerRows]) -> None:
        """Wait until the version is there that rows of these partitions are of. Encoded for an older version,
        the rows would lose what is before their windows; so they wait, and their events with them.

        Errors: EddyError when that takes longer than a stall may; other workers get the partitions then.
        """
        version, reasons = self._followed.version, []
        for number, rows in newer.items():
            waits_for = version.waiting_for(rows.epoch, self._settings.registry)
            reasons.append(f"partition {number}: {rows}; {waits_for}")
            log.error("its events are held back, %s", reasons[-1])
        epoch = max(rows.epoch for rows in newer.values())
        self.metrics.awaited_epoch.set(epoch)
        try:
            async with asyncio.timeout(self._settings.stall_s):
                await version.reached(epoch)
        except TimeoutError:
            raise EddyError(
                f"{reasons[0]}; ending after EDDY_STALL_S ({self._settings.stall_s:g} s), so that workers "
                "which have it get the partitions"
            ) from None
        finally:
            self.metrics.awaited_epoch.set(0)

    # -- revocation -------------------------------------------------------------------------------------

    async def pause(self, within_s: float | None = None) -> None:
        """Let nothing be settled, and end what reads rows, waiting for its end so long."""
        self._settled = False
        reading = [task for task in (self._restoring, self._following) if task is not None]
        for task in reading:
            task.cancel()
        if reading:
            _, unfinished = await asyncio.wait(reading, timeout=within_s)
            if not unfinished:
                self._restoring = self._following = None

    def stop_accepting(self, tasks: Collection[PartitionTask]) -> None:
        """Let no chunk reach these tasks, also none that is on its way."""
        for task in tasks:
            task.generation = NO_GENERATION
            self._consumer.stop_reading(task.number)

    async def give_up(self, tasks: Collection[PartitionTask]) -> None:
        """Stop to work on partitions after a flush, and keep the rows until the next assignment says whose
        they are. Where something changed since the flush, nothing is kept.
        """
        present = [task for task in tasks if self.tasks.get(task.number) is task]  # not taken over by others
        await self.drop([task for task in present if not task.durable])
        self._given_up |= {task.number: self.tasks.pop(task.number) for task in present if task.durable}

    async def drop(self, tasks: Collection[PartitionTask]) -> None:
        """Forget partitions whose rows or item statistics may be ahead of what is durable."""
        self.stop_accepting(tasks)
        self._close([task.producer for task in tasks])
        # All leave before the first wait, or a checkpoint meanwhile would commit what it cannot write.
        for task in tasks:
            self.tasks.pop(task.number, None)
        for task in tasks:
            await self.forget(task.number)
        self.metrics.rows.set(len(self.engine.rows))

    async def forget(self, number: int) -> None:
        """Drop a partition's rows, and have its item statistics read again."""
        self.metrics.drop_partition(number)
        await self._restorer.forget(number)
        await self._followed.forget_statistics(number)

    def _close(self, producers: Sequence[AIOKafkaProducer]) -> None:
        """Close producers beside everything else."""
        if producers:
            self._background.spawn(stop_producers(producers, CLOSE_S), "close producers")

    async def close(self) -> None:
        """End, after everything was given up; the rows are left on the local disk."""
        for task in self._given_up.values():
            if not task.pending:
                await self._run(partial(self._write_snapshot, task))
        await stop_producers([task.producer for task in self._given_up.values()], CLOSE_S)
        self._given_up.clear()

    def _write_snapshot(self, task: PartitionTask) -> None:
        settings = self._settings
        snapshot = task.snapshot(self.engine, self._topic_id)
        path = snapshot_path(settings.cache_dir, settings.group, self._topic_id, task.number)
        try:
            write_snapshot(path, snapshot)
        except EddyError as error:
            log.warning("%s; the next start reads the changelog instead", error)

    # -- fencing ----------------------------------------------------------------------------------------

    async def lose(self, lost: PartitionLost) -> None:
        """Another process fenced this worker off a partition: forget it, and expect a rebalance. One whose
        producer was forgotten by the cluster is taken back at once.
        """
        log.warning("%s: forgetting it", lost)
        if lost.partition in self.tasks:
            await self.drop([self.tasks[lost.partition]])
        if lost.partition in self._assigned - set(self.tasks):
            self.metrics.ready.set(0)
        again = lost.partition in self._reclaimed and not lost.forgotten
        self._background.spawn(self._await_rebalance(lost, self._generation, again), "rebalance")

    async def _await_rebalance(self, lost: PartitionLost, generation: int, again: bool) -> None:
        """Whoever takes a partition over does so in a rebalance. Without one the group still gives it to this
        worker, and nobody would work on it any more, so it is taken back. That happens when a member that
        was just replaced fences late, while it restores what it does not own any more.

        Errors: EddyError when the partition was lost `again` within the same assignment.
        """
        if not lost.forgotten:
            await asyncio.sleep(REBALANCE_SESSIONS * self._settings.session_timeout_s)
        while self._restoring is not None and not self._restoring.done():
            await asyncio.wait([self._restoring])  # it may be one of other partitions
        if self._generation != generation:
            return
        if again:
            raise EddyError(
                f"{lost}, twice, but the group still gives it to this one: is EDDY_GROUP also the name of "
                "something else? Restarting takes it back"
            )
        missing = self._assigned - set(self.tasks)
        if lost.partition in missing and self.settled:  # else a rebalance is under way
            log.warning("%s, but the group still gives it to this one; taking it back", lost)
            if not lost.forgotten:
                self._reclaimed |= missing
            await self.pause()
            await self._restore_missing()
