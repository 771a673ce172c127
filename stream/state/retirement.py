"""How items that nobody touches leave, so that the cost of lists follows the items that are still in use.

1. A worker finds the items that nobody touched for the time that the settings name, that no version's
   vocabulary knows and that have no metadata, and removes their dictionary records on `items`. A process that
   reads this lists them no more; a worker that has seen an event of such an item meanwhile writes its record
   again.
2. The owner of a source partition drops the items that cannot be listed and are idle from the partition's
   statistics, and writes these whole, so that they are the same in every process.
3. Every process forgets the items that cannot be listed and that no row and no count names any more, and
   numbers the others anew.

A later event brings such an item back as a new one. Steps 2 and 3 cost a pass over everything and come when
they are worth it.
"""

import time
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from eddy.models.scoring.item_statistics import Statistics
from eddy.stream.records.messages import Message
from eddy.stream.state.availability import dictionary_key
from eddy.stream.state.item_names import ItemNames
from eddy.stream.state.slab import Slab

WORTHWHILE = 0.1
"""Share of the items that a pass over everything must remove to be made."""

AT_A_TIME = 20_000
"""Items that leave the dictionary together: a process that reads of them is held up meanwhile."""

SHARE = 0.01
"""At most this share of the time goes into looking whether enough items can be forgotten."""


def removals(names: ItemNames, statistics: Statistics, now: int) -> list[Message]:
    """Step 1: records for `items` that remove dictionary entries, AT_A_TIME at most."""
    untouched = names.untouched()
    if names.idle_ms is None or not len(untouched):
        return []
    idle = statistics.idle_items(len(names.catalogue), now, names.idle_ms)
    hashes = names.catalogue.hashes[untouched[idle[untouched]][:AT_A_TIME]]
    return [(dictionary_key(item), None) for item in hashes.tolist()]


def drop_idle(names: ItemNames, statistics: Statistics, partition: int, now: int) -> bool:
    """Step 2: returns whether anything was dropped, so that the partition's statistics must be written
    whole.
    """
    if names.idle_ms is None:
        return False
    leaving, items = names.leaving(), len(names.catalogue)
    if not _worthwhile(leaving):
        return False
    part = statistics.partition(partition)
    mentioned = part.counted_items(items)
    gone = mentioned & leaving & part.idle_items(items, now, names.idle_ms)
    if not gone.any() or gone.sum() < WORTHWHILE * mentioned.sum():
        return False
    statistics.drop_items(partition, gone)
    return True


class Forgetting:
    """Step 3. It looks for items rarely enough to spend at most SHARE of the time on it."""

    def __init__(self, names: ItemNames) -> None:
        self._names = names
        self._not_before = 0.0

    def kept(self, statistics: Statistics, slabs: Iterable[Slab]) -> NDArray[np.int64] | None:
        """Catalogue indices of the items to keep, None while it is not worthwhile to forget the others."""
        leaving = self._names.leaving()
        if not _worthwhile(leaving) or time.monotonic() < self._not_before:
            return None
        began = time.thread_time()
        leaving &= ~statistics.counted_items(len(leaving))
        for slab in slabs:
            leaving &= ~slab.mentioned(len(leaving))
        self._not_before = time.monotonic() + (time.thread_time() - began) / SHARE
        return np.flatnonzero(~leaving) if _worthwhile(leaving) else None


def _worthwhile(gone: NDArray[np.bool_]) -> bool:
    return bool(gone.any() and gone.mean() >= WORTHWHILE)
