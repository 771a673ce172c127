"""Events on their way into the item statistics: each event of a partition counts once, many at a time."""

import numpy as np
from numpy.typing import NDArray

from eddy.models.scoring.item_statistics import Statistics
from eddy.stream.records.columns import join_columns
from eddy.stream.state.item_statistics import Counted
from eddy.stream.state.slab import NO_OFFSET

MOST_WAITING = 4096
"""Events that may wait to be counted together; a call for each small batch would take longer than its
answers.
"""


class StatisticsBuffer:
    """The events of this process's partitions that are not counted yet, or not written to the journal yet."""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics
        self._until: dict[int, int] = {}
        self._waiting: dict[int, list[Counted]] = {}
        self._counted: dict[int, list[Counted]] = {}
        self._events = 0

    def begin_partition(self, partition: int, offset: int) -> None:
        """A partition was gained whose events up to `offset` are in the statistics."""
        self._until[partition] = offset

    def forget_partition(self, partition: int) -> None:
        """A partition was lost: its events that wait here are for its next owner to count."""
        for of_partition in (self._until, self._waiting, self._counted):
            of_partition.pop(partition, None)

    # Station 8: events wait to be counted, and to be written to the journal with their rows.
    def add_events(
        self,
        partition: NDArray[np.int32],
        offset: NDArray[np.int64],
        item: NDArray[np.int64],
        time: NDArray[np.int64],
        previous: NDArray[np.int64],
    ) -> None:
        """Add n events that count, of any partitions (columns as in `Counted`); one that was replayed does
        not count again.
        """
        if any(counted.previous.shape[1] != previous.shape[1] for counted in self._last_waiting()):
            self.flush()  # the versions in use have changed, and look back further or less far
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

    def _last_waiting(self) -> list[Counted]:
        return [waiting[-1] for waiting in self._waiting.values()]

    def flush(self) -> None:
        """Bring the statistics up to all events that were added."""
        for number, waiting in self._waiting.items():
            counted = join_columns(waiting)
            self._statistics.count_events(number, counted.item, counted.time, counted.previous)
            self._counted.setdefault(number, []).append(counted)
        self._waiting.clear()
        self._events = 0

    def renumber(self, place: NDArray[np.int64]) -> None:
        """Items get other numbers, place[N] of each; call `flush` before."""
        for number, updates in self._counted.items():
            self._counted[number] = [counted.renumbered(place) for counted in updates]

    def drain_counted(self, partition: int) -> list[Counted]:
        """What the statistics took in of a partition since the last call, one entry per update; events that
        wait are counted before.
        """
        self.flush()
        return self._counted.pop(partition, [])
