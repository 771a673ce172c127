"""Moves rows to the newest version between batches: in slices that are short in time, hottest users first."""

import time
from collections.abc import Collection

import numpy as np

from eddy.stream.engine.batch_report import Changed
from eddy.stream.engine.rows_by_version import RowsByVersion
from eddy.stream.engine.version_rows import VersionRows
from eddy.stream.state.slab import Slots

FEWEST, MOST = 16, 4096
"""Rows in a slice."""

QUEUED = 1 << 16
"""Rows that are put into their order at once: to look at the times of all of a million takes 0.1 s, which is
too long to be done for each slice.
"""


class Reencoding:
    """Goes through the rows that are not of the newest version's epoch."""

    def __init__(self, rows: RowsByVersion) -> None:
        self._rows = rows
        self._version = rows.newest
        self._queue: Slots = np.zeros(0, np.int64)
        """rows of `_version`, hottest first; some may have moved or left since"""
        self._at_once = FEWEST
        self._stale_in_newest = 0
        self._left_out: list[int] = []

    def leave_out(self, partitions: Collection[int]) -> None:
        """Leave rows of these partitions as they are: other processes work on them. Look at all others."""
        self._left_out = list(partitions)
        self._rows.may_be_stale = True

    @property
    def left(self) -> int:
        """How many rows are left, as far as they were looked at."""
        return sum(len(version.slab) for version in self._rows.older) + self._stale_in_newest

    def move_some(self, seconds: float) -> list[Changed]:
        """Encode about as many rows anew as take so long; returns where they are then. Nothing is left when
        `RowsByVersion.may_be_stale` is False.
        """
        slots = self._take()
        if not len(slots):
            return []
        began = time.perf_counter()
        changed = self._rows.move_to_newest(self._version, slots)
        took = time.perf_counter() - began
        fitting = min(int(len(slots) * seconds / took), 2 * self._at_once)
        self._at_once = min(max(fitting, FEWEST), MOST)
        if self._version in self._rows.shared:
            self._stale_in_newest -= len(slots)
        return changed

    def _take(self) -> Slots:
        """The next rows of `_version`; none when no row is left."""
        while self._rows.may_be_stale:
            if not len(self._queue):
                self._look()
            slots, self._queue = self._queue[: self._at_once], self._queue[self._at_once :]
            slots = self._stale(self._version, slots)
            if len(slots):
                return slots
        return np.zeros(0, np.int64)

    def _look(self) -> None:
        """Put the hottest rows of the oldest version that has any into the queue."""
        for version in self._rows.versions:
            stale = self._stale(version, np.arange(len(version.slab.user_of)))
            if version in self._rows.shared:
                self._stale_in_newest = len(stale)
            if len(stale):
                time_of = version.slab.last_time(stale)
                if len(stale) > QUEUED:
                    hottest = np.argpartition(-time_of, QUEUED)[:QUEUED]
                    stale, time_of = stale[hottest], time_of[hottest]
                self._version, self._queue = version, stale[np.argsort(-time_of, kind="stable")]
                return
        self._rows.may_be_stale = False
        self._version = self._rows.newest  # the slab of one that has no rows any more leaves the memory

    def _stale(self, version: VersionRows, slots: Slots) -> Slots:
        """Those of `slots` that are rows to be moved to the newest version."""
        partition = version.slab.partition[slots]
        slots = slots[(partition >= 0) & ~np.isin(partition, self._left_out)]
        if version in self._rows.shared:
            slots = slots[version.slab.epoch[slots] < version.live.epoch]
        return slots
