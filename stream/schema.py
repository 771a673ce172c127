"""The messages on Eddy's topics, in one place. JSON; ids are strings; times are ms since 1970 in event
time.

| topic | key | value |
| --- | --- | --- |
| events | user_id | Event; an empty value (tombstone) erases the user; both in the partition that
stream.partitioner gives the key |
| items | item_id | Item: metadata, written by whoever owns the catalogue; every field of it (texts,
numbers, lists of them) but `available` is a feature of the item, by which a new one is scored
(models.features). `"available": false`, or an empty value (tombstone), withdraws the item from all lists |
| items | 0x00 + hash | WithdrawableEntry: written by workers, so that hashes in rows can be named again, and
withdrawals outlive their tombstones |
| recommendations | user_id | Recommendation |
| user-state | user_id | a binary row, see stream.rows; empty: erased |
| item-stats | partition/part | binary arrays, see stream.item_stats |
| model-versions | "live" and "epoch-N" | Announcement |
| dead-letters | topic:partition:offset | the original bytes; headers: reason, topic, partition, offset,
length, sha256 |
"""

from typing import Annotated

import msgspec

from models.event_limits import MAX_ID, MAX_TYPE
from models.events import DEFAULT_TYPE

MAX_INT64 = (1 << 63) - 1
"""Without it a number of any length would be a timestamp."""

MAX_EPOCH = (1 << 32) - 1
"""What a row has room for."""

DICTIONARY_KEY = b"\0"
"""First byte of a dictionary record's key on `items`; keys of metadata are item ids."""

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID)]


class Event(msgspec.Struct, gc=False):
    """One user-item interaction, as `models.event_limits` says; `stream.events` checks what types cannot.
    Unknown fields (such as `context`) are left alone.
    """

    user_id: Id
    item_id: Id
    timestamp: Annotated[int, msgspec.Meta(ge=0, le=MAX_INT64)]
    event_type: Annotated[str, msgspec.Meta(max_length=MAX_TYPE)] | None = DEFAULT_TYPE
    value: float | None = None
    event_id: Annotated[str, msgspec.Meta(max_length=MAX_ID)] | None = None


class Item(msgspec.Struct, gc=False):
    """What is known of an item beside its id."""

    item_id: Id
    title: str | None = None
    genres: list[str] = []


class DictionaryEntry(msgspec.Struct, gc=False):
    """An item id under the key of its hash."""

    item_id: Id


class WithdrawableEntry(DictionaryEntry, gc=False, omit_defaults=True):
    """A dictionary entry that may carry over what a tombstone under the item's id said."""

    withdrawn: bool = False
    """overruled by metadata, where there is any"""


class Recommended(msgspec.Struct, gc=False):
    """One place of a list."""

    item_id: str
    score: float


class Recommendation(msgspec.Struct, gc=False):
    """A user's list, best first, as of one record of `events`: consumers drop repeats by (topic_id,
    partition, offset).
    """

    user_id: str
    items: list[Recommended]
    topic_id: str
    partition: int
    offset: int
    timestamp: int
    """event time of the user's last event, ms"""
    epoch: int
    version: str


class Announcement(msgspec.Struct, gc=False):
    """A model version that goes live at an epoch; epochs only grow, a roll-back is a new epoch."""

    epoch: Annotated[int, msgspec.Meta(ge=1, le=MAX_EPOCH)]
    version: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    folder: str
    announced_at: int
    """wall clock, ms"""


encode = msgspec.json.Encoder().encode
