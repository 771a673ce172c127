"""Which items may not be listed because their owner withdrew them, as the topic `items` says.

A tombstone under an item's id withdraws it, and so does metadata with `"available": false`; metadata without
that brings it back. Compaction forgets a tombstone in the end, so a worker carries the withdrawal over into
the item's dictionary record, which stays. Metadata speaks for itself: what the dictionary says of an item
counts only while it has none. So the order in which a worker wrote does not matter, nor do repeats.
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
        """Whether the last records taken took an item without metadata out of the dictionary."""
        return item in self._removed and item not in self._described

    def take_records(self, records: Iterable[tuple[bytes | None, bytes | None]]) -> set[int]:
        """Records (key, value) of `items` in log order; returns the items of which they may have changed what
        is known. What cannot be read says nothing.
        """
        changed: set[int] = set()
        self._removed.clear()
        for key, value in records:
            if not key:
                continue
            item = self._take_entry(key, value) if key.startswith(DICTIONARY_KEY) else self._take(key, value)
            if item is not None:
                changed.add(item)
        return changed

    def _take(self, key: bytes, value: bytes | None) -> int | None:
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
            if offer.available is False:
                self._withdrawn[item] = offer.item_id
            else:
                self._withdrawn.pop(item, None)
        self._note(item)
        return item

    def _take_entry(self, key: bytes, value: bytes | None) -> int | None:
        if len(key) != _KEY_BYTES:
            return None
        item = int.from_bytes(key[len(DICTIONARY_KEY) :], "big")
        self._carried.discard(item)
        self._removed.discard(item)
        if value is not None and item not in self._withdrawn and b'"withdrawn"' not in value:
            return None  # nearly all of the dictionary, and all of it is read at every start
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
        self._note(item)
        return item

    def _note(self, item: int) -> None:
        if item in self._withdrawn and item not in self._described and item not in self._carried:
            self._to_carry[item] = self._withdrawn[item]
        else:
            self._to_carry.pop(item, None)

    def take_to_carry(self) -> list[str]:
        """Ids of items that a tombstone withdrew and whose dictionary record does not say so, since the last
        call: to be written there.
        """
        ids = list(self._to_carry.values())
        self._to_carry.clear()
        return ids

    def carry_again(self, ids: Iterable[str]) -> None:
        """Writing these did not come to its end: those that are still only withdrawn by a tombstone are given
        out again.
        """
        for item in map(item_hash, ids):
            self._note(item)


def dictionary_records(
    ids: Iterable[str], availability: Availability | None = None
) -> list[tuple[bytes, bytes]]:
    """Records (key, value) for `items` by which others can name these items' hashes, and know which of them
    are withdrawn.
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
