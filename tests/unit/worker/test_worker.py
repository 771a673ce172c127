"""A worker's promises that need no cluster: what it holds may come and go at any moment."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from unittest.mock import AsyncMock, patch

import pytest

from eddy.models.errors import EddyError
from eddy.models.storage import located
from eddy.stream.records.settings import Settings
from eddy.stream.state.availability import dictionary_records
from eddy.stream.worker import checkpointer
from eddy.stream.worker.background import BackgroundTasks
from eddy.stream.worker.metrics import WorkerMetrics
from eddy.stream.worker.worker import Worker
from tests.support.engines import random_version
from tests.support.workers import (
    StubConsumer,
    StubProducer,
    StubRestorer,
    at_once,
    new_worker,
    worker_with_partitions,
)


def test_partitions_may_be_lost_while_idle_rows_are_looked_for(tmp_path: Path) -> None:
    async def run() -> list[int]:
        worker, looked_at = worker_with_partitions(tmp_path, 3), []

        def idle(number: int, *_: int) -> list[str]:
            looked_at.append(number)
            worker.partitions.tasks.pop(2, None)
            return []

        with patch.object(worker.engine, "idle_users", idle):
            await worker.batches.drop_idle_rows()
        await worker.stop()
        return looked_at

    assert asyncio.run(run())[:2] == [0, 1]


def test_tasks_that_are_done_are_not_kept() -> None:
    async def run() -> int:
        background = BackgroundTasks()
        await asyncio.gather(*(background.spawn(at_once(), f"task {i}") for i in range(100)))
        await asyncio.sleep(0)
        return len(background)

    assert asyncio.run(run()) == 0


def test_work_that_is_not_waited_for_any_more_ends() -> None:
    """A worker that is told to end while it reads copies would close what they still need."""

    async def run() -> bool:
        ended = asyncio.Event()

        async def read() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        waiting = asyncio.create_task(BackgroundTasks().unless_failed(read()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return ended.is_set()

    assert asyncio.run(run())


def test_a_device_that_is_not_there_is_refused_before_a_version_is_waited_for(tmp_path: Path) -> None:
    settings = Settings(registry=located(tmp_path), bootstrap_servers="nobody", device="cuda:99")
    worker = Worker.start(settings, bytes(16), StubConsumer(), WorkerMetrics())
    with pytest.raises(EddyError, match="EDDY_DEVICE=cuda:99"):
        asyncio.run(worker)


def test_the_first_task_that_fails_says_why_the_worker_ends() -> None:
    async def run() -> str:
        background = BackgroundTasks()

        async def fail(why: str) -> None:
            raise RuntimeError(why)

        await background.spawn(fail("first"), "one that fails")
        await background.spawn(fail("second"), "another one")
        return str(background.failed.exception())

    assert asyncio.run(run()) == "first"


def test_producers_of_a_worker_that_ends_stop_side_by_side(tmp_path: Path) -> None:
    """So that all of them share one deadline: each waits here until the last has begun."""

    async def run() -> None:
        everyone = asyncio.Barrier(5)
        stopped = []

        async def stop() -> None:
            await everyone.wait()
            stopped.append(1)

        worker = worker_with_partitions(tmp_path, 5, stop)
        await worker.stop()
        assert (len(stopped), worker.partitions.tasks) == (5, {})

    asyncio.run(run())


def test_a_producer_that_fails_to_stop_or_never_does_holds_up_no_revocation(tmp_path: Path) -> None:
    async def run() -> None:
        worker, without_end = worker_with_partitions(tmp_path, 3, session_timeout_s=0.1), asyncio.Event()

        async def never() -> None:
            await without_end.wait()

        for number, stop in enumerate((at_once, broken, never)):
            worker.partitions.tasks[number].producer = StubProducer(stop)
        await worker.assigned({0, 1, 2}, 1)
        await worker.revoked({0, 1, 2})
        await worker.assigned(set(), 2)
        assert worker.partitions.tasks == {}
        await worker.stop()

    async def broken() -> None:
        raise RuntimeError("fenced")

    asyncio.run(run())


def test_offsets_that_the_group_refused_are_committed_by_the_next_checkpoint(tmp_path: Path) -> None:
    async def run() -> None:
        consumer = StubConsumer(refusals=1)
        worker = worker_with_partitions(tmp_path, 1, consumer=consumer)
        task = worker.partitions.tasks[0]
        task.applied_up_to(7)
        states = []
        for _ in range(2):
            await worker.checkpointer.take_checkpoint()
            states.append((task.pending, task.committed))
        assert states == [(True, None), (False, 7)]
        assert consumer.commits == [{0: 7}, {0: 7}]
        await worker.stop()

    asyncio.run(run())


def test_a_flush_that_takes_too_long_is_abandoned_and_all_that_was_copied_out_is_forgotten(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        worker = worker_with_partitions(tmp_path, 2, session_timeout_s=0.1)
        without_end = asyncio.Event()
        worker._sender.take_unconfirmed = without_end.wait  # type: ignore[method-assign]
        worker.partitions.tasks[0].applied_up_to(7)
        await worker.revoked({1})
        assert worker.partitions.tasks == {}, "partition 0 stays assigned, but its rows may be half written"
        await worker.stop()

    asyncio.run(run())


def test_a_checkpoint_asks_the_engines_thread_once(tmp_path: Path) -> None:
    """A second question would wait for the batch that is under way, and the next checkpoint with it."""

    async def run() -> None:
        worker = worker_with_partitions(tmp_path, 1)
        asked, ask = list[object](), worker._thread.run

        def counted(work: Callable[[], object]) -> Awaitable[object]:
            asked.append(work)
            return ask(work)

        with patch.object(worker._thread, "run", counted):
            worker.checkpointer.start()
            worker.partitions.tasks[0].applied_up_to(7)
            while worker.partitions.tasks[0].pending:
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert len(asked) == 1
        await worker.stop()

    asyncio.run(run())


def test_withdrawals_that_are_copied_out_while_a_flush_is_abandoned_are_carried_afterwards(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        worker = worker_with_partitions(tmp_path, 1)
        availability = worker.engine.names.availability
        availability.take_records([(b"gone", None)])
        copying, go_on, to_carry = threading.Event(), threading.Event(), availability.to_carry

        def slowly() -> list[str]:
            ids = to_carry()
            copying.set()
            assert go_on.wait(60)
            return ids

        with (
            patch.object(availability, "to_carry", slowly),
            patch.object(checkpointer, "send_all", AsyncMock(return_value=[])) as sent,
        ):
            worker.checkpointer.start()
            await asyncio.to_thread(copying.wait, 60)
            worker.partitions.tasks[0].applied_up_to(7)
            assert not await worker.checkpointer.flush(within_s=0), "the engine's thread is busy"
            go_on.set()
            while to_carry():
                await asyncio.sleep(0)
        (written,) = sent.await_args_list
        assert written.args[1:] == ("items", 0, dictionary_records(["gone"], availability))
        await worker.stop()

    asyncio.run(run())


def test_a_worker_encodes_no_rows_anew_but_those_of_its_own_partitions(tmp_path: Path) -> None:
    """Nobody would write the others to the changelog: not before it has joined its group either."""

    async def run() -> None:
        worker = new_worker(Settings(registry=located(tmp_path), partitions=3), random_version(tmp_path))
        worker._followed.caught_up = at_once  # type: ignore[method-assign]
        worker.partitions._restorer = StubRestorer(worker, lambda _: None)  # type: ignore[assignment]
        settled_at_first = worker.partitions.settled
        assert not settled_at_first
        with patch.object(worker.engine.reencoding, "leave_out") as leave_out:
            await worker.assigned({1}, 1)
            while not worker.partitions.settled:
                await asyncio.sleep(0)
        leave_out.assert_called_once_with({0, 2})
        await worker.stop()

    asyncio.run(run())
