"""What the item statistics take in: each event of a partition once, many events at a time."""

import numpy as np
from numpy.typing import NDArray

from eddy.models.scoring.item_statistics import Statistics
from eddy.stream.records.columns import join_columns
from eddy.stream.state.item_statistics import Counted
from eddy.stream.state.slab import NO_OFFSET

MOST_WAITING = 4096
"""Events that wait to be counted together; a call for each small batch would cost more than its answers."""


class StatisticsBuffer:
    """Of the partitions of this process."""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics
        self._until: dict[int, int] = {}
        self._waiting: dict[int, list[Counted]] = {}
        self._counted: dict[int, list[Counted]] = {}
        self._events = 0

    def begin_partition(self, partition: int, offset: int) -> None:
        """A partition was gained: the statistics hold its events up to this offset."""
        self._until[partition] = offset

    def forget_partition(self, partition: int) -> None:
        """A partition was lost: what waits of it is for its next owner to count."""
        for of_partition in (self._until, self._waiting, self._counted):
            of_partition.pop(partition, None)

    def add_events(
        self,
        partition: NDArray[np.int32],
        offset: NDArray[np.int64],
        item: NDArray[np.int64],
        time: NDArray[np.int64],
        previous: NDArray[np.int64],
    ) -> None:
        """n events that count, of any partitions (columns as in `Counted`); a replayed one does not count
        again.
        """
        for number in np.unique(partition).tolist():
            until = self._until.get(number, NO_OFFSET)
            chosen = np.flatnonzero((partition == number) & (offset > until))
            if len(chosen):
                last = int(offset[chosen].max())
                counted = Counted(item[chosen], time[chosen], previous[chosen], last)
                self._waiting.setdefault(number, []).append(counted)
                self._until[number] = last
                self._events += len(chosen)
        if self._events >= MOST_WAITING:
            self.flush()

    def flush(self) -> None:
        """Bring the statistics up to all that was noted."""
        for number, waiting in self._waiting.items():
            together = join_columns(waiting)
            self._statistics.count_events(number, together.item, together.time, together.previous)
            self._counted.setdefault(number, []).append(together)
        self._waiting.clear()
        self._events = 0

    def renumber(self, place: NDArray[np.int64]) -> None:
        """Items get other numbers, place[N] of each; what still waits must have been counted."""
        for number, counted in self._counted.items():
            self._counted[number] = [one.renumbered(place) for one in counted]

    def drain_counted(self, partition: int) -> list[Counted]:
        """What the statistics took in of a partition since the last call, one entry per update; counts
        what waits.
        """
        self.flush()
        return self._counted.pop(partition, [])
