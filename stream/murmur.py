"""Kafka's default partitioner over whole columns: murmur2 (Appleby), as the Java client computes it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_M = np.uint32(0x5BD1E995)
_SEED = np.uint32(0x9747B28C)
_R = np.uint32(24)


def murmur2(keys: Sequence[bytes]) -> NDArray[np.uint32]:
    """The positive hash of each key, uint32[n]: `hash % partitions` is its partition."""
    n = len(keys)
    length = np.fromiter(map(len, keys), np.uint32, n)
    words = (int(length.max(initial=0)) + 3) // 4
    padded = b"".join([key.ljust(words * 4, b"\0") for key in keys])
    word = np.frombuffer(padded, "<u4").reshape(n, words)
    whole = length // np.uint32(4)
    with np.errstate(over="ignore"):
        h = _SEED ^ length
        for i in range(words):
            k = word[:, i] * _M
            k ^= k >> _R
            k *= _M
            mixed = (h * _M) ^ k
            # the last, partial word is mixed in differently: its bytes as they are
            tail = (h ^ word[:, i]) * _M
            h = np.where(i < whole, mixed, np.where((i == whole) & (length % 4 > 0), tail, h))
        h ^= h >> np.uint32(13)
        h *= _M
        h ^= h >> np.uint32(15)
    return np.asarray(h & np.uint32(0x7FFFFFFF), np.uint32)
