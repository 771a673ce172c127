"""A version's vocabulary: the item ids and event types it was trained on, found again by hash.

An item's input index is its position in the vocabulary or, outside it, V + hash mod buckets: it depends on
the item's hash and the version alone, so a row can be re-encoded anywhere.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.errors import EddyError
from models.features import ItemFeatures
from models.hashing import item_hashes, type_hash


class HashIndex:
    """Positions of distinct 64-bit hashes, growing at the end: vectorised look-up in an open-addressing
    table.

    The hashes are uniform, so their upper bits are the home slot; collisions go to the next slot (linear
    probing).
    """

    def __init__(self, hashes: NDArray[np.uint64]) -> None:
        self._held = np.zeros(max(len(hashes), 16), np.uint64)
        self._length = 0
        self._bits = self._mask = 0
        self.append(hashes)

    def __len__(self) -> int:
        return self._length

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """uint64[n], by position."""
        return self._held[: self._length]

    def find(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Position of each hash, -1 where absent: int64[n]."""
        slot = self._home(hashes)
        position = self._table[slot].astype(np.int64)
        other = np.flatnonzero((position >= 0) & (self._held[position] != hashes))
        while len(other):  # a slot that another hash took: look at the next one
            slot[other] = (slot[other] + 1) & self._mask
            position[other] = self._table[slot[other]]
            at = position[other]
            other = other[(at >= 0) & (self._held[at] != hashes[other])]
        return position

    def append(self, hashes: NDArray[np.uint64]) -> None:
        """Add distinct hashes that `find` does not know."""
        start, end = self._length, self._length + len(hashes)
        if end > len(self._held):
            held = np.zeros(max(end, 2 * len(self._held)), np.uint64)
            held[:start] = self.hashes
            self._held = held
        self._held[start:end] = hashes
        self._length = end
        if self._bits == 0 or end * _SPARSE > self._mask + 1:
            self._bits = max(4, int(end * _SPARSE * 2 - 1).bit_length())
            self._mask = (1 << self._bits) - 1
            self._table = np.full(self._mask + 1, -1, np.int32)
            start = 0
        self._insert(np.arange(start, end, dtype=np.int32))

    def _home(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        return (hashes >> np.uint64(64 - self._bits)).astype(np.int64)

    def _insert(self, position: NDArray[np.int32]) -> None:
        slot = self._home(self._held[position])
        while len(position):
            free = self._table[slot] < 0
            self._table[slot[free]] = position[free]  # of several that want one slot the last gets it
            left = self._table[slot] != position
            position, slot = position[left], (slot[left] + 1) & self._mask


_SPARSE = 4
"""Slots per entry at least: most look-ups end at the first slot."""


class Vocabulary:
    """V item ids and T event types, with the number of buckets for items outside; and the features of items
    that have a vector, by hash.
    """

    def __init__(
        self, items: Sequence[str], types: Sequence[str], buckets: int, features: Sequence[int] = ()
    ) -> None:
        self.items = list(items)
        self.features = {feature: number for number, feature in enumerate(features)}
        self.types = list(types)
        self.buckets = buckets
        self._index = HashIndex(item_hashes(self.items))
        self._types = HashIndex(np.array([type_hash(name) for name in self.types], np.uint64))
        for index, names in ((self._index, "items"), (self._types, "event types")):
            if len(np.unique(index.hashes)) != len(index):
                raise EddyError(f"vocabulary: two {names} are the same or share a hash; rename one of them")

    def __len__(self) -> int:
        return len(self.items)

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """uint64[V], in vocabulary order."""
        return self._index.hashes

    def input_index(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The cell's input index of items: int64[n], 0 … V + buckets - 1."""
        found = self._index.find(hashes)
        return np.where(found >= 0, found, len(self) + (hashes % np.uint64(self.buckets)).astype(np.int64))

    def type_index(self, type_hashes: NDArray[np.integer]) -> NDArray[np.int64]:
        """The input index of event types by their hash: int64[n]; T stands for every unknown type."""
        found = self._types.find(np.asarray(type_hashes).astype(np.uint64))
        return np.where(found >= 0, found, len(self.types))


class Catalogue:
    """The growing set of candidate items: every item that was ever seen, numbered by arrival.

    One catalogue outlives model versions; statistics, windows and scores are in its numbering. `features` is
    what is known of items, these and others.
    """

    def __init__(
        self, hashes: NDArray[np.uint64] | None = None, features: ItemFeatures | None = None
    ) -> None:
        self._index = HashIndex(np.zeros(0, np.uint64) if hashes is None else hashes)
        self.features = ItemFeatures() if features is None else features

    def __len__(self) -> int:
        return len(self._index)

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """uint64[N]."""
        return self._index.hashes

    def find(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Catalogue index of each hash, -1 where unknown: int64[n]."""
        return self._index.find(hashes)

    def add(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Catalogue index of each hash, numbering those not seen before in order of appearance: int64[n]."""
        found = self.find(hashes)
        unknown = hashes[found < 0]
        if len(unknown):
            _, first = np.unique(unknown, return_index=True)
            self._index.append(unknown[np.sort(first)])
            found = self.find(hashes)
        return found
