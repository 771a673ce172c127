"""A version's vocabulary: the item ids and event types it was trained on, found again by hash.

An item's input index is its position in the vocabulary or, outside it, V + hash mod buckets: it depends on the
item's hash and the version alone, so a row can be re-encoded anywhere.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.errors import EddyError
from models.hashing import item_hashes, type_hash


class HashIndex:
    """Positions of distinct 64-bit hashes: vectorised look-up, growing at the end."""

    def __init__(self, hashes: NDArray[np.uint64]) -> None:
        self.hashes = hashes
        self._order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[self._order]

    def __len__(self) -> int:
        return len(self.hashes)

    def find(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Position of each hash, -1 where absent: int64[n]."""
        if not len(self._sorted):
            return np.full(len(hashes), -1, np.int64)
        at = np.minimum(np.searchsorted(self._sorted, hashes), len(self._sorted) - 1)
        return np.where(self._sorted[at] == hashes, self._order[at], -1)

    def append(self, hashes: NDArray[np.uint64]) -> None:
        """Add distinct hashes that `find` does not know."""
        new = np.argsort(hashes, kind="stable")
        at = np.searchsorted(self._sorted, hashes[new])
        self._order = np.insert(self._order, at, new + len(self.hashes))
        self._sorted = np.insert(self._sorted, at, hashes[new])
        self.hashes = np.concatenate([self.hashes, hashes])


class Vocabulary:
    """V item ids and T event types, with the number of buckets for items outside."""

    def __init__(self, items: Sequence[str], types: Sequence[str], buckets: int) -> None:
        self.items = list(items)
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

    One catalogue outlives model versions; statistics, windows and scores are in its numbering.
    """

    def __init__(self, hashes: NDArray[np.uint64] | None = None) -> None:
        self._index = HashIndex(np.zeros(0, np.uint64) if hashes is None else hashes.copy())

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
