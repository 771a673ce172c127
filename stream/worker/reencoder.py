"""Moves rows of older epochs to the newest version while batches go on: the engine's thread copies some rows
and later takes their states, a thread beside it computes these.
"""

import asyncio
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

import torch

from eddy.stream.engine.batch_report import Changed
from eddy.stream.engine.reencoding import EncodedRows, RowsToEncode
from eddy.stream.worker.background import OnThread
from eddy.stream.worker.partition_set import PartitionSet
from eddy.stream.worker.partition_task import note_changed


class Reencoder:
    """See the module. It is used from the event loop."""

    def __init__(self, partitions: PartitionSet, run: OnThread) -> None:
        self._partitions, self._run = partitions, run
        self._thread = ThreadPoolExecutor(1, "eddy-encoder", torch.set_num_threads, (1,))
        self._computing: asyncio.Future[EncodedRows] | None = None

    @property
    def computing(self) -> Collection[asyncio.Future[EncodedRows]]:
        """What is being computed, if anything is."""
        return () if self._computing is None else (self._computing,)

    async def step(self) -> None:
        """Between two batches: take the states that were computed, and begin with the next rows, unless a
        partition is between owners. Errors: whatever the computation has raised.
        """
        engine = self._partitions.engine
        if not (self._partitions.settled and engine.rows.may_be_stale):
            return
        encoded: EncodedRows | None = None
        if self._computing is not None:
            if not self._computing.done():
                return
            encoded, self._computing = self._computing.result(), None
        changed, rows = await self._run(lambda: self._turn(encoded))
        note_changed(self._partitions.tasks, changed)
        self._partitions.metrics.stale_rows.set(engine.reencoding.left)
        if rows is not None:
            self._computing = asyncio.get_running_loop().run_in_executor(self._thread, rows.compute)

    def _turn(self, encoded: EncodedRows | None) -> tuple[list[Changed], RowsToEncode | None]:
        """On the engine's thread."""
        engine = self._partitions.engine
        changed = [] if encoded is None else engine.put_reencoded(encoded)
        return changed, engine.begin_reencoding()

    def close(self) -> None:
        """Wait for what is being computed, and end the thread."""
        self._thread.shutdown()
