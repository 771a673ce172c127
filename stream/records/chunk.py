"""Chunks: what one fetch brought of a partition."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from eddy.stream.records.decode import Decoded, Record


class ConsumedRecord(Record, Protocol):
    """A consumed Kafka record."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


# Station 1: records of one partition on their way to the engine.
@dataclass(frozen=True)
class Chunk:
    """Records of one partition, contiguous in the log."""

    partition: int
    records: Sequence[ConsumedRecord]
    generation: int
    """of the consumer group when the chunk was fetched"""
    follows: int | None
    """end of the chunk of this partition before it, None for the first since the position was set"""
    seeks: int = 0
    """how often positions had been set when the chunk was fetched"""
    last: bool = True
    """whether the same fetch brought no other partition's chunk after this one"""
    decoded: Decoded | None = None
    """what the records hold, if they are so many that they were decoded beside the engine's work"""

    @property
    def end(self) -> int:
        """Offset after the last record."""
        return int(self.records[-1].offset) + 1
