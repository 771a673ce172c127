"""Names of catalogue items: ids by catalogue index, and back, with collisions of their hashes refused.

Rows and statistics name items by hash; this table, fed from the version's vocabulary, from `items` and from
events, gives them their ids again. It can be a step behind (a hash whose id is not known yet): such items
are not recommended, nor are those that were withdrawn (eddy.stream.state.availability).
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eddy.models.growable import Growable
from eddy.models.hashing import item_hash, item_hashes
from eddy.models.logs.item_features import NONE, features_of
from eddy.models.untrusted import Unreadable, decoded, text
from eddy.models.vocabulary import Catalogue
from eddy.stream.records.schema import DICTIONARY_KEY, encode
from eddy.stream.state.availability import Availability
from eddy.stream.state.rows import NO_TIME

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
        try:
            if value is None:
                found.append((item_hash(text(key)), NONE))
                continue
            fields = decoded(_decode_fields, value)
        except Unreadable:
            continue
        item = fields.get("item_id")
        if isinstance(item, str) and item:
            found.append((item_hash(item), features_of(fields)))
    return found


class JsonIds(NamedTuple):
    """Item ids as JSON strings, by catalogue index; what is named later does not change it."""

    number: NDArray[np.int64]
    """[N] of an item's string among all; -1 where the id is not known"""
    strings: pa.LargeStringArray

    def take_ids(self, index: NDArray[np.int64]) -> pa.StringArray:
        """The ids of these items, which are named."""
        return self.strings.take(pa.array(self.number[index])).cast(pa.string())


