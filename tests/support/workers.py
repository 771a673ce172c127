"""Workers without a cluster: the real parts, with a consumer and producers that do what a test tells them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

from eddy.models.registry import Version
from eddy.models.storage import located
from eddy.stream.engine.live_shares import LiveShares
from eddy.stream.engine.rows_by_version import NewerRows
from eddy.stream.records.settings import Settings
from eddy.stream.state.item_statistics import Journal
from eddy.stream.worker.background import BackgroundTasks, EngineThread
from eddy.stream.worker.followed_topics import FollowedTopics
from eddy.stream.worker.metrics import WorkerMetrics
from eddy.stream.worker.partition_task import PartitionTask
from eddy.stream.worker.restore import RowCopy
from eddy.stream.worker.transport import Reading
from eddy.stream.worker.worker import Worker
from tests.support.engines import new_engine, random_version


async def at_once() -> None:
    """Nothing to wait for."""


class StubConsumer:
    """Notes the commits that it is asked for, of which it refuses the first `refusals`; and what it reads."""

    def __init__(self, refusals: int = 0) -> None:
        self.refusals = refusals
        self.commits: list[dict[int, int]] = []
        self.read: set[int] = set()

    def start_reading(self, number: int) -> None:
        self.read.add(number)

    def stop_reading(self, number: int) -> None:
        self.read.discard(number)

    async def commit(self, offsets: dict[int, int]) -> bool:
        self.commits.append(offsets)
        return len(self.commits) > self.refusals

    async def read_again(self, seeks: int) -> None:
        """Nothing was lost."""

    def reading(self, number: int) -> Reading | None:
        return None

    def take_gone(self, number: int, start: int) -> int:
        return 0


class StubProducer:
    """Stops when it is told to, in a way that a test chooses."""

    def __init__(self, stop: Callable[[], Awaitable[None]] = at_once) -> None:
        self.stop = stop


def new_worker(settings: Settings, version: Version, consumer: StubConsumer | None = None) -> Worker:
    """A worker that has not begun to work; item statistics are not followed."""
    thread, engine = EngineThread(), new_engine(version)
    followed = FollowedTopics(settings, thread.run)
    followed.count_for(LiveShares.whole(engine.newest.live))
    followed.forget_statistics = lambda partition: at_once()  # type: ignore[method-assign]
    producer: Any = StubProducer()
    return Worker(
        settings, bytes(16), engine, followed, consumer or StubConsumer(), producer, thread,
        BackgroundTasks(), WorkerMetrics(),
    )  # fmt: skip


def worker_with_partitions(
    folder: Path,
    partitions: int,
    on_stop: Callable[[], Awaitable[None]] = at_once,
    consumer: StubConsumer | None = None,
    **settings: Any,
) -> Worker:
    """A worker that owns restored partitions, none of which has rows."""
    worker = new_worker(
        Settings(registry=located(folder), cache_dir=folder, idle_days=1).model_copy(update=settings),
        random_version(folder),
        consumer,
    )
    for number in range(partitions):
        producer: Any = StubProducer(on_stop)
        journal = Journal(number, -1, -1)
        worker.partitions.tasks[number] = PartitionTask(number, producer, journal, 1, changelog_end=0)
    worker._sender.take_unconfirmed = at_once  # type: ignore[method-assign]
    return worker


class StubRestorer:
    """Restores partitions as a test says, into nothing."""

    def __init__(self, worker: Worker, read: Callable[[int], NewerRows | None]) -> None:
        self.engine, self.metrics = worker.engine, worker.partitions.metrics
        self.copies: dict[int, RowCopy] = {}
        self._read = read

    async def fence(self, number: int) -> Any:
        return StubProducer()

    async def read(self, numbers: Collection[int], complete: Callable[[int, int], Awaitable[None]]) -> Any:
        newer = {number: self._read(number) for number in sorted(numbers)}
        for number in numbers:
            if newer[number] is None:
                await complete(number, 0)
        return {number: why for number, why in newer.items() if why is not None}

    async def begin_task(self, number: int, generation: int, producer: Any, end: int) -> PartitionTask:
        return PartitionTask(number, producer, Journal(number, -1, -1), generation, changelog_end=end)

    async def forget(self, number: int) -> None:
        """Nothing is there."""
