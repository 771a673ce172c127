"""Events on their way into the item statistics: each event of a partition counts once, many at a time."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from eddy.models.scoring.item_statistics import Statistics
from eddy.stream.records.columns import join_columns, widened
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
        self._tapped: dict[int, list[Counted]] = {}
        self._events = 0

    def begin_partition(self, partition: int, offset: int) -> None:
        """A partition was gained whose events up to `offset` are in the statistics."""
        self._until[partition] = offset
        self._tapped.pop(partition, None)

    def forget_partition(self, partition: int) -> None:
        """A partition was lost: its events that wait here are for its next owner to count."""
        for of_partition in (self._until, self._waiting, self._counted, self._tapped):
            of_partition.pop(partition, None)

    def begin_tap(self, partition: int) -> int:
        """Keep the events of a partition that are counted from now on, too; returns the offset up to which
        they are counted now.
        """
        self.flush()
        self._tapped[partition] = []
        return self._until.get(partition, NO_OFFSET)

    def end_tap(self, partition: int) -> list[Counted] | None:
        """The events that were counted since `begin_tap`, without the items before them, and no longer keep
        them; None when the partition was lost or gained meanwhile.
        """
        self.flush()
        return self._tapped.pop(partition, None)

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
        """Bring the statistics up to all events that were added."""
        for number, waiting in self._waiting.items():
            # Versions differ in how many items before an event they look at.
            lags = max(counted.previous.shape[1] for counted in waiting)
            counted = join_columns([replace(each, previous=widened(each.previous, lags)) for each in waiting])
            self._statistics.count_events(number, counted.item, counted.time, counted.previous)
            self._counted.setdefault(number, []).append(counted)
            if number in self._tapped:
                self._tapped[number].append(
                    replace(counted, previous=np.zeros((len(counted.item), 0), np.int64))
                )
        self._waiting.clear()
        self._events = 0

    def renumber(self, place: NDArray[np.int64]) -> None:
        """Items get other numbers, place[N] of each; call `flush` before."""
        for by_partition in (self._counted, self._tapped):
            for number, updates in by_partition.items():
                by_partition[number] = [counted.renumbered(place) for counted in updates]

    def drain_counted(self, partition: int) -> list[Counted]:
        """What the statistics took in of a partition since the last call, one entry per update; events that
        wait are counted before.
        """
        self.flush()
        return self._counted.pop(partition, [])
