"""A worker's promises that need no cluster: what it holds may come and go at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from eddy.stream.records.settings import Settings
from eddy.stream.state.item_statistics import Journal
from eddy.stream.worker.partition_task import PartitionTask
from eddy.stream.worker.worker import Worker
from tests.support.engines import new_engine, random_version


class Producer:
    """Stops when it is told to, in a way that a test chooses."""

    def __init__(self, on_stop: Callable[[], Awaitable[None]]) -> None:
        self.stop = on_stop


async def at_once() -> None:
    """Nothing to wait for."""


def worker_of(tmp_path: Path, partitions: int, on_stop: Callable[[], Awaitable[None]] = at_once) -> Worker:
    """A worker that owns restored partitions, none of which has rows."""
    worker = Worker(Settings(registry=tmp_path, cache_dir=tmp_path, idle_days=1), bytes(16))
    worker._engine = new_engine(random_version(tmp_path))
    worker._restorer = SimpleNamespace(forget=lambda number: None)  # type: ignore[assignment]
    for number in range(partitions):
        producer: Any = Producer(on_stop)
        worker.tasks[number] = PartitionTask(number, producer, Journal(number, -1, -1), 1, changelog_end=0)
    return worker


def test_partitions_may_be_lost_while_idle_rows_are_looked_for(tmp_path: Path) -> None:
    async def run() -> list[int]:
        worker, looked_at = worker_of(tmp_path, 3), []

        def idle(number: int, *_: int) -> list[str]:
            looked_at.append(number)
            worker.tasks.pop(2, None)
            return []

        with patch.object(worker.engine, "idle_users", idle):
            await worker._forget_idle()
        await worker.stop()
        return looked_at

    assert asyncio.run(run())[:2] == [0, 1]


def test_tasks_that_are_done_are_not_kept(tmp_path: Path) -> None:
    async def run() -> int:
        worker = worker_of(tmp_path, 1)
        await asyncio.gather(*(worker._spawn(at_once(), f"task {i}") for i in range(100)))
        await asyncio.sleep(0)
        kept = len(worker._background)
        await worker.stop()
        return kept

    assert asyncio.run(run()) == 0


def test_producers_of_revoked_partitions_stop_side_by_side(tmp_path: Path) -> None:
    """So that all of them share one deadline: each waits here until the last has begun."""

    async def run() -> None:
        everyone = asyncio.Barrier(5)
        stopped = []

        async def stop() -> None:
            await everyone.wait()
            stopped.append(1)

        worker = worker_of(tmp_path, 5, stop)
        await worker.revoked(set(range(5)))
        assert (len(stopped), worker.tasks) == (5, {})
        await worker.stop()

    asyncio.run(run())


def test_a_producer_that_fails_to_stop_or_never_does_holds_up_no_revocation(tmp_path: Path) -> None:
    async def run() -> None:
        worker, without_end = worker_of(tmp_path, 3), asyncio.Event()

        async def never() -> None:
            await without_end.wait()

        for number, way in enumerate((at_once, broken, never)):
            worker.tasks[number].producer.stop = way
        worker.settings = worker.settings.model_copy(update={"session_timeout_s": 0.1})
        await worker.revoked({0, 1, 2})
        assert worker.tasks == {}
        await worker.stop()

    async def broken() -> None:
        raise RuntimeError("fenced")

    asyncio.run(run())


def test_offsets_that_the_group_refused_are_committed_by_the_next_checkpoint(tmp_path: Path) -> None:
    async def run() -> None:
        worker = worker_of(tmp_path, 1)
        worker._sender = SimpleNamespace(take_unconfirmed=at_once, close=lambda: None)  # type: ignore[assignment]
        owned, asked = worker.tasks[0], []

        async def commit(offsets: dict[int, int]) -> bool:
            asked.append(offsets)
            return len(asked) > 1

        worker.commit = commit
        owned.applied_up_to(7)
        states = []
        for _ in range(2):
            await worker._checkpoint()
            states.append((owned.pending, owned.committed))
        assert states == [(True, None), (False, 7)]
        assert asked == [{0: 7}, {0: 7}]
        await worker.stop()

    asyncio.run(run())
