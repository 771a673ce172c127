"""What a worker holds of one owned partition between restore and revocation."""

from dataclasses import dataclass, field

import numpy as np
from aiokafka import AIOKafkaProducer
from numpy.typing import NDArray

from models.errors import EddyError
from stream.checkpoint import Capture
from stream.engine import Engine, Outcome
from stream.item_stats import Journal
from stream.producers import Message
from stream.rows import encode_rows
from stream.transport import Chunk


@dataclass
class Owned:
    """An owned, restored partition."""

    number: int
    producer: AIOKafkaProducer
    """transactional, fences former owners"""
    journal: Journal
    generation: int
    received: int | None = None
    """end of the last chunk taken in"""
    position: int | None = None
    """offset of the next record to apply"""
    committed: int | None = None
    _dirty: list[NDArray[np.int64]] = field(default_factory=list)

    def accept(self, chunk: Chunk) -> None:
        """Check that nothing was dropped between this chunk and the one before. Errors: EddyError."""
        if chunk.follows is not None and (self.received is None or chunk.follows > self.received):
            raise EddyError(
                f"events partition {self.number}: records between {self.received} and {chunk.follows} were "
                "fetched but not handed over; restarting from the committed offset"
            )
        self.received = max(chunk.end, self.received or 0)

    def note(self, outcome: Outcome, dirty: NDArray[np.int64], position: int) -> None:
        """Remember what a batch changed, for the next checkpoint."""
        if len(dirty):
            self._dirty.append(dirty)
        if self.number in outcome.counted:
            self.journal.note(outcome.counted[self.number])
        self.position = max(position, self.position or 0)

    def changed(self, slots: NDArray[np.int64]) -> None:
        """Note rows that changed without an event (encoded anew for another version)."""
        if len(slots):
            self._dirty.append(slots)

    @property
    def pending(self) -> bool:
        """Whether a checkpoint has something to do."""
        return bool(self._dirty) or (self.position is not None and self.position != self.committed)

    def capture(self, engine: Engine, topic_id: bytes, names: list[Message]) -> Capture:
        """Copy out what the next checkpoint writes."""
        rows: list[Message] = []
        if self._dirty:
            slots = np.unique(np.concatenate(self._dirty))
            self._dirty.clear()
            slots = slots[engine.slab.partition[slots] == self.number]
            engine.adopt(slots)  # a version may have been exchanged since they changed
            stored = engine.slab.export(slots, engine.names.catalogue, topic_id, engine.versions)
            rows = list(zip(stored.user, encode_rows(stored), strict=True))
        statistics = self.journal.drain(engine.statistics, engine.names.catalogue)
        return Capture(self.number, self.position or 0, rows, list(statistics), names)
