"""One owned partition of a worker, between restore and revocation."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from aiokafka import AIOKafkaProducer
from numpy.typing import NDArray

from eddy.stream.engine.batch_report import Changed
from eddy.stream.engine.engine import Engine
from eddy.stream.records.chunk import Chunk
from eddy.stream.records.messages import Message
from eddy.stream.state.item_statistics import Journal
from eddy.stream.state.rows import Rows, keyed
from eddy.stream.state.snapshots import BLOCK_ROWS, Snapshot
from eddy.stream.worker.checkpoint import CheckpointData
from eddy.stream.worker.event_traces import TracedEvent


@dataclass
class PartitionTask:
    """A partition that is owned and restored: how far it has come, and what its next checkpoint writes."""

    number: int
    producer: AIOKafkaProducer
    """transactional; its start has fenced former owners"""
    journal: Journal
    generation: int
    changelog_end: int
    """offset on `user-state` up to which everything is in memory"""
    received: int | None = None
    """end of the last accepted chunk"""
    position: int | None = None
    """offset of the next record to apply"""
    committed: int | None = None
    """offset that the last successful checkpoint has committed"""
    _changed: list[Changed] = field(default_factory=list)
    _erased: dict[str, None] = field(default_factory=dict)
    _appended: list[NDArray[np.int64]] = field(default_factory=list)
    _traced: list[TracedEvent] = field(default_factory=list)
    _rewrites: bool = False
    """whether the next checkpoint writes the item statistics whole"""

    def accept(self, chunk: Chunk) -> bool:
        """Accept a chunk, unless records between it and the chunk before were fetched but never arrived."""
        if chunk.follows is not None and (self.received is None or chunk.follows > self.received):
            return False
        self.received = max(chunk.end, self.received or 0)
        return True

    def changed(self, rows: Changed) -> None:
        """Let the next checkpoint write these rows."""
        if len(rows.slots):
            self._changed.append(rows)

    def erase(self, engine: Engine, users: Sequence[str]) -> None:
        """Forget users, and let the next checkpoint write their tombstones."""
        engine.erase_users([(self.number, user) for user in users])
        self._erased.update(dict.fromkeys(users))

    def rewrite_statistics(self) -> None:
        """Let the next checkpoint write the partition's item statistics whole."""
        self._rewrites = True

    def applied_up_to(self, position: int) -> None:
        """Note that everything before this offset is applied."""
        self.position = max(position, self.position or 0)

    def appended(self, times: NDArray[np.int64]) -> None:
        """Note when records were appended to `events` (ms) that the next checkpoint makes durable."""
        self._appended.append(times)

    def trace(self, event: TracedEvent) -> None:
        """Let the next checkpoint's rows carry on the event's trace, and the event end with it."""
        self._traced.append(event)

    @property
    def durable(self) -> bool:
        """Whether rows and item statistics in memory are as the changelog has them."""
        return not (self._changed or self._erased or self._rewrites)

    @property
    def pending(self) -> bool:
        """Whether a checkpoint would have something to write or to commit."""
        return not self.durable or self.position != self.committed

    def capture(self, engine: Engine, topic_id: bytes) -> CheckpointData:
        """Copy out what the checkpoint writes, on the engine's thread."""
        erased: list[Message] = [(user.encode(), None) for user in self._erased]
        self._erased.clear()
        stored = self._changed_rows(engine, topic_id)

        def rows() -> list[Message]:
            return [*erased, *(message for part in stored for message in keyed(part))]

        for counted in engine.statistics_buffer.drain_counted(self.number):
            self.journal.note_counted(counted)
        if self._rewrites:
            self._rewrites = False
            self.journal.rewrite()
        statistics = self.journal.drain_records(engine.statistics, engine.names.catalogue)
        appended, self._appended = self._appended, []
        traced, self._traced = self._traced, []
        return CheckpointData(self.number, self.position, rows, statistics, appended, traced)

    def _changed_rows(self, engine: Engine, topic_id: bytes) -> list[Rows]:
        """Copies of the rows that changed since the last call, by version. Where a row has moved to another
        version's slab since, or is gone, nothing is left where it was.
        """
        changed, self._changed = self._changed, []
        stored = []
        for version in engine.rows.versions:
            marks = [slots for slab, slots in changed if slab is version.slab]
            if marks:
                slots = np.unique(np.concatenate(marks))
                slots = slots[version.slab.partition[slots] == self.number]
                stored.append(version.export(slots, engine.names.catalogue, topic_id))
        return stored

    def mark_committed(self, capture: CheckpointData, committed: bool) -> None:
        """Note that a checkpoint has written this data, and whether its position is committed, too."""
        if committed:
            self.committed = capture.position
        self.changelog_end = max(self.changelog_end, capture.changelog_end)

    def snapshot(self, engine: Engine, topic_id: bytes) -> Snapshot:
        """All rows of the partition. Allowed only while nothing is pending, since no row of a snapshot may be
        ahead of the changelog: one that waits to be encoded anew waits in the snapshot as well, or the
        changelog would keep its old epoch for good.
        """
        return Snapshot(self.changelog_end, topic_id, self._blocks(engine, topic_id))

    def _blocks(self, engine: Engine, topic_id: bytes) -> Iterator[Rows]:
        """All rows of the partition, at most BLOCK_ROWS of one version at a time."""
        for version, slots in engine.rows.of_partition(self.number):
            for start in range(0, len(slots), BLOCK_ROWS):
                part = slots[start : start + BLOCK_ROWS]
                yield version.export(part, engine.names.catalogue, topic_id, stale=True)


def note_changed(tasks: Mapping[int, PartitionTask], changed: Iterable[Changed]) -> None:
    """Let the next checkpoint of each task, by partition, write those of the rows that are its."""
    for slab, slots in changed:
        home = slab.partition[slots]
        for number, task in tasks.items():
            task.changed(Changed(slab, slots[home == number]))
