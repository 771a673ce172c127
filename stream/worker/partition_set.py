"""The partitions that a worker owns, from their assignment to their revocation."""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial

from eddy.models.errors import EddyError
from eddy.stream.engine.engine import Engine
from eddy.stream.engine.rows_by_version import NewerRows
from eddy.stream.kafka.producers import stop_producers
from eddy.stream.records.settings import Settings
from eddy.stream.state.snapshots import snapshot_path, write_snapshot
from eddy.stream.worker.background import BackgroundTasks, OnThread
from eddy.stream.worker.checkpoint import PartitionLost
from eddy.stream.worker.followed_topics import FollowedTopics
from eddy.stream.worker.metrics import WorkerMetrics
from eddy.stream.worker.partition_task import PartitionTask
from eddy.stream.worker.restore import Restorer

log = logging.getLogger("eddy.worker")

NO_GENERATION = -2
"""No chunk is of this generation of the consumer group (Faust says -1 before the first one)."""

CLOSE_S = 5.0
"""How long the producer of a partition that was taken over may take to close."""

LEAST_CLOSE_S = 0.5
"""How long producers may take to close however little is left of a revocation's time."""

REBALANCE_SESSIONS = 2.0
"""Session timeouts within which a worker that was fenced must have heard of the rebalance that did it."""


