"""Which items may not be listed because their owner withdrew them, as the topic `items` says.

A tombstone under an item's id withdraws it, and so does metadata with `"available": false` (or 0, or either
as a text, as tables without truth values write it); metadata without that brings it back. Compaction forgets
a tombstone in the end, so a worker carries the withdrawal over into the item's dictionary record, which
stays. What the dictionary says of an item counts only while the item has no metadata. So the order in which
workers wrote does not matter, nor do repeats.
"""

from collections.abc import Iterable

import msgspec

from eddy.models.event_limits import MAX_ID
from eddy.models.hashing import item_hash
from eddy.models.untrusted import Unreadable, decoded, text
from eddy.stream.records.schema import DICTIONARY_KEY, WithdrawableEntry, encode


class _Offer(msgspec.Struct, gc=False):
    item_id: str
    available: object = True


_NO = ("false", "0")


def _says_no(available: object) -> bool:
    """Whether the field `available` withdraws an item; a null and what is no truth value do not."""
    if isinstance(available, str):
        return available.strip().casefold() in _NO
    return isinstance(available, int | float) and available == 0


_decode_offer = msgspec.json.Decoder(_Offer).decode
_decode_entry = msgspec.json.Decoder(WithdrawableEntry).decode
_KEY_BYTES = len(DICTIONARY_KEY) + 8


class Availability:
    """The withdrawn items, by hash. `item in availability` asks whether an item's hash is among them."""

    def __init__(self) -> None:
        self._withdrawn: dict[int, str] = {}
        self._described: set[int] = set()
        self._carried: set[int] = set()
        self._to_carry: dict[int, str] = {}
        self._removed: set[int] = set()

    def __contains__(self, item: int) -> bool:
        return item in self._withdrawn

    def described(self, item: int) -> bool:
        """Whether there is metadata of the item with this hash on `items` now."""
        return item in self._described

    def removed(self, item: int) -> bool:
        """Whether the last call of `take_records` took this item, which has no metadata, out of the
        dictionary.
        """
        return item in self._removed and item not in self._described

    def take_records(self, records: Iterable[tuple[bytes | None, bytes | None]]) -> set[int]:
        """Take in records (key, value) of `items` in log order; returns the hashes of the items that they
        may have changed. A record that cannot be read changes nothing.
        """
        changed: set[int] = set()
        self._removed.clear()
        for key, value in records:
            if not key:
                continue
            take = self._take_entry if key.startswith(DICTIONARY_KEY) else self._take_metadata
            item = take(key, value)
            if item is not None:
                changed.add(item)
        return changed

    def _take_metadata(self, key: bytes, value: bytes | None) -> int | None:
        """A record under an item's id: metadata or a tombstone. Returns the item's hash, None =
        unreadable.
        """
        if value is None:
            try:
                name = text(key)
            except Unreadable:
                return None
            if len(name) > MAX_ID:
                return None  # no event can name it
            item = item_hash(name)
            self._described.discard(item)
            self._withdrawn[item] = name
        else:
            try:
                offer = decoded(_decode_offer, value)
                item = item_hash(offer.item_id)
            except Unreadable:
                return None
            self._described.add(item)
            if _says_no(offer.available):
                self._withdrawn[item] = offer.item_id
            else:
                self._withdrawn.pop(item, None)
        self._note_whether_to_carry(item)
        return item

    def _take_entry(self, key: bytes, value: bytes | None) -> int | None:
        """A record of the dictionary. Returns the item's hash, None where it changes nothing."""
        if len(key) != _KEY_BYTES:
            return None
        item = int.from_bytes(key[len(DICTIONARY_KEY) :], "big")
        self._carried.discard(item)
        self._removed.discard(item)
        if value is not None and item not in self._withdrawn and b'"withdrawn"' not in value:
            return None  # true of nearly the whole dictionary, all of which is read at every start
        if value is None:
            self._removed.add(item)
        else:
            try:
                entry = decoded(_decode_entry, value)
            except Unreadable:
                return None
            if entry.withdrawn:
                self._carried.add(item)
                if item not in self._described:
                    self._withdrawn[item] = entry.item_id
        self._note_whether_to_carry(item)
        return item

    def _note_whether_to_carry(self, item: int) -> None:
        """An item that only a tombstone withdrew is to be carried over into the dictionary."""
        if item in self._withdrawn and item not in self._described and item not in self._carried:
            self._to_carry[item] = self._withdrawn[item]
        else:
            self._to_carry.pop(item, None)

    @property
    def has_to_carry(self) -> bool:
        """Whether `to_carry` names any item; any thread may ask."""
        return bool(self._to_carry)

    def to_carry(self) -> list[str]:
        """Ids of the items that only a tombstone withdrew: their dictionary records are to say so. They stay
        here until `note_carried`, whatever becomes of who writes them.
        """
        return list(self._to_carry.values())

    def note_carried(self, ids: Iterable[str]) -> None:
        """The dictionary records of these items say by now that they are withdrawn."""
        for item in map(item_hash, ids):
            self._to_carry.pop(item, None)


def dictionary_records(
    ids: Iterable[str], availability: Availability | None = None
) -> list[tuple[bytes, bytes]]:
    """Records (key, value) for `items`, from which others learn the names of these items' hashes, and which
    of them are withdrawn.
    """
    records = []
    for name in ids:
        item = item_hash(name)
        withdrawn = availability is not None and item in availability
        records.append((dictionary_key(item), encode(WithdrawableEntry(name, withdrawn))))
    return records


def dictionary_key(item: int) -> bytes:
    """The key under which `items` names the item with this hash."""
    return DICTIONARY_KEY + item.to_bytes(8, "big")
