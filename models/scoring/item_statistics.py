"""Item statistics, which are counted across users: moving popularity and transitions, per source partition.

Each partition's sums are kept apart, so that a worker can replace the sums of another worker's partition by a
newer export, whole, any number of times. A decaying count is kept as the sum of 2^((t - reference) /
half-life) over its events' times t, so that nothing has to be done to the items as time goes by; the
reference moves before anything overflows.

F half-lives, N items, M successors of an item. Times, `now` included, are in ms of the stream clock. Items
are numbered by the catalogue.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eddy.models.config import DAY_MS
from eddy.models.errors import EddyError
from eddy.models.kernels.compiled import Floats, Ints
from eddy.models.kernels.transitions import (
    assign_rows,
    collect_successors,
    count_transitions,
    merge_successors,
)
from eddy.models.vocabulary import Catalogue

TRANSITION_HALF_LIFE_MS = 90 * DAY_MS
"""Longer, transitions would be slow to follow a change of taste; shorter, those of rare items would be
lost.
"""

MAX_HALF_LIVES = 60.0
"""The reference moves before a weight exceeds 2^60. That is far below float32's end, and an event that is so
much older than the newest one does not count any more.
"""

_MAX_HALVINGS = 512
"""A count that halved so often is still far above float64's smallest number, 2^-1074."""