class ItemNames:
    """Ids of the catalogue's items, and which of them may be listed."""

    def __init__(self, catalogue: Catalogue, idle_ms: float | None = None) -> None:
        """An item that was touched less than `idle_ms` ago keeps its id, whoever takes it out of the
        dictionary.
        """
        self.catalogue = catalogue
        self.availability = Availability()
        self.idle_ms = idle_ms
        self.now = NO_TIME
        """the stream's now, ms, when items were last touched"""
        self.ids: list[str | None] = []
        self._touched = Growable(np.zeros(0, np.int64))
        self._lasting = Growable(np.zeros(0, np.bool_))
        self._described = Growable(np.zeros(0, np.bool_))
        self._new: list[str] = []
        self._clear()

    def _clear(self) -> None:
        """Nothing that follows from ids is there yet."""
        self._index: dict[str, int] = {}
        self._collided: set[str] = set()
        self._unlisted = Growable(np.zeros(0, np.bool_))
        self._unlisted_now: NDArray[np.int64] | None = None
        self._json_number = Growable(np.zeros(0, np.int64))
        self._json_ends = Growable(np.zeros(1, np.int64))
        self._json_bytes = Growable(np.zeros(0, np.uint8))
        self._without_json: list[int] = []

    def number_items(self, ids: Sequence[str]) -> NDArray[np.int32]:
        """Catalogue index of each id, adding new ones: int32[n]; -1 for an id whose hash belongs to another
        item.
        """
        get = self._index.get
        found = np.fromiter((get(item, -1) for item in ids), np.int32, len(ids))
        missing = np.flatnonzero(found < 0)
        if len(missing):
            self._new += self.name_items(
                dict.fromkeys(ids[i] for i in missing.tolist() if ids[i] not in self._collided)
            )
            found[missing] = [get(ids[i], -1) for i in missing.tolist()]
        return found

    def name_items(self, ids: Iterable[str]) -> list[str]:
        """Name items; returns the ids that were new. An id that shares its hash with another is never
        named.
        """
        new = [item for item in ids if item not in self._index]
        if not new:
            return []
        hashes = item_hashes(new)
        index = self.catalogue.add(hashes)
        self._extend()
        named, places = [], []
        for item, at in zip(new, index.tolist(), strict=True):
            if self.ids[at] is None:
                self.ids[at] = item
                self._index[item] = at
                named.append(item)
                places.append(at)
            elif self.ids[at] != item:
                self._collided.add(item)
        self._without_json += places
        self._touched.now[places] = np.maximum(self._touched.now[places], self.now)
        self._look_up_availability(np.array(places, np.int64))
        return named

    def _extend(self) -> None:
        have, now = len(self.ids), len(self.catalogue)
        if have < now:
            self.ids.extend([None] * (now - have))
            self._unlisted.extend(now, True)
            self._touched.extend(now, NO_TIME)
            self._lasting.extend(now, False)
            self._described.extend(now, False)
            self._unlisted_now = None

    def add_vocabulary(self, ids: Sequence[str]) -> None:
        """Name items that a version knows: they never leave."""
        self.name_items(ids)
        self._lasting.now[self.catalogue.find(item_hashes(ids))] = True

    def touch_items(self, index: NDArray[np.integer], now: int) -> None:
        """Items have events at the stream's `now` (ms)."""
        self._extend()
        self._touched.now[index] = self.now = max(now, self.now)

    def take_availability(self, records: Iterable[tuple[bytes | None, bytes | None]]) -> None:
        """Records (key, value) of `items`: what they withdraw and bring back, and what they take out of the
        dictionary.
        """
        items = self.availability.take_records(records)
        if not items:
            return
        self._extend()
        hashes = np.fromiter(items, np.uint64, len(items))
        index = self.catalogue.find(hashes)
        hashes, index = hashes[index >= 0], index[index >= 0]
        removed = np.fromiter(map(self.availability.removed, hashes.tolist()), np.bool_, len(hashes))
        removed &= ~self._lasting.now[index]
        lately = self._touched_lately(self._touched.now[index[removed]])
        for at, keeps_its_id in zip(index[removed].tolist(), lately.tolist(), strict=True):
            name = self.ids[at]
            if name is not None and not keeps_its_id:
                self.ids[at] = None
                del self._index[name]
            elif name is not None:
                self._new.append(name)
        self._look_up_availability(index)

    def _look_up_availability(self, index: NDArray[np.int64]) -> None:
        """Note whether these items may be listed, and have metadata."""
        hashes, availability = self.catalogue.hashes[index].tolist(), self.availability
        unnamed = (self.ids[at] is None for at in index.tolist())
        self._unlisted.now[index] = np.fromiter(
            (without or item in availability for without, item in zip(unnamed, hashes, strict=True)),
            np.bool_,
            len(index),
        )
        self._described.now[index] = np.fromiter(map(availability.described, hashes), np.bool_, len(index))
        self._unlisted_now = None

    def _touched_lately(self, time: Any) -> Any:
        """Whether that was less than `idle_ms` ago; element by element."""
        return (time != NO_TIME) & (time > self.now - (self.idle_ms or 0))

    def untouched(self) -> NDArray[np.int64]:
        """Catalogue indices of items that leave unless somebody else has touched them: named, in no
        vocabulary, without metadata or withdrawal, and not touched here for `idle_ms`.
        """
        if self.idle_ms is None:
            return np.zeros(0, np.int64)
        self._extend()
        stays = self._unlisted.now | self._lasting.now | self._described.now
        return np.flatnonzero(~(stays | self._touched_lately(self._touched.now)))

    def leaving(self) -> NDArray[np.bool_]:
        """Which items are only there as long as a row or a count names them, since they cannot be listed:
        bool[N].
        """
        self._extend()
        return np.asarray(self._unlisted.now & ~self._lasting.now, np.bool_)

    def keep_items(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Forget all other items; see `Catalogue.keep`."""
        self._extend()
        place = self.catalogue.keep(index)
        self.ids = [self.ids[at] for at in index.tolist()]
        self._touched = Growable(self._touched.now[index])
        self._lasting = Growable(self._lasting.now[index])
        self._described = Growable(self._described.now[index])
        unlisted, collided = Growable(self._unlisted.now[index]), self._collided
        self._clear()
        self._unlisted, self._collided = unlisted, collided
        self._without_json = [at for at, name in enumerate(self.ids) if name is not None]
        self._index = {name: at for at, name in enumerate(self.ids) if name is not None}
        return place

    def unlisted(self) -> NDArray[np.int64]:
        """Catalogue indices of what may not be listed: its id is not known (yet), or it was withdrawn."""
        self._extend()
        if self._unlisted_now is None:
            self._unlisted_now = np.flatnonzero(self._unlisted.now)
        return self._unlisted_now

    def may_be_listed(self, index: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Whether these items, which are in the catalogue, are named and not withdrawn: bool[n]."""
        self._extend()
        return np.asarray(~self._unlisted.now[index], np.bool_)

    def json_ids(self) -> JsonIds:
        """Ids as JSON strings; what they cost follows what was named since the last call."""
        self._extend()
        self._json_number.extend(len(self.ids), -1)
        if self._without_json:
            texts = [encode(self.ids[at]) for at in self._without_json]
            ends = self._json_ends.now[-1] + np.cumsum([len(text) for text in texts])
            if (self._json_number.now[self._without_json] >= 0).any():  # earlier ones must not see the change
                self._json_number = Growable(self._json_number.now.copy())
            self._json_number.now[self._without_json] = np.arange(len(texts)) + len(self._json_ends) - 1
            self._json_ends.append(ends)
            self._json_bytes.append(np.frombuffer(b"".join(texts), np.uint8))
            self._without_json.clear()
        ends, text = pa.py_buffer(self._json_ends.now), pa.py_buffer(self._json_bytes.now)
        strings = pa.LargeStringArray.from_buffers(len(self._json_ends) - 1, ends, text)
        return JsonIds(self._json_number.now, strings)

    def take_new(self) -> list[str]:
        """Ids named from events since the last call: to be written to the dictionary on `items`."""
        new, self._new = self._new, []
        return new
