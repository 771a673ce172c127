"""Names of catalogue items: ids by catalogue index, and back, with collisions of their hashes refused.

Rows and statistics name items by hash. This table, fed from the version's vocabulary, from `items` and from
events, gives the hashes their ids again. It can be a step behind: an item whose id is not known yet is not
recommended, nor is one that was withdrawn (`eddy.stream.state.availability`).
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

decode_fields = msgspec.json.Decoder(dict[str, object]).decode


def metadata(
    records: Iterable[tuple[bytes | None, bytes | None]],
) -> list[tuple[int, NDArray[np.uint64]]]:
    """(item hash, features) of those records (key, value) of `items` that are metadata; an item whose record
    was removed has no features. A record that cannot be read is left out.
    """
    features = []
    for key, value in records:
        if not key or key.startswith(DICTIONARY_KEY):
            continue
        try:
            if value is None:
                features.append((item_hash(text(key)), NONE))
                continue
            fields = decoded(decode_fields, value)
        except Unreadable:
            continue
        item = fields.get("item_id")
        if isinstance(item, str) and item:
            features.append((item_hash(item), features_of(fields)))
    return features


def features_in(value: bytes) -> NDArray[np.uint64]:
    """The features in an item's metadata, which must be readable."""
    return features_of(decode_fields(value))


class JsonIds(NamedTuple):
    """Item ids as JSON strings, by catalogue index; a name that comes later does not change it."""

    number: NDArray[np.int64]
    """[N] the number of each item's string, -1 where the id is not known"""
    strings: pa.LargeStringArray

    def take_ids(self, index: NDArray[np.int64]) -> pa.StringArray:
        """The ids of these items (catalogue indices), all of which must be known."""
        return self.strings.take(pa.array(self.number[index])).cast(pa.string())


