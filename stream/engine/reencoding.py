"""Moves rows to the newest version beside the batches, hottest users first.

The engine hands out copies of some rows' windows, another thread computes the states that the newest
version has after them, and the engine takes these states for the rows that no event has changed meanwhile. So
batches wait for copies, and not for the cell. Rows that did change are encoded anew by the engine at once:
else people who are always active would stay behind.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from eddy.stream.engine.batch_report import Changed
from eddy.stream.engine.live_version import WindowCopy
from eddy.stream.engine.rows_by_version import RowsByVersion
from eddy.stream.engine.version_rows import VersionRows
from eddy.stream.state.slab import Slots

AT_ONCE = 2048
"""Rows that are encoded anew together. However many they are, the thread that computes them waits for its
turn in the interpreter twice for each step of the cell. To copy so many rows and to take their states keeps
the engine for some hundredths of a second.
"""

QUEUED = 1 << 16
"""Rows that are put into their order at once: to look at the times of all of a million takes 0.1 s, which is
too long to be done for each slice.
"""


@dataclass
class RowsToEncode:
    """n rows on their way from one version to one of the newest epoch."""

    version: VersionRows
    slots: Slots
    """[n] in the version's slab"""
    partition: NDArray[np.int32]
    """[n] `partition` and `offset` say which record the copied row includes last"""
    offset: NDArray[np.int64]
    newest: VersionRows
    windows: WindowCopy

    def compute(self) -> "EncodedRows":
        """Their states, computed on any thread."""
        return EncodedRows(self, *self.newest.live.read_copy(self.windows))


@dataclass
class EncodedRows:
    """The states [n, S] of rows in a newer version: see `LiveVersion.take_states`."""

    rows: RowsToEncode
    midpoint: torch.Tensor
    hidden: torch.Tensor


class Reencoding:
    """Goes through the rows that are not of the newest version's epoch."""

    def __init__(self, rows: RowsByVersion) -> None:
        self._rows = rows
        self._version = rows.newest
        self._queue: Slots = np.zeros(0, np.int64)
        """rows of `_version`, hottest first; some may have moved or left since"""
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

    def begin(self, at_most: int = AT_ONCE) -> RowsToEncode | None:
        """The next rows, of one share's version; None when no row is left."""
        slots = self._next(at_most)
        if not len(slots):
            return None
        slab = self._version.slab
        share = self._rows.share_numbers([slab.user_of[slot] or "" for slot in slots.tolist()])
        first = share == share[0]
        self._queue = np.concatenate((slots[~first], self._queue))
        slots, newest = slots[first], self._rows.shared[share[0]]
        windows = newest.live.copy_windows(slab, slots)
        return RowsToEncode(self._version, slots, slab.partition[slots], slab.offset[slots], newest, windows)

    def put(self, encoded: EncodedRows) -> list[Changed]:
        """Move the rows whose states were computed; returns where they are then. Those that have left
        meanwhile are passed over; nothing is moved to a version that another epoch has followed.
        """
        rows = encoded.rows
        if rows.newest not in self._rows.shared:
            return []
        slab = rows.version.slab
        still_here = (slab.partition[rows.slots] == rows.partition) & self._is_stale(rows.version, rows.slots)
        unchanged = slab.offset[rows.slots] == rows.offset
        ready, touched = np.flatnonzero(still_here & unchanged), rows.slots[still_here & ~unchanged]
        changed = []
        if len(ready):
            states = encoded.midpoint[ready], encoded.hidden[ready]
            changed.append(self._rows.move(rows.version, rows.slots[ready], rows.newest, *states))
        if len(touched):
            changed += self._rows.move_to_newest(rows.version, touched)
        if rows.version in self._rows.shared:
            self._stale_in_newest -= int(np.count_nonzero(still_here))
        return changed

    def _next(self, at_most: int) -> Slots:
        """The next rows of `_version`; none when no row is left."""
        while self._rows.may_be_stale:
            if not len(self._queue):
                self._look()
            slots, self._queue = self._queue[:at_most], self._queue[at_most:]
            slots = slots[self._is_stale(self._version, slots)]
            if len(slots):
                return slots
        return np.zeros(0, np.int64)

    def _look(self) -> None:
        """Put the hottest rows of the oldest version that has any into the queue."""
        for version in self._rows.versions:
            stale = np.arange(len(version.slab.user_of))
            stale = stale[self._is_stale(version, stale)]
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

    def _is_stale(self, version: VersionRows, slots: Slots) -> NDArray[np.bool_]:
        """Which of `slots` are rows to be moved to the newest version."""
        partition = version.slab.partition[slots]
        stale = (partition >= 0) & ~np.isin(partition, self._left_out)
        if version in self._rows.shared:
            stale &= version.slab.epoch[slots] < version.live.epoch
        return np.asarray(stale, np.bool_)
