"""Stable hashes of ids: the same in every process, on every machine, in every version of Eddy.

Rows on `user-state` name items, event types and event ids by these hashes, and versions name features of
items by them, so a change here is a migration. All are xxh3-64 (Collet, xxHash specification) of the UTF-8
bytes; 0 is kept to mean "none" and is never returned.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

_EVENT_ID_BITS = 40


def _xxh3(text: str) -> int:
    return xxh3_64_intdigest(text.encode())


def item_hash(item_id: str) -> int:
    """64-bit hash of an item id."""
    return _xxh3(item_id) or 1


def item_hashes(item_ids: Sequence[str]) -> NDArray[np.uint64]:
    """`item_hash` of each id: uint64[n]."""
    hashes = np.fromiter(map(_xxh3, item_ids), np.uint64, len(item_ids))
    hashes[hashes == 0] = 1
    return hashes


def feature_hash(feature: str) -> int:
    """64-bit hash of a feature of items, such as "genres=drama"."""
    return _xxh3(feature) or 1


@lru_cache(4096)
def type_hash(event_type: str) -> int:
    """64-bit hash of an event type's name."""
    return _xxh3(event_type) or 1


def user_hashes(user_ids: Sequence[str]) -> NDArray[np.uint64]:
    """64-bit hashes of user ids, by which processes that train together deal them: uint64[n]."""
    return np.fromiter(map(_xxh3, user_ids), np.uint64, len(user_ids))


def type_hashes(event_types: Sequence[str]) -> NDArray[np.uint64]:
    """`type_hash` of each name: uint64[n]."""
    return np.fromiter(map(type_hash, event_types), np.uint64, len(event_types))


def event_id_hash(event_id: str) -> int:
    """40-bit hash of an event id, by which a re-sent event is recognised inside the recent window."""
    return _xxh3(event_id) & ((1 << _EVENT_ID_BITS) - 1) or 1
