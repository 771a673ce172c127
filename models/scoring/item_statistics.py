"""Item statistics, which are counted across users: moving popularity and transitions, per source partition.

Each partition's sums are kept apart, so that a worker can replace the sums of another worker's partition by a
newer export, whole, any number of times. `eddy.models.scoring.partition_statistics` has the sums of one
partition.

Model versions ask for half-lives and for numbers of successors, and one process can hold several versions:
`Statistics` is for the union of what they ask for, and each version picks its own out of it. A partition
counts with the half-lives, and has the places for successors, that its owner had when it wrote its export;
they may be fewer or more than what is asked for here (`Statistics.lacking`).

F half-lives, N items, M successors of an item. Times, `now` included, are in ms of the stream clock. Items
are numbered by the catalogue.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eddy.models.config import MAX_SUCCESSORS
from eddy.models.errors import EddyError
from eddy.models.kernels.compiled import Floats, Ints
from eddy.models.kernels.popularity_columns import add_decayed
from eddy.models.kernels.transitions import merge_successors
from eddy.models.scoring.partition_statistics import PartitionStatistics
from eddy.models.vocabulary import Catalogue


class Statistics:
    """Item statistics: the sums over all source partitions, for all half-lives and as many successors as are
    asked for.
    """

    def __init__(self, half_lives_ms: tuple[int, ...], successors: int) -> None:
        self.half_lives_ms = tuple(half_lives_ms)
        """those that are asked for"""
        self.successors = successors
        """the most that are asked for"""
        self.partitions: dict[int, PartitionStatistics] = {}
        self.changes = 0
        """grows with every change of the statistics"""

    def widen(self, half_lives_ms: Sequence[int], successors: int) -> None:
        """Ask for these half-lives and so many successors, beside what is asked for already.

        Partitions that have counted events lack what is new: see `lacking`. Until it is there, such a
        partition adds nothing to popularity by a half-life that it lacks.
        """
        self.half_lives_ms = tuple(dict.fromkeys((*self.half_lives_ms, *half_lives_ms)))
        self.successors = max(self.successors, successors)
        for number in [number for number, part in self.partitions.items() if not part.has_counted]:
            del self.partitions[number]  # it begins anew, with all that is asked for
        self.changes += 1

    def lacking(self, partition: int) -> tuple[int, ...]:
        """The half-lives that are asked for and that a partition does not count with."""
        part = self.partitions.get(partition)
        counted = self.half_lives_ms if part is None else part.half_lives_ms
        return tuple(life for life in self.half_lives_ms if life not in counted)

    def is_complete(self, half_life_ms: int) -> bool:
        """Whether every partition counts with a half-life."""
        return all(half_life_ms in part.half_lives_ms for part in self.partitions.values())

    def fill_partition(
        self, partition: int, arrays: dict[str, NDArray[Any]], catalogue: Catalogue, since: float
    ) -> None:
        """Take over half-lives that the partition lacks from an export of statistics that have counted the
        same events with them; `since`: see `PartitionStatistics.add_half_lives`. Items that are not in the
        catalogue have left it, and stay away.
        """
        part, lives = self.partition(partition), tuple(arrays["half_lives"].tolist())
        item = catalogue.find(arrays["item"])
        part.reserve_items(int(item.max(initial=-1)) + 1)
        popularity = np.zeros((len(lives), part.popularity.shape[1]))
        popularity[:, item[item >= 0]] = arrays["popularity"][:, item >= 0]
        part.add_half_lives(lives, popularity, arrays["reference"], since)
        self.changes += 1

    def lacks_successors(self, partition: int) -> bool:
        """Whether a partition has places for fewer successors than are asked for."""
        part = self.partitions.get(partition)
        return part is not None and part.successors < self.successors

    def add_successors(self, partition: int) -> None:
        """Make as many places for successors in a partition as are asked for. Only its owner may, who tells
        the others by an export.
        """
        self.partition(partition).add_successors(self.successors)
        self.changes += 1

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

    def popularity(
        self, items: int, now: float, half_lives_ms: Sequence[int] | None = None
    ) -> NDArray[np.float64]:
        """Decayed counts at `now` of the catalogue's first `items` items by the given half-lives, or by all
        that are asked for: float64[F, items].
        """
        lives = self.half_lives_ms if half_lives_ms is None else half_lives_ms
        return self.begin_popularity(items, now, lives)()

    def begin_popularity(
        self, items: int, now: float, half_lives_ms: Sequence[int]
    ) -> Callable[[], NDArray[np.float64]]:
        """As `popularity`, but what is returned does the work, on any thread: these statistics may go on
        counting meanwhile, and some of what they count is in it.
        """
        parts = [
            (f, part.popularity[row, :items], decay[row, 0])
            for part in self.partitions.values()
            for decay in (part.decay_factors(now),)
            for f, row in part.rows_of(half_lives_ms)
        ]

        def counts() -> NDArray[np.float64]:
            total = np.zeros((len(half_lives_ms), items))
            for f, popularity, decay in parts:
                add_decayed(popularity, decay, total[f, : len(popularity)])
            return total

        return counts

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

    def popularity_of(
        self, index: Ints, now: float, half_lives_ms: Sequence[int] | None = None
    ) -> NDArray[np.float64]:
        """The same of the items in `index` (of any shape): float64[F, ...]."""
        lives = self.half_lives_ms if half_lives_ms is None else half_lives_ms
        total = np.zeros((len(lives), *index.shape))
        for part in self.partitions.values():
            part.reserve_items(int(index.max(initial=-1)) + 1)
            decay = part.decay_factors(now)
            for f, row in part.rows_of(lives):
                total[f] += part.popularity[row, index] * decay[row]
        return total

    def transitions(
        self, items: Ints, now: float, successors: int | None = None
    ) -> tuple[NDArray[np.int32], Floats]:
        """The M = `successors` most counted successors, or as many as are asked for, of items (of any shape,
        -1 = none) at `now`: index[...,M], -1 = none, and share[...,M] of all transitions from the item,
        shrunk where counts are few: count / (total + 1).
        """
        distinct, row = np.unique(items, return_inverse=True)
        index, share = self.successors_of(distinct, now, successors)
        shape = (*items.shape, index.shape[1])
        return index[row.ravel()].reshape(shape), share[row.ravel()].reshape(shape)

    def successors_of(
        self, items: Ints, now: float, successors: int | None = None
    ) -> tuple[NDArray[np.int32], Floats]:
        """As `transitions`, for items[U] in one dimension, each of which is looked up: index[U,M],
        share[U,M].
        """
        parts, most = list(self.partitions.values()), self.successors if successors is None else successors
        index, count = np.full((len(items), most), -1, np.int32), np.zeros((len(items), most), np.float32)
        total = np.zeros(len(items), np.float32)
        if len(parts) == 1 and parts[0].successors == most:
            parts[0].collect_successors(items, now, index, count, total)
        elif parts:
            shape = len(parts), len(items), max(part.successors for part in parts)
            indices, counts = np.empty(shape, np.int32), np.empty(shape, np.float32)
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
            "half_lives": np.array(part.half_lives_ms, np.int64),
            "since": part.since.copy(),
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
        numbers. The partition then counts with the half-lives of the export, and has as many places for
        successors, whatever is asked for here: so all who read it count on alike.

        Errors: EddyError when the arrays do not fit together.
        """
        try:
            part = _imported(arrays, catalogue)
        except (KeyError, ValueError, IndexError) as error:
            raise EddyError(
                f"item statistics of partition {partition} are malformed ({error}); ignored"
            ) from None
        self.partitions[partition] = part
        if not part.has_counted:
            del self.partitions[partition]
        self.changes += 1


