"""What is known about items across users: moving popularity and transition counts, per source partition.

Each partition's sums are kept apart, so that a worker can replace what it knows of another worker's
partition by a newer export, whole, any number of times. All decays are kept as sums of 2^((t - reference) /
half-life): no pass over the items as time goes by; the reference moves before anything overflows.
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
MAX_HALF_LIVES = 60.0
"""The reference moves before a weight exceeds 2^60: far inside float32, and what is that old has vanished."""


_MOST_HALVINGS = 512
"""After which a count is still far from float64's least number."""


class PartitionStatistics:
    """Sums over one partition's events, by catalogue index; arrays grow with the largest index seen."""

    def __init__(self, half_lives_ms: tuple[int, ...], successors: int) -> None:
        self.half_lives = np.array(half_lives_ms, np.float64)
        self.popularity = np.zeros((len(half_lives_ms), 0), np.float64)  # [F, N], at `reference`
        self.reference = np.full(len(half_lives_ms), np.nan)  # [F] ms
        self.transition_reference = np.nan
        self.row = np.zeros(0, np.int64)  # [N] row of an item's successors, -1 = none yet
        self.rows = 0
        self.successor = np.full((0, successors), -1, np.int32)  # [rows, M], -1 = free
        self.count = np.zeros((0, successors), np.float32)  # [rows, M], at `transition_reference`
        self.total = np.zeros(0, np.float32)  # [rows] all transitions out, kept or not

    def reserve_items(self, items: int) -> None:
        """Make room for catalogue indices below `items`."""
        have = len(self.row)
        if items > have:
            room = max(items, have * 3 // 2)
            self.popularity = np.pad(self.popularity, ((0, 0), (0, room - have)))
            self.row = np.pad(self.row, (0, room - have), constant_values=-1)

    def decay_factors(self, now: float) -> NDArray[np.float64]:
        """Factors [F,1] that bring popularity from its reference to `now`; 0 where nothing was counted."""
        age = (np.nan_to_num(self.reference, nan=np.inf) - now) / self.half_lives
        return np.where(np.isnan(self.reference), 0.0, np.exp2(np.minimum(age, MAX_HALF_LIVES)))[:, None]

    def _move_reference(self, now: float) -> None:
        """Rescale the sums whose weights at `now` would grow too large."""
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
        """Count events item[n] at timestamp[n]; previous[n,K] = the user's items before, latest first, -1 =
        none.

        A transition from the item l places before counts 1 / l; one from an item to itself does not count.
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
            room = max(rows, 2 * len(self.total), 64) - len(self.total)
            self.successor = np.pad(self.successor, ((0, room), (0, 0)), constant_values=-1)
            self.count = np.pad(self.count, ((0, room), (0, 0)))
            self.total = np.pad(self.total, (0, room))
        self.rows = rows

    def idle_items(self, items: int, now: float, longer_than_ms: float) -> NDArray[np.bool_]:
        """Which of the first `items` items had no event that counts for so long at `now`: bool[items].

        Told from the decayed count with the shortest half-life that does not underflow until then, none
        without one: what is left of one event of that age, or less, is idle. An item that was popular counts
        as idle some half-lives later.
        """
        idle = np.zeros(items, np.bool_)
        lasting = np.where(self.half_lives >= longer_than_ms / _MOST_HALVINGS, self.half_lives, np.inf)
        if not np.isfinite(lasting).any():
            return idle
        f = int(lasting.argmin())
        known = min(items, self.popularity.shape[1])
        least = np.exp2(-longer_than_ms / self.half_lives[f])
        idle[:known] = self.popularity[f, :known] * self.decay_factors(now)[f, 0] <= least * (1 + 1e-9)
        idle[known:] = True
        return idle

    def counted_items(self, items: int) -> NDArray[np.bool_]:
        """Which of the first `items` items anything is counted of: bool[items]."""
        mentioned = np.zeros(items, np.bool_)
        known = min(items, len(self.row))
        mentioned[:known] = self.popularity[:, :known].any(axis=0) | (self.row[:known] >= 0)
        successor = self.successor[: self.rows]
        mentioned[successor[successor >= 0]] = True
        return mentioned

    def drop_items(self, gone: NDArray[np.bool_]) -> None:
        """Forget what is counted of some items: gone[N], N at least the items mentioned."""
        known = len(self.row)
        gone = np.concatenate((gone[:known], np.zeros(max(known - len(gone), 0), np.bool_)))
        self.popularity[:, gone] = 0.0
        self.row[gone] = -1
        source = np.flatnonzero(self.row >= 0)
        row = self.row[source]
        self.successor, self.count, self.total = self.successor[row], self.count[row], self.total[row]
        self.row[source], self.rows = np.arange(len(source)), len(source)
        left = (self.successor >= 0) & gone[self.successor]
        self.successor[left], self.count[left] = -1, 0.0

    def renumber(self, place: Ints) -> None:
        """Give items other numbers: place[N] of each, -1 for those that left, of which nothing is counted."""
        kept = np.flatnonzero(place[: len(self.row)] >= 0)
        self.popularity, self.row = self.popularity[:, kept], self.row[kept]
        self.successor = np.where(self.successor >= 0, place[self.successor], -1).astype(np.int32)

    def collect_successors(
        self, items: Ints, now: float, index: NDArray[np.int32], count: Floats, total: Floats
    ) -> None:
        """Successors of items[U] (-1 = none) at `now` into index[U,M] (-1 = none) and count[U,M]; all counted
        transitions are added to total[U].
        """
        decay = np.float32(0.0)
        if self.rows:
            decay = np.float32(2.0 ** ((self.transition_reference - now) / TRANSITION_HALF_LIFE_MS))
        collect_successors(
            items, self.row, self.successor, self.count, self.total, decay, index, count, total
        )


class Statistics:
    """The sum over source partitions."""

    def __init__(self, half_lives_ms: tuple[int, ...], successors: int) -> None:
        self.half_lives_ms = tuple(half_lives_ms)
        self.successors = successors
        self.partitions: dict[int, PartitionStatistics] = {}
        self.changes = 0
        """grows with everything that may change what is said of an item"""

    def partition(self, number: int) -> PartitionStatistics:
        """The sums of one source partition, empty at first."""
        if number not in self.partitions:
            self.partitions[number] = PartitionStatistics(self.half_lives_ms, self.successors)
        return self.partitions[number]

    def count_events(self, partition: int, item: Ints, timestamp: Ints, previous: Ints) -> None:
        """Count n events of a partition that are not negative: item[n] (catalogue index), timestamp[n] ms,
        previous[n,K] the user's items before the event, latest first, -1 = none.
        """
        self.partition(partition).count_events(item, timestamp, previous)
        self.changes += 1

    def forget_partition(self, partition: int) -> None:
        """Drop all that is known of a partition."""
        self.partitions.pop(partition, None)
        self.changes += 1

    def idle_items(self, items: int, now: float, longer_than_ms: float) -> NDArray[np.bool_]:
        """Which of the first `items` items no partition had an event of for so long at `now`: bool[items]."""
        if not self.half_lives_ms:
            return np.zeros(items, np.bool_)
        idle = np.ones(items, np.bool_)
        for part in self.partitions.values():
            idle &= part.idle_items(items, now, longer_than_ms)
        return idle

    def counted_items(self, items: int) -> NDArray[np.bool_]:
        """Which of the first `items` items anything is counted of in any partition: bool[items]."""
        mentioned = np.zeros(items, np.bool_)
        for part in self.partitions.values():
            mentioned |= part.counted_items(items)
        return mentioned

    def drop_items(self, partition: int, gone: NDArray[np.bool_]) -> None:
        """Forget what a partition counted of some items: gone[N]."""
        self.partition(partition).drop_items(gone)
        self.changes += 1

    def renumber(self, place: Ints) -> None:
        """Give items other numbers: place[N] of each, -1 for those that left; see `Catalogue.keep`."""
        for part in self.partitions.values():
            part.renumber(place)
        self.changes += 1

    def popularity(self, items: int, now: float) -> NDArray[np.float64]:
        """Decayed counts at `now` of the catalogue's first `items` items: float64[F, items]."""
        total = np.zeros((len(self.half_lives_ms), items))
        for part in self.partitions.values():
            known = min(items, part.popularity.shape[1])
            total[:, :known] += part.popularity[:, :known] * part.decay_factors(now)
        return total

    def popularity_of(self, index: Ints, now: float) -> NDArray[np.float64]:
        """Decayed counts at `now` of some items (any shape): float64[F, ...]."""
        total = np.zeros((len(self.half_lives_ms), index.size))
        for part in self.partitions.values():
            part.reserve_items(int(index.max(initial=-1)) + 1)
            total += part.popularity[:, index.ravel()] * part.decay_factors(now)
        return total.reshape(len(total), *index.shape)

    def transitions(self, items: Ints, now: float) -> tuple[NDArray[np.int32], Floats]:
        """Successors of items (any shape, -1 = none): index[...,M] (-1 = none) and share of all transitions
        out, shrunk where counts are few: count / (total + 1).
        """
        distinct, place = np.unique(items, return_inverse=True)
        index, share = self.successors_of(distinct, now)
        shape = (*items.shape, index.shape[1])
        return index[place.ravel()].reshape(shape), share[place.ravel()].reshape(shape)

    def successors_of(self, items: Ints, now: float) -> tuple[NDArray[np.int32], Floats]:
        """`transitions` of items[U], best computed once for many users: index[U,M], share[U,M]."""
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
        """A copy of one partition's sums as arrays, items named by hash (hashes[N] of the catalogue)."""
        part = self.partition(partition)
        item = np.flatnonzero(part.popularity.any(axis=0) | (part.row[: part.popularity.shape[1]] >= 0))
        row = part.row[item]
        has = row >= 0
        successor = part.successor[row[has]]
        named = np.where(successor >= 0, hashes[np.maximum(successor, 0)], 0).astype(np.uint64)
        return {
            "item": hashes[item],
            "popularity": part.popularity[:, item],
            "reference": part.reference.copy(),
            "source": hashes[item[has]],
            "successor": named,
            "count": part.count[row[has]],
            "total": part.total[row[has]],
            "transition_reference": np.array([part.transition_reference]),
        }

    def replace_partition(
        self, partition: int, arrays: dict[str, NDArray[Any]], catalogue: Catalogue
    ) -> None:
        """Put an export in the place of all that is known of the partition; `catalogue` numbers its items.

        Errors: EddyError when the arrays do not fit together or were counted with other settings.
        """
        part = PartitionStatistics(self.half_lives_ms, self.successors)
        try:
            item, source = catalogue.add(arrays["item"]), catalogue.add(arrays["source"])
            named = arrays["successor"]
            successor = np.full(named.shape, -1, np.int32)
            successor[named != 0] = catalogue.add(named[named != 0])
            part.reserve_items(int(max(each.max(initial=-1) for each in (item, source, successor))) + 1)
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
