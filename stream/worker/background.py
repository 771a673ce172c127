"""Work beside each other in one worker: the engine's thread, and tasks whose failure ends the worker."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import torch

T = TypeVar("T")


class OnThread(Protocol):
    """Runs work on the engine's thread."""

    def __call__(self, work: Callable[[], Any]) -> Awaitable[Any]: ...


class EngineThread:
    """The one thread that touches the engine: its calls run one after another, so between batches."""

    def __init__(self) -> None:
        # One torch thread here, too: oneDNN would use all cores on a thread that is not told otherwise.
        self._executor = ThreadPoolExecutor(1, "eddy-engine", torch.set_num_threads, (1,))

    async def run(self, work: Callable[[], T]) -> T:
        """Run the work after what was asked before. Errors: those of the work."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def close(self) -> None:
        """Finish what was asked, and end the thread."""
        self._executor.shutdown()


class BackgroundTasks:
    """The asyncio tasks of a worker. The first one that fails gives `failed` its error, which ends the
    worker.
    """

    def __init__(self) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Awaitable[None], name: str) -> asyncio.Task[None]:
        """Run the work beside the caller."""

        async def guarded() -> None:
            try:
                await work
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                self.fail(error)

        task = asyncio.create_task(guarded(), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def fail(self, error: BaseException) -> None:
        """End the worker with this error; of several errors the first counts."""
        if not self.failed.done():
            self.failed.set_exception(error)

    async def unless_failed(self, work: Awaitable[object]) -> None:
        """Wait for the work, which ends with the wait. Errors: the error of a task that fails meanwhile."""
        task = asyncio.ensure_future(work)
        waiting: list[asyncio.Future[Any]] = [task, self.failed]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if self.failed.done():
                self.failed.result()
            await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def cancel(self) -> None:
        """Cancel all tasks, and wait until they have ended."""
        await asyncio.sleep(0)  # those that were just spawned begin, or their work would never be awaited
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