def _imported(arrays: dict[str, NDArray[Any]], catalogue: Catalogue) -> PartitionStatistics:
    """The sums of an export. Errors: KeyError, ValueError or IndexError when its arrays do not fit."""
    item, source = catalogue.add(arrays["item"]), catalogue.add(arrays["source"])
    lives, named = arrays["half_lives"], arrays["successor"]
    if arrays["popularity"].shape != (len(lives), len(item)) or not (lives > 0).all():
        raise ValueError("popularity does not fit its half-lives and items")
    if named.ndim != 2 or len(named) != len(source) or not 1 <= named.shape[1] <= MAX_SUCCESSORS:
        raise ValueError("successors do not fit the items that they follow")
    places = named.shape[1]
    part = PartitionStatistics(tuple(lives.tolist()), places)
    successor = np.full(named.shape, -1, np.int32)
    successor[named != 0] = catalogue.add(named[named != 0])
    part.reserve_items(int(max(index.max(initial=-1) for index in (item, source, successor))) + 1)
    part.popularity[:, item] = arrays["popularity"]
    part.reference[:], part.since[:] = arrays["reference"], arrays["since"]
    part.transition_reference = float(arrays["transition_reference"][0])
    part.row[source] = np.arange(len(source))
    part.rows = len(source)
    part.successor = successor.reshape(len(source), places)
    part.count = np.array(arrays["count"], np.float32).reshape(len(source), places)
    part.total = np.array(arrays["total"], np.float32).reshape(len(source))
    return part
