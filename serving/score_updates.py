"""Brings the scores of a large catalogue up to date beside the thread that answers: no question waits."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch

from eddy.serving.view import MaterialisedView, ScoresUpdate
from eddy.serving.view_owner import ViewOwner


class ScoreUpdates:
    """Call `begin` where the view is owned, after answers, and `run` with what it returns."""

    def __init__(
        self, view: MaterialisedView, owner: ViewOwner, on_failure: Callable[[Exception], None]
    ) -> None:
        self._view, self._owner, self._on_failure = view, owner, on_failure
        self._thread = ThreadPoolExecutor(1, "eddy-popularity", torch.set_num_threads, (1,))
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> Sequence[ScoresUpdate]:
        """The updates that are soon due; none while others are under way."""
        under_way = self._task is not None and not self._task.done()
        return () if under_way else self._view.begin_updates()

    def run(self, updates: Sequence[ScoresUpdate]) -> None:
        """Do the updates beside whatever else is done."""
        if updates:
            self._task = asyncio.create_task(self._run(updates))

    async def _run(self, updates: Sequence[ScoresUpdate]) -> None:
        try:
            for update in updates:
                done = await asyncio.get_running_loop().run_in_executor(self._thread, update.work)
                await self._owner.do(partial(self._view.put_update, update, *done))
        except Exception as error:
            self._on_failure(error)

    def close(self) -> None:
        """Give up what is under way."""
        if self._task is not None:
            self._task.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)