class PartitionSet:
    """The partition tasks of one worker. Between an assignment and the end of its restore nothing is settled:
    chunks wait, and nothing is counted as idle, left over or lost.
    """

    def __init__(
        self,
        settings: Settings,
        topic_id: bytes,
        restorer: Restorer,
        followed: FollowedTopics,
        run: OnThread,
        background: BackgroundTasks,
    ) -> None:
        self.tasks: dict[int, PartitionTask] = {}
        """by number; only those that are restored"""
        self._settings, self._topic_id = settings, topic_id
        self._restorer, self._followed = restorer, followed
        self._run, self._background = run, background
        self._settled = asyncio.Event()
        self._settled.set()
        self._restoring: asyncio.Task[None] | None = None
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
    def settled(self) -> bool:
        """Whether all assigned partitions are restored and none is being revoked."""
        return self._settled.is_set()

    async def until_settled(self) -> None:
        """Wait until all assigned partitions are restored."""
        await self._settled.wait()

    # -- assignment -------------------------------------------------------------------------------------

    async def assign(self, numbers: set[int], generation: int) -> None:
        """Restore the partitions of a new assignment, beside the caller. `numbers` are all that the worker
        owns from now on, those that it had before among them.
        """
        self._assigned, self._generation = numbers, generation
        self._reclaimed.clear()
        await self._restore_missing()

    async def _restore_missing(self) -> None:
        """Begin to restore the assigned partitions that are not there, instead of what was begun before."""
        await self.pause()
        self.metrics.ready.set(0)
        restoring = self._restore(self._assigned, self._generation)
        self._restoring = self._background.spawn(restoring, "restore")

    async def pause(self) -> None:
        """Hold chunks back, and end a restore that is under way."""
        self._settled.clear()
        if self._restoring is not None:
            self._restoring.cancel()
            await asyncio.gather(self._restoring, return_exceptions=True)
            self._restoring = None

    async def _restore(self, numbers: set[int], generation: int) -> None:
        for task in self.tasks.values():
            task.generation = generation
        for number in sorted(numbers - set(self.tasks)):
            self.tasks[number] = await self.take_over(number, generation)
            self.metrics.rows.set(len(self.engine.rows))
        self.metrics.ready.set(1)
        self._settled.set()

    async def take_over(self, number: int, generation: int) -> PartitionTask:
        """Restore one partition. While its rows are of a newer epoch than this worker can load, the rows and
        their events wait: encoded for an older version they would lose what is before their windows.

        Errors: EddyError when that takes longer than a stall may; other workers get the partitions then.
        """
        while True:
            try:
                return await self._restorer.take_over(number, generation, self._followed.caught_up)
            except NewerRows as newer:
                await self._await_version(number, newer)

    async def _await_version(self, number: int, newer: NewerRows) -> None:
        version = self._followed.version
        why = f"partition {number}: {newer}; " + version.waiting_for(newer.epoch, self._settings.registry)
        log.error("its events are held back, %s", why)
        self.metrics.awaited_epoch.set(newer.epoch)
        try:
            async with asyncio.timeout(self._settings.stall_s):
                await version.reached(newer.epoch)
        except TimeoutError:
            raise EddyError(
                f"{why}; ending after EDDY_STALL_S ({self._settings.stall_s:g} s), so that workers "
                "which have it get the partitions"
            ) from None
        finally:
            self.metrics.awaited_epoch.set(0)

    # -- revocation -------------------------------------------------------------------------------------

    def stop_accepting(self, tasks: Sequence[PartitionTask]) -> None:
        """Let no chunk that is still on its way reach these tasks."""
        for task in tasks:
            task.generation = NO_GENERATION

    async def write_snapshots(self, tasks: Sequence[PartitionTask]) -> None:
        """Leave the rows of those tasks that are still owned, and whose rows are all durable, on the local
        disk.
        """
        for task in tasks:
            if self.tasks.get(task.number) is task and not task.pending:  # else the flush found it taken over
                await self._run(partial(self._write_snapshot, task))

    def _write_snapshot(self, task: PartitionTask) -> None:
        settings = self._settings
        snapshot = task.snapshot(self.engine, self._topic_id)
        path = snapshot_path(settings.cache_dir, settings.group, self._topic_id, task.number)
        try:
            write_snapshot(path, snapshot)
        except EddyError as error:
            log.warning("%s; the next start reads the changelog instead", error)

    async def drop(self, tasks: Sequence[PartitionTask], keep_statistics: bool, within_s: float) -> None:
        """Forget partitions. All their producers together have `within_s` seconds to close. Item statistics
        may be kept only where all that they counted is durable.
        """
        if not tasks:
            return
        for task in tasks:
            self.tasks.pop(task.number, None)
        await stop_producers([task.producer for task in tasks], max(within_s, LEAST_CLOSE_S))
        for task in tasks:
            await self.forget(task.number, keep_statistics)
            self.metrics.drop_partition(task.number)
        self.metrics.rows.set(len(self.engine.rows))

    async def forget(self, number: int, keep_statistics: bool = False) -> None:
        """Drop a partition's rows, and its item statistics unless they are kept: they may be ahead of what is
        durable.
        """
        await self._run(lambda: self._restorer.forget(number))
        if not keep_statistics:
            await self._followed.forget_statistics(number)

    # -- fencing ----------------------------------------------------------------------------------------

    async def lose(self, lost: PartitionLost) -> None:
        """Another process fenced this worker off a partition: forget it, and expect a rebalance."""
        log.warning("%s: forgetting it", lost)
        if lost.partition in self.tasks:
            await self.drop([self.tasks[lost.partition]], keep_statistics=False, within_s=CLOSE_S)
        again = lost.partition in self._reclaimed
        self._background.spawn(self._await_rebalance(lost, self._generation, again), "rebalance")

    async def _await_rebalance(self, lost: PartitionLost, generation: int, again: bool) -> None:
        """Whoever takes a partition over does so in a rebalance. Without one the group still gives it to this
        worker, and nobody would work on it any more, so it is taken back. That happens when a member that
        was just replaced fences late, while it restores what it does not own any more.

        Errors: EddyError when the partition was lost `again` within the same assignment.
        """
        await asyncio.sleep(REBALANCE_SESSIONS * self._settings.session_timeout_s)
        if self._generation != generation:
            return
        if again:
            raise EddyError(
                f"{lost}, twice, but the group still gives it to this one: is EDDY_GROUP also the name of "
                "something else? Restarting takes it back"
            )
        missing = self._assigned - set(self.tasks)
        if lost.partition in missing and self.settled:  # else a restore is under way, or has taken it back
            log.warning("%s, but the group still gives it to this one; taking it back", lost)
            self._reclaimed |= missing
            await self._restore_missing()
