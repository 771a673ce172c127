"""The item statistics of one source partition: popularities that decay, and transitions between items.

A decaying count is kept as the sum of 2^((t - reference) / half-life) over its events' times t, so that
nothing has to be done to the items as time goes by; the reference moves before anything overflows.

F half-lives, N items, M successors of an item. Times, `now` included, are in ms of the stream clock. Items
are numbered by the catalogue.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from eddy.models.config import DAY_MS
from eddy.models.kernels.compiled import Floats, Ints
from eddy.models.kernels.transitions import assign_rows, collect_successors, count_transitions

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
        self.half_lives_ms = half_lives_ms
        self.popularity = np.zeros((len(half_lives_ms), 0), np.float64)  # [F, N], as of `reference`
        self.reference = np.full(len(half_lives_ms), np.nan)  # [F] ms, NaN = nothing was counted yet
        self.since = np.full(len(half_lives_ms), -np.inf)  # [F] ms, see `add_half_lives`
        self.transition_reference = np.nan  # ms, NaN = nothing was counted yet
        self.row = np.zeros(0, np.int64)  # [N] row of an item's successors, -1 = none yet
        self.rows = 0
        self.successor = np.full((0, successors), -1, np.int32)  # [rows or more, M], -1 = free
        self.count = np.zeros((0, successors), np.float32)  # [rows or more, M], as of `transition_reference`
        self.total = np.zeros(0, np.float32)  # [rows or more] all transitions from the item, kept or not

    @property
    def half_lives(self) -> NDArray[np.float64]:
        """float64[F], ms."""
        return np.array(self.half_lives_ms, np.float64)

    @property
    def successors(self) -> int:
        """M: successors that are kept of an item."""
        return self.successor.shape[1]

    @property
    def has_counted(self) -> bool:
        """Whether any event was counted."""
        return not np.isnan(self.transition_reference)

    def rows_of(self, half_lives_ms: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Pairs (place in the given half-lives, row of `popularity`) of those half-lives that are counted."""
        for place, life in enumerate(half_lives_ms):
            if life in self.half_lives_ms:
                yield place, self.half_lives_ms.index(life)

    def add_half_lives(
        self,
        half_lives_ms: tuple[int, ...],
        popularity: NDArray[np.float64],
        reference: NDArray[np.float64],
        since: float,
    ) -> None:
        """Count with further half-lives from now on. popularity[f,N], for the items that there is room for,
        are their sums over the events that the others have counted, as of reference[f] (ms). Events before
        `since` (ms) may be missing in them.
        """
        self.half_lives_ms += half_lives_ms
        self.popularity = np.concatenate((self.popularity, popularity))
        self.reference = np.concatenate((self.reference, reference))
        self.since = np.concatenate((self.since, np.full(len(half_lives_ms), since)))

    def add_successors(self, successors: int) -> None:
        """Make places for more successors of each item; they fill from now on.

        A list that was shorter lacks what it did not keep; it was the rarest. And what it kept counts less
        than in a list that was long from the beginning, but never more than it should: newcomers that found
        no place wore the counts down (`eddy.models.kernels.transitions`). So the best of a longer list are at
        least as near to the true counts as a shorter list. To count anew what is missing would take the items
        before every event of the log, of all users; the half-life forgets the difference instead.
        """
        added = ((0, 0), (0, successors - self.successors))
        self.successor = np.pad(self.successor, added, constant_values=-1)
        self.count = np.pad(self.count, added)

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
                self.popularity = self.popularity.copy()  # others may still read sums of the old reference
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
        that does not underflow until then and has all events since then; if there is none, no item is idle.
        """
        idle = np.zeros(items, np.bool_)
        usable = (self.half_lives >= longer_than_ms / _MAX_HALVINGS) & (self.since <= now - longer_than_ms)
        lasting = np.where(usable, self.half_lives, np.inf)
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
        """Write the successors of items[U] (-1 = none) at `now` into index[U,M'] (-1 = none) and count[U,M'],
        where M' is at least M, and add all transitions from each item to total[U].
        """
        decay = np.float32(0.0)
        if self.rows:
            age = (self.transition_reference - now) / TRANSITION_HALF_LIFE_MS
            decay = np.float32(2.0 ** min(age, MAX_HALF_LIVES))  # `now` may lie before what was counted
        collect_successors(
            items, self.row, self.successor, self.count, self.total, decay, index, count, total
        )
