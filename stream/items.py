"""Names of catalogue items: ids by catalogue index, and back, with collisions of their hashes refused.

Rows and statistics name items by hash; this table, fed from the version's vocabulary, from `items` and from
events, gives them their ids again. It can be a step behind (a hash whose id is not known yet): such items
are not recommended.
"""

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.features import NONE, features_of
from models.hashing import item_hash, item_hashes
from models.vocabulary import Catalogue
from stream.schema import DictionaryEntry, encode

DICTIONARY_KEY = b"\0"
"""First byte of a dictionary record's key on `items`; keys of metadata are item ids."""


_decode_fields = msgspec.json.Decoder(dict[str, object]).decode


def metadata(
    records: Iterable[tuple[bytes | None, bytes | None]],
) -> list[tuple[int, NDArray[np.uint64]]]:
    """(item hash, features) of those records (key, value) of `items` that are metadata; an item whose record
    was removed has none. What cannot be read is left out.
    """
    found = []
    for key, value in records:
        if not key or key.startswith(DICTIONARY_KEY):
            continue
        if value is None:
            found.append((item_hash(key.decode(errors="replace")), NONE))
            continue
        try:
            fields = _decode_fields(value)
        except msgspec.DecodeError:
            continue
        item = fields.get("item_id")
        if isinstance(item, str) and item:
            found.append((item_hash(item), features_of(fields)))
    return found


class ItemNames:
    """Ids of the catalogue's items."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.ids: list[str | None] = []
        self._index: dict[str, int] = {}
        self._collided: set[str] = set()
        self._unnamed: set[int] = set()
        self._unnamed_now: NDArray[np.int64] | None = None
        self._new: list[str] = []
        self._json = pa.array([], pa.string())
        self._json_until = 0

    def find(self, ids: Sequence[str]) -> NDArray[np.int32]:
        """Catalogue index of each id, adding new ones: int32[n]; -1 for an id whose hash belongs to another
        item.
        """
        get = self._index.get
        found = np.fromiter((get(item, -1) for item in ids), np.int32, len(ids))
        missing = np.flatnonzero(found < 0)
        if len(missing):
            self._new += self.add(
                dict.fromkeys(ids[i] for i in missing.tolist() if ids[i] not in self._collided)
            )
            found[missing] = [get(ids[i], -1) for i in missing.tolist()]
        return found

    def add(self, ids: Iterable[str]) -> list[str]:
        """Name items; returns the ids that were new. An id that shares its hash with another is never
        named.
        """
        new = [item for item in ids if item not in self._index]
        if not new:
            return []
        index = self.catalogue.add(item_hashes(new))
        self._extend()
        named = []
        for item, at in zip(new, index.tolist(), strict=True):
            if self.ids[at] is None:
                self.ids[at] = item
                self._index[item] = at
                self._json_until = min(self._json_until, at)
                self._unnamed.discard(at)
                self._unnamed_now = None
                named.append(item)
            else:
                self._collided.add(item)
        return named

    def _extend(self) -> None:
        have, now = len(self.ids), len(self.catalogue)
        if have < now:
            self.ids.extend([None] * (now - have))
            self._unnamed.update(range(have, now))
            self._unnamed_now = None

    def unnamed(self) -> NDArray[np.int64]:
        """Catalogue indices whose id is not known (yet)."""
        self._extend()
        if self._unnamed_now is None:
            # Kept: to go over a set that once was large takes milliseconds, even when nothing is left in it.
            self._unnamed_now = np.fromiter(sorted(self._unnamed), np.int64, len(self._unnamed))
        return self._unnamed_now

    def json(self) -> pa.StringArray:
        """Ids as JSON strings, by catalogue index; null where not known."""
        if self._json_until < len(self.ids):
            new = [None if item is None else encode(item).decode() for item in self.ids[self._json_until :]]
            self._json = pa.concat_arrays([self._json[: self._json_until], pa.array(new, pa.string())])
            self._json_until = len(self.ids)
        return self._json

    def take_new(self) -> list[str]:
        """Ids named from events since the last call: to be written to the dictionary on `items`."""
        new, self._new = self._new, []
        return new


def dictionary_records(ids: Sequence[str]) -> list[tuple[bytes, bytes]]:
    """Records (key, value) for `items` by which others can name these items' hashes; see stream.schema."""
    return [
        (DICTIONARY_KEY + value.to_bytes(8, "big"), encode(DictionaryEntry(item)))
        for item, value in zip(ids, item_hashes(ids).tolist(), strict=True)
    ]