class ItemNames:
    """Ids of the catalogue's items, and which of them may be listed."""

    def __init__(self, catalogue: Catalogue, idle_ms: float | None = None) -> None:
        """An item that was touched less than `idle_ms` ago keeps its id even if another process removes its
        record from the dictionary; with None, no item does.
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
        """Start over with everything that follows from the ids."""
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
        index = np.fromiter((get(item, -1) for item in ids), np.int32, len(ids))
        missing = np.flatnonzero(index < 0)
        if len(missing):
            self._new += self.name_items(
                dict.fromkeys(ids[i] for i in missing.tolist() if ids[i] not in self._collided)
            )
            index[missing] = [get(ids[i], -1) for i in missing.tolist()]
        return index

    def name_items(self, ids: Iterable[str]) -> list[str]:
        """Give items their ids; returns the ids that were new. An id that shares its hash with another one is
        refused.
        """
        new = [item for item in ids if item not in self._index]
        if not new:
            return []
        hashes = item_hashes(new)
        index = self.catalogue.add(hashes)
        self._extend()
        named, numbers = [], []
        for item, number in zip(new, index.tolist(), strict=True):
            if self.ids[number] is None:
                self.ids[number] = item
                self._index[item] = number
                named.append(item)
                numbers.append(number)
            elif self.ids[number] != item:
                self._collided.add(item)
        self._without_json += numbers
        self._touched.now[numbers] = np.maximum(self._touched.now[numbers], self.now)
        self._look_up_availability(np.array(numbers, np.int64))
        return named

    def _extend(self) -> None:
        """Make room for the items that the catalogue has got since: their ids are not known yet."""
        missing, items = len(self.catalogue) - len(self.ids), len(self.catalogue)
        if missing > 0:
            self.ids.extend([None] * missing)
            self._unlisted.extend(items, True)
            self._touched.extend(items, NO_TIME)
            self._lasting.extend(items, False)
            self._described.extend(items, False)
            self._unlisted_now = None

    def add_vocabulary(self, ids: Sequence[str]) -> None:
        """Give the items of a version's vocabulary their ids: they never leave."""
        self.name_items(ids)
        self._lasting.now[self.catalogue.find(item_hashes(ids))] = True

    def touch_items(self, index: NDArray[np.integer], now: int) -> None:
        """Note that these items have events at the stream's `now` (ms)."""
        self._extend()
        self._touched.now[index] = self.now = max(now, self.now)

    def take_availability(self, records: Iterable[tuple[bytes | None, bytes | None]]) -> None:
        """Take in records (key, value) of `items`: which items they withdraw, bring back, or take out of the
        dictionary.
        """
        items = self.availability.take_records(records)
        if not items:
            return
        # 1. Which of them the catalogue knows.
        self._extend()
        hashes = np.fromiter(items, np.uint64, len(items))
        index = self.catalogue.find(hashes)
        hashes, index = hashes[index >= 0], index[index >= 0]
        # 2. An item that left the dictionary loses its id, unless an event touched it lately: then its record
        # is to be written again.
        removed = np.fromiter(map(self.availability.removed, hashes.tolist()), np.bool_, len(hashes))
        removed &= ~self._lasting.now[index]
        lately = self._touched_lately(self._touched.now[index[removed]])
        for number, keeps_its_id in zip(index[removed].tolist(), lately.tolist(), strict=True):
            name = self.ids[number]
            if name is not None and not keeps_its_id:
                self.ids[number] = None
                del self._index[name]
            elif name is not None:
                self._new.append(name)
        # 3. What may be listed now.
        self._look_up_availability(index)

    def _look_up_availability(self, index: NDArray[np.int64]) -> None:
        """Note whether these items may be listed, and whether they have metadata."""
        hashes, availability = self.catalogue.hashes[index].tolist(), self.availability
        unnamed = (self.ids[number] is None for number in index.tolist())
        self._unlisted.now[index] = np.fromiter(
            (without or item in availability for without, item in zip(unnamed, hashes, strict=True)),
            np.bool_,
            len(index),
        )
        self._described.now[index] = np.fromiter(map(availability.described, hashes), np.bool_, len(index))
        self._unlisted_now = None

    def _touched_lately(self, time: Any) -> Any:
        """Whether `time` (ms, a number or an array) is less than `idle_ms` ago."""
        return (time != NO_TIME) & (time > self.now - (self.idle_ms or 0))

    def untouched(self) -> NDArray[np.int64]:
        """Catalogue indices of the items that leave unless another process has touched them: they have an id,
        are in no vocabulary, have no metadata, are not withdrawn, and were not touched here for `idle_ms`.
        """
        if self.idle_ms is None:
            return np.zeros(0, np.int64)
        self._extend()
        stays = self._unlisted.now | self._lasting.now | self._described.now
        return np.flatnonzero(~(stays | self._touched_lately(self._touched.now)))

    def leaving(self) -> NDArray[np.bool_]:
        """Which items stay only as long as a row or a count names them, since they cannot be listed:
        bool[N].
        """
        self._extend()
        return np.asarray(self._unlisted.now & ~self._lasting.now, np.bool_)

    def keep_items(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Forget all items but these; returns each item's new index, see `Catalogue.keep`."""
        self._extend()
        new_index = self.catalogue.keep(index)
        self.ids = [self.ids[number] for number in index.tolist()]
        self._touched = Growable(self._touched.now[index])
        self._lasting = Growable(self._lasting.now[index])
        self._described = Growable(self._described.now[index])
        unlisted, collided = Growable(self._unlisted.now[index]), self._collided
        self._clear()
        self._unlisted, self._collided = unlisted, collided
        self._index = {name: number for number, name in enumerate(self.ids) if name is not None}
        self._without_json = list(self._index.values())
        return new_index

    def id_of(self, index: int) -> str | None:
        """The id of an item of the catalogue, None as long as it is not known."""
        return self.ids[index] if index < len(self.ids) else None

    def unlisted(self) -> NDArray[np.int64]:
        """Catalogue indices of the items that may not be listed: their ids are not known yet, or they were
        withdrawn.
        """
        self._extend()
        if self._unlisted_now is None:
            self._unlisted_now = np.flatnonzero(self._unlisted.now)
        return self._unlisted_now

    def may_be_listed(self, index: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Whether these items of the catalogue have ids and are not withdrawn: bool[n]."""
        self._extend()
        return np.asarray(~self._unlisted.now[index], np.bool_)

    def json_ids(self) -> JsonIds:
        """All ids as JSON strings, at the cost of those that came since the last call."""
        self._extend()
        self._json_number.extend(len(self.ids), -1)
        if self._without_json:
            texts = [encode(self.ids[number]) for number in self._without_json]
            ends = self._json_ends.now[-1] + np.cumsum([len(text) for text in texts])
            if (self._json_number.now[self._without_json] >= 0).any():  # earlier JsonIds must not change
                self._json_number = Growable(self._json_number.now.copy())
            self._json_number.now[self._without_json] = np.arange(len(texts)) + len(self._json_ends) - 1
            self._json_ends.append(ends)
            self._json_bytes.append(np.frombuffer(b"".join(texts), np.uint8))
            self._without_json.clear()
        ends, text = pa.py_buffer(self._json_ends.now), pa.py_buffer(self._json_bytes.now)
        strings = pa.LargeStringArray.from_buffers(len(self._json_ends) - 1, ends, text)
        return JsonIds(self._json_number.now, strings)

    def id_strings(self) -> pa.StringArray:
        """All ids by catalogue index, null where one is not known: made anew, at the cost of all of them."""
        self._extend()
        return pa.array(self.ids, pa.string())

    def take_new(self) -> list[str]:
        """Ids that came with events since the last call: to be written to the dictionary on `items`."""
        new, self._new = self._new, []
        return new