class PartitionStatistics:
    """Sums over one partition's events, by catalogue index; arrays grow with the largest index seen."""

    def __init__(self, half_lives_ms: tuple[int, ...], successors: int) -> None:
        self.half_lives = np.array(half_lives_ms, np.float64)
        self.popularity = np.zeros((len(half_lives_ms), 0), np.float64)  # [F, N], as of `reference`
        self.reference = np.full(len(half_lives_ms), np.nan)  # [F] ms, NaN = nothing was counted yet
        self.transition_reference = np.nan  # ms, NaN = nothing was counted yet
        self.row = np.zeros(0, np.int64)  # [N] row of an item's successors, -1 = none yet
        self.rows = 0
        self.successor = np.full((0, successors), -1, np.int32)  # [rows or more, M], -1 = free
        self.count = np.zeros((0, successors), np.float32)  # [rows or more, M], as of `transition_reference`
        self.total = np.zeros(0, np.float32)  # [rows or more] all transitions from the item, kept or not

    def reserve_items(self, items: int) -> None:
        """Make room for catalogue indices below `items`."""
        length = len(self.row)
        if items > length:
            added = max(items, length * 3 // 2) - length
            self.popularity = np.pad(self.popularity, ((0, 0), (0, added)))
            self.row = np.pad(self.row, (0, added), constant_values=-1)

    def decay_factors(self, now: float) -> NDArray[np.float64]:
        """Factors float64[F,1] that bring popularity from its reference to `now`; 0 where nothing was
        counted.
        """
        age = (np.nan_to_num(self.reference, nan=np.inf) - now) / self.half_lives
        return np.where(np.isnan(self.reference), 0.0, np.exp2(np.minimum(age, MAX_HALF_LIVES)))[:, None]

    def _move_reference(self, now: float) -> None:
        """Move references to `now`, and rescale their sums, where an event at `now` would weigh too much."""
        for f, life in enumerate(self.half_lives):
            if np.isnan(self.reference[f]):
                self.reference[f] = now
            age = (now - self.reference[f]) / life
            if age > MAX_HALF_LIVES:
                self.popularity[f] *= 2.0**-age
                self.reference[f] = now
        if np.isnan(self.transition_reference):
            self.transition_reference = now
        age = (now - self.transition_reference) / TRANSITION_HALF_LIFE_MS
        if age > MAX_HALF_LIVES:
            self.count *= np.float32(2.0**-age)
            self.total *= np.float32(2.0**-age)
            self.transition_reference = now

    def count_events(self, item: Ints, timestamp: Ints, previous: Ints) -> None:
        """Count events of item[n] at timestamp[n]; previous[n,K] are the user's items before the event,
        latest first, -1 = none.

        A transition from the item l events before counts 1 / l; one from an item to itself does not count.
        """
        if not len(item):
            return
        self.reserve_items(int(max(item.max(), previous.max(initial=-1))) + 1)
        self._move_reference(float(timestamp.max()))
        for f, life in enumerate(self.half_lives):
            weight = np.exp2((timestamp - self.reference[f]) / life)
            np.add.at(self.popularity[f], item, weight)
        weight = np.exp2((timestamp - self.transition_reference) / TRANSITION_HALF_LIFE_MS)
        rows = assign_rows(item, previous, self.row, self.rows)
        self._reserve_rows(rows)
        count_transitions(item, previous, weight, self.row, self.successor, self.count, self.total)

    def _reserve_rows(self, rows: int) -> None:
        if rows > len(self.total):
            added = max(rows, 2 * len(self.total), 64) - len(self.total)
            self.successor = np.pad(self.successor, ((0, added), (0, 0)), constant_values=-1)
            self.count = np.pad(self.count, ((0, added), (0, 0)))
            self.total = np.pad(self.total, (0, added))
        self.rows = rows

    def idle_items(self, items: int, now: float, longer_than_ms: float) -> NDArray[np.bool_]:
        """Which of the first `items` items have been idle at `now` for `longer_than_ms`: bool[items]. Events
        that are not counted do not matter.

        An item is idle if its decayed count is at most that of a single event `longer_than_ms` ago; so
        popular items count as idle some half-lives later. The count is the one with the shortest half-life
        that does not underflow until then; if there is none, no item is idle.
        """
        idle = np.zeros(items, np.bool_)
        lasting = np.where(self.half_lives >= longer_than_ms / _MAX_HALVINGS, self.half_lives, np.inf)
        if not np.isfinite(lasting).any():
            return idle
        f = int(lasting.argmin())
        stored = min(items, self.popularity.shape[1])
        least = np.exp2(-longer_than_ms / self.half_lives[f])
        idle[:stored] = self.popularity[f, :stored] * self.decay_factors(now)[f, 0] <= least * (1 + 1e-9)
        idle[stored:] = True
        return idle

    def counted_items(self, items: int) -> NDArray[np.bool_]:
        """Which of the first `items` items have a count, as an item or as a successor: bool[items]."""
        counted = np.zeros(items, np.bool_)
        stored = min(items, len(self.row))
        counted[:stored] = self.popularity[:, :stored].any(axis=0) | (self.row[:stored] >= 0)
        successor = self.successor[: self.rows]
        counted[successor[successor >= 0]] = True
        return counted

    def drop_items(self, gone: NDArray[np.bool_]) -> None:
        """Forget all counts of the items in gone[n], a mask; n must reach beyond every counted item."""
        room = len(self.row)
        gone = np.concatenate((gone[:room], np.zeros(max(room - len(gone), 0), np.bool_)))
        self.popularity[:, gone] = 0.0
        self.row[gone] = -1
        source = np.flatnonzero(self.row >= 0)
        row = self.row[source]
        self.successor, self.count, self.total = self.successor[row], self.count[row], self.total[row]
        self.row[source], self.rows = np.arange(len(source)), len(source)
        dropped = (self.successor >= 0) & gone[self.successor]
        self.successor[dropped], self.count[dropped] = -1, 0.0

    def renumber(self, place: Ints) -> None:
        """Give items other numbers: place[N] by their old ones, -1 for items that left the catalogue, of
        which nothing may be counted.
        """
        kept = np.flatnonzero(place[: len(self.row)] >= 0)
        self.popularity, self.row = self.popularity[:, kept], self.row[kept]
        self.successor = np.where(self.successor >= 0, place[self.successor], -1).astype(np.int32)

    def collect_successors(
        self, items: Ints, now: float, index: NDArray[np.int32], count: Floats, total: Floats
    ) -> None:
        """Write the successors of items[U] (-1 = none) at `now` into index[U,M] (-1 = none) and count[U,M],
        and add all transitions from each item to total[U].
        """
        decay = np.float32(0.0)
        if self.rows:
            decay = np.float32(2.0 ** ((self.transition_reference - now) / TRANSITION_HALF_LIFE_MS))
        collect_successors(
            items, self.row, self.successor, self.count, self.total, decay, index, count, total
        )


class Statistics:
    """Item statistics: the sums over all source partitions."""

    def __init__(self, half_lives_ms: tuple[int, ...], successors: int) -> None:
        self.half_lives_ms = tuple(half_lives_ms)
        self.successors = successors
        self.partitions: dict[int, PartitionStatistics] = {}
        self.changes = 0
        """grows with every change of the statistics"""

    def partition(self, number: int) -> PartitionStatistics:
        """The sums of one source partition; they start empty."""
        if number not in self.partitions:
            self.partitions[number] = PartitionStatistics(self.half_lives_ms, self.successors)
        return self.partitions[number]

    def count_events(self, partition: int, item: Ints, timestamp: Ints, previous: Ints) -> None:
        """Count n events of a partition, none of them negative: item[n], timestamp[n] (ms of event time), and
        previous[n,K], the user's items before each event, latest first, -1 = none.
        """
        self.partition(partition).count_events(item, timestamp, previous)
        self.changes += 1

    def forget_partition(self, partition: int) -> None:
        """Drop all sums of a partition."""
        self.partitions.pop(partition, None)
        self.changes += 1

    def idle_items(self, items: int, now: float, longer_than_ms: float) -> NDArray[np.bool_]:
        """Which of the first `items` items have been idle in every partition at `now` for `longer_than_ms`:
        bool[items]; see `PartitionStatistics.idle_items`.
        """
        if not self.half_lives_ms:
            return np.zeros(items, np.bool_)
        idle = np.ones(items, np.bool_)
        for part in self.partitions.values():
            idle &= part.idle_items(items, now, longer_than_ms)
        return idle

    def counted_items(self, items: int) -> NDArray[np.bool_]:
        """Which of the first `items` items have a count in any partition: bool[items]."""
        counted = np.zeros(items, np.bool_)
        for part in self.partitions.values():
            counted |= part.counted_items(items)
        return counted

    def drop_items(self, partition: int, gone: NDArray[np.bool_]) -> None:
        """Forget all counts that a partition has of the items in gone[N], a mask."""
        self.partition(partition).drop_items(gone)
        self.changes += 1

    def renumber(self, place: Ints) -> None:
        """Give items other numbers: place[N] by their old ones, -1 for items that left; see
        `Catalogue.keep`.
        """
        for part in self.partitions.values():
            part.renumber(place)
        self.changes += 1

    def popularity(self, items: int, now: float) -> NDArray[np.float64]:
        """Decayed counts at `now` of the catalogue's first `items` items: float64[F, items]."""
        total = np.zeros((len(self.half_lives_ms), items))
        for part in self.partitions.values():
            stored = min(items, part.popularity.shape[1])
            total[:, :stored] += part.popularity[:, :stored] * part.decay_factors(now)
        return total

    def popularities_at(self, items: int, now: float) -> "Statistics":
        """Statistics of their own that hold the decayed counts at `now` of the first `items` items, and no
        transitions. Another thread may read them while these go on.
        """
        fixed = Statistics(self.half_lives_ms, self.successors)
        part = fixed.partition(0)
        part.reserve_items(items)
        part.popularity[:, :items] = self.popularity(items, now)
        part.reference[:] = now
        return fixed

    def popularity_of(self, index: Ints, now: float) -> NDArray[np.float64]:
        """Decayed counts at `now` of the items in `index` (of any shape): float64[F, ...]."""
        total = np.zeros((len(self.half_lives_ms), index.size))
        for part in self.partitions.values():
            part.reserve_items(int(index.max(initial=-1)) + 1)
            total += part.popularity[:, index.ravel()] * part.decay_factors(now)
        return total.reshape(len(total), *index.shape)

    def transitions(self, items: Ints, now: float) -> tuple[NDArray[np.int32], Floats]:
        """Successors of items (of any shape, -1 = none) at `now`: index[...,M], -1 = none, and share[...,M]
        of all transitions from the item, shrunk where counts are few: count / (total + 1).
        """
        distinct, row = np.unique(items, return_inverse=True)
        index, share = self.successors_of(distinct, now)
        shape = (*items.shape, index.shape[1])
        return index[row.ravel()].reshape(shape), share[row.ravel()].reshape(shape)

    def successors_of(self, items: Ints, now: float) -> tuple[NDArray[np.int32], Floats]:
        """As `transitions`, for items[U] in one dimension, each of which is looked up: index[U,M],
        share[U,M].
        """
        parts, shape = list(self.partitions.values()), (len(items), self.successors)
        index, count = np.full(shape, -1, np.int32), np.zeros(shape, np.float32)
        total = np.zeros(len(items), np.float32)
        if len(parts) == 1:
            parts[0].collect_successors(items, now, index, count, total)
        elif parts:
            indices = np.empty((len(parts), *shape), np.int32)
            counts = np.empty((len(parts), *shape), np.float32)
            for number, part in enumerate(parts):
                part.collect_successors(items, now, indices[number], counts[number], total)
            largest = max(len(part.row) for part in parts)
            merge_successors(indices, counts, np.zeros(largest, np.float32), index, count)
        return index, count / (total + 1)[:, None]

    def export_partition(self, partition: int, hashes: NDArray[np.uint64]) -> dict[str, NDArray[Any]]:
        """A copy of one partition's sums as arrays, in which items are named by their hashes[N]."""
        part = self.partition(partition)
        item = np.flatnonzero(part.popularity.any(axis=0) | (part.row[: part.popularity.shape[1]] >= 0))
        row = part.row[item]
        has_row = row >= 0
        successor = part.successor[row[has_row]]
        named = np.where(successor >= 0, hashes[np.maximum(successor, 0)], 0).astype(np.uint64)
        return {
            "item": hashes[item],
            "popularity": part.popularity[:, item],
            "reference": part.reference.copy(),
            "source": hashes[item[has_row]],
            "successor": named,
            "count": part.count[row[has_row]],
            "total": part.total[row[has_row]],
            "transition_reference": np.array([part.transition_reference]),
        }

    def replace_partition(
        self, partition: int, arrays: dict[str, NDArray[Any]], catalogue: Catalogue
    ) -> None:
        """Replace all sums of the partition by those of an `export_partition`; `catalogue` gives its items
        numbers.

        Errors: EddyError when the arrays do not fit together or were counted with other settings.
        """
        part = PartitionStatistics(self.half_lives_ms, self.successors)
        try:
            item, source = catalogue.add(arrays["item"]), catalogue.add(arrays["source"])
            named = arrays["successor"]
            successor = np.full(named.shape, -1, np.int32)
            successor[named != 0] = catalogue.add(named[named != 0])
            part.reserve_items(int(max(index.max(initial=-1) for index in (item, source, successor))) + 1)
            part.popularity[:, item] = arrays["popularity"]
            part.reference[:] = arrays["reference"]
            part.transition_reference = float(arrays["transition_reference"][0])
            part.row[source] = np.arange(len(source))
            part.rows = len(source)
            part.successor = np.ascontiguousarray(successor.reshape(len(source), self.successors))
            part.count = np.array(arrays["count"], np.float32).reshape(len(source), self.successors)
            part.total = np.array(arrays["total"], np.float32).reshape(len(source))
        except (KeyError, ValueError, IndexError) as error:
            raise EddyError(
                f"item statistics of partition {partition} are malformed ({error}); ignored"
            ) from None
        self.partitions[partition] = part
        self.changes += 1
