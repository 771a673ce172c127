"""One owned partition of a worker, between restore and revocation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from aiokafka import AIOKafkaProducer
from numpy.typing import NDArray

from eddy.stream.engine.engine import Engine
from eddy.stream.records.chunk import Chunk
from eddy.stream.records.messages import Message
from eddy.stream.state.item_statistics import Journal
from eddy.stream.state.rows import keyed
from eddy.stream.state.snapshots import BLOCK_ROWS, Snapshot
from eddy.stream.worker.checkpoint import CheckpointData


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
    _dirty: list[NDArray[np.int64]] = field(default_factory=list)
    _erased: dict[str, None] = field(default_factory=dict)
    _rewrites: bool = False
    """whether the next checkpoint writes the item statistics whole"""

    def accept(self, chunk: Chunk) -> bool:
        """Accept a chunk, unless records between it and the chunk before were fetched but never arrived."""
        if chunk.follows is not None and (self.received is None or chunk.follows > self.received):
            return False
        self.received = max(chunk.end, self.received or 0)
        return True

    def changed(self, slots: NDArray[np.int64]) -> None:
        """Let the next checkpoint write the rows of these slots."""
        if len(slots):
            self._dirty.append(slots)

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

    @property
    def pending(self) -> bool:
        """Whether a checkpoint would have something to write or to commit."""
        return bool(self._dirty or self._erased or self._rewrites) or self.position != self.committed

    def capture(self, engine: Engine, topic_id: bytes) -> CheckpointData:
        """Copy out what the checkpoint writes, on the engine's thread."""
        erased: list[Message] = [(user.encode(), None) for user in self._erased]
        self._erased.clear()
        stored = None
        if self._dirty:
            slots = np.unique(np.concatenate(self._dirty))
            self._dirty.clear()
            slots = slots[engine.slab.partition[slots] == self.number]
            engine.reencode(slots)  # the version may have been switched since they changed
            stored = engine.slab.export_rows(slots, engine.names.catalogue, topic_id, engine.versions)

        def rows() -> list[Message]:
            return erased if stored is None else [*erased, *keyed(stored)]

        for counted in engine.statistics_buffer.drain_counted(self.number):
            self.journal.note_counted(counted)
        if self._rewrites:
            self._rewrites = False
            self.journal.rewrite()
        statistics = self.journal.drain_records(engine.statistics, engine.names.catalogue)
        return CheckpointData(self.number, self.position, rows, statistics)

    def mark_committed(self, capture: CheckpointData, committed: bool) -> None:
        """Note that a checkpoint has written this data, and whether its position is committed, too."""
        if committed:
            self.committed = capture.position
        self.changelog_end = max(self.changelog_end, capture.changelog_end)

    def snapshot(self, engine: Engine, topic_id: bytes) -> Snapshot:
        """All rows of the partition. Allowed only while nothing is pending, since no row of a snapshot may be
        ahead of the changelog.
        """
        slots = engine.slab.of_partition(self.number)
        engine.reencode(slots)
        parts = (slots[start : start + BLOCK_ROWS] for start in range(0, len(slots), BLOCK_ROWS))
        blocks = (
            engine.slab.export_rows(part, engine.names.catalogue, topic_id, engine.versions) for part in parts
        )
        return Snapshot(self.changelog_end, topic_id, blocks)


def note_changed(tasks: Mapping[int, PartitionTask], engine: Engine, slots: NDArray[np.int64]) -> None:
    """Let the next checkpoint of each task, by partition, write those rows of slots int64[n] that are its."""
    home = engine.slab.partition[slots]
    for number, task in tasks.items():
        task.changed(slots[home == number])
