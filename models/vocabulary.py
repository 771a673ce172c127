"""A version's vocabulary (the item ids and event types that it was trained on), and the growing sets of all
items and event types of a process. All are looked up by hash.

An item's input index is its position in the vocabulary or, outside it, V + hash mod buckets: it depends on
the item's hash and the version alone, so a row can be re-encoded anywhere.
"""

import logging
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from eddy.models.errors import EddyError
from eddy.models.growable import Growable
from eddy.models.hashing import item_hashes, type_hashes
from eddy.models.kernels.hash_table import find_positions
from eddy.models.logs.item_features import ItemFeatures

log = logging.getLogger("eddy.vocabulary")

MAX_TYPES = 1 << 16
"""Numbers that event types can have in one process: rows keep 16 bits of each."""

MAX_TYPES_OF_EVENTS = 40_000
"""Numbers that types of events and of stored rows can take; the others are kept for types that versions
name.
"""

MAX_VOCABULARY_TYPES = 10_000
"""Event types that a version knows, at most, so that there is room for two versions without common types."""


class HashIndex:
    """Positions of distinct 64-bit hashes, growing at the end: compiled look-up in an open-addressing table.

    The hashes are uniform, so their upper bits are the home slot; collisions go to the next slot (linear
    probing).
    """

    def __init__(self, hashes: NDArray[np.uint64]) -> None:
        self._held = Growable(np.zeros(0, np.uint64))
        self._bits = self._mask = 0
        self.append(hashes)

    def __len__(self) -> int:
        return len(self._held)

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """uint64[n], by position."""
        return self._held.now

    def find(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Position of each hash, -1 where absent: int64[n]."""
        position = np.empty(len(hashes), np.int64)
        find_positions(hashes, self.hashes, self._table, np.uint64(64 - self._bits), position)
        return position

    def append(self, hashes: NDArray[np.uint64]) -> None:
        """Add distinct hashes that are not in the index."""
        start, end = len(self), len(self) + len(hashes)
        self._held.append(hashes)
        if self._bits == 0 or end * _SPARSE > self._mask + 1:
            self._bits = max(4, int(end * _SPARSE * 2 - 1).bit_length())
            self._mask = (1 << self._bits) - 1
            self._table = np.full(self._mask + 1, -1, np.int32)
            start = 0
        self._insert(np.arange(start, end, dtype=np.int32))

    def _home(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        return (hashes >> np.uint64(64 - self._bits)).astype(np.int64)

    def _insert(self, position: NDArray[np.int32]) -> None:
        slot = self._home(self.hashes[position])
        while len(position):
            free = self._table[slot] < 0
            self._table[slot[free]] = position[free]  # of several that want one slot the last gets it
            left = self._table[slot] != position
            position, slot = position[left], (slot[left] + 1) & self._mask


_SPARSE = 4
"""Least number of slots per entry, at which most look-ups end at the first slot."""


class Vocabulary:
    """V item ids and T event types, the number of buckets for items outside, and the numbers of those
    features of items that have a vector, by the features' hashes.
    """

    def __init__(
        self, items: Sequence[str], types: Sequence[str], buckets: int, features: Sequence[int] = ()
    ) -> None:
        self.items = list(items)
        self.features = {feature: number for number, feature in enumerate(features)}
        self.types = list(types)
        self.buckets = buckets
        self._index = HashIndex(item_hashes(self.items))
        self._types = HashIndex(type_hashes(self.types))
        _require_distinct(self._index, self.items, "items")
        _require_distinct(self._types, self.types, "event types")

    def __len__(self) -> int:
        return len(self.items)

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """uint64[V], in vocabulary order."""
        return self._index.hashes

    def knows(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which of these items have a vector of their own: bool[n]."""
        return self._index.find(hashes) >= 0

    def input_index(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The cell's input index of items: int64[n], 0 … V + buckets - 1."""
        position = self._index.find(hashes)
        return np.where(
            position >= 0, position, len(self) + (hashes % np.uint64(self.buckets)).astype(np.int64)
        )

    def type_index(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The input index of event types by their hash: int64[n]; T stands for every unknown type."""
        position = self._types.find(hashes)
        return np.where(position >= 0, position, len(self.types))


def _require_distinct(index: HashIndex, names: Sequence[str], noun: str) -> None:
    """Errors: EddyError naming two of `names` that have the same hash."""
    order = np.argsort(index.hashes, kind="stable")
    same = np.flatnonzero(np.diff(index.hashes[order]) == 0)
    if len(same):
        first, second = names[order[same[0]]], names[order[same[0] + 1]]
        problem = "is there twice" if first == second else f"and {second!r} have the same 64-bit hash"
        raise EddyError(f"vocabulary, {noun}: {first!r} {problem}; rename one of them")


class EventTypes:
    """The growing set of event types, numbered by arrival, so that a window keeps 16 bits of each.

    Number 0 stands for no type, and for types that came when there was no room: no version knows it and no
    rule matches it. Types that versions and their rules name have room of their own, which a client that
    sends a new type with each event cannot take.
    """

    def __init__(self) -> None:
        self._index = HashIndex(np.zeros(1, np.uint64))
        self._named: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._index)

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """uint64[N], by number."""
        return self._index.hashes

    def add(self, hashes: NDArray[np.uint64]) -> NDArray[np.uint16]:
        """The number of each hash, 0 for those that have no room; new ones get the next: uint16[n]."""
        number = self._index.find(hashes)
        unknown = hashes[number < 0]
        if len(unknown):
            room = MAX_TYPES_OF_EVENTS - len(self)
            if room > 0:
                _, first = np.unique(unknown, return_index=True)
                self._index.append(unknown[np.sort(first)[:room]])
                if len(self) == MAX_TYPES_OF_EVENTS:
                    log.warning(
                        "%d different event types: further ones count as one type that no rule matches; is "
                        "an id in event_type?",
                        MAX_TYPES_OF_EVENTS,
                    )
                number = self._index.find(hashes)
            number = np.maximum(number, 0)
        return number.astype(np.uint16)

    def find(self, hashes: NDArray[np.uint64]) -> NDArray[np.uint16]:
        """The number of each hash, 0 for those that have none: uint16[n]."""
        return np.maximum(self._index.find(hashes), 0).astype(np.uint16)

    def name(self, names: Sequence[str]) -> NDArray[np.uint16]:
        """The numbers of types that a version or a rule names: uint16[n], none of them 0.

        Errors: EddyError when two of all names that were ever given share a hash, or there is no room left.
        """
        hashes = type_hashes(names)
        for name, value in zip(names, hashes.tolist(), strict=True):
            first_name = self._named.setdefault(value, name)
            if first_name != name:
                raise EddyError(
                    f"event types {name!r} and {first_name!r} have the same 64-bit hash; rename one of them"
                )
        new = np.unique(hashes[self._index.find(hashes) < 0])
        if len(self) + len(new) > MAX_TYPES:
            raise EddyError(
                f"no room for {len(new)} more event types beside {len(self)} others; restart this process"
            )
        self._index.append(new)
        return self._index.find(hashes).astype(np.uint16)


class Catalogue:
    """The candidate items, numbered in order of arrival: all that were ever seen, except those that left.

    One catalogue outlives model versions; statistics, windows and scores are in its numbering. `features`
    holds metadata of items, in the catalogue or not; `types` numbers event types in the same way.
    """

    def __init__(
        self, hashes: NDArray[np.uint64] | None = None, features: ItemFeatures | None = None
    ) -> None:
        self._index = HashIndex(np.zeros(0, np.uint64) if hashes is None else hashes)
        self.renumbered = 0
        """how often the items were given other numbers"""
        self.features = ItemFeatures() if features is None else features
        self.types = EventTypes()

    def __len__(self) -> int:
        return len(self._index)

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """uint64[N]."""
        return self._index.hashes

    def copier(self) -> Callable[[], "Catalogue"]:
        """Returns a function that makes a copy of the items and their features as they are now, without event
        types. It may be called on another thread while the catalogue grows, and takes most of the time.
        """
        hashes, features = self.hashes, self.features.copy()
        return lambda: Catalogue(hashes, features)

    def find(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Catalogue index of each hash, -1 where unknown: int64[n]."""
        return self._index.find(hashes)

    def add(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Catalogue index of each hash, numbering those not seen before in order of appearance: int64[n]."""
        index = self.find(hashes)
        unknown = hashes[index < 0]
        if len(unknown):
            _, first = np.unique(unknown, return_index=True)
            self._index.append(unknown[np.sort(first)])
            index = self.find(hashes)
        return index

    def keep(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Forget all items except `index`, which is in increasing order.

        Returns the new index of every item, -1 for the forgotten ones: int64[N]. The caller renumbers the
        indices that are kept elsewhere. Views of `hashes` stay as they were.
        """
        new_index = np.full(len(self), -1, np.int64)
        new_index[index] = np.arange(len(index))
        self._index = HashIndex(self.hashes[index])
        self.features.forget_empty(lambda hashes: self.find(hashes) >= 0)
        self.renumbered += 1
        return new_index
