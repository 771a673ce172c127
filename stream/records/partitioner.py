"""The partition of a key, as producers' own clients choose it: the one place where Eddy computes it.

| EDDY_PARTITIONER | partition | who chooses so unless told otherwise |
| --- | --- | --- |
| murmur2 | murmur2 of the key, without its sign, modulo the partitions | Java, kafka-python, aiokafka |
| crc32 | CRC-32 of the key modulo the partitions | librdkafka ("consistent_random"): confluent-kafka for Python, Go, Node and .NET |
"""  # noqa: E501

import zlib
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Partitioner = Literal["murmur2", "crc32"]

_M = np.uint32(0x5BD1E995)
_SEED = np.uint32(0x9747B28C)
_R = np.uint32(24)
_AT_ONCE = 4096
"""Keys hashed together: each takes as much memory as the longest of them."""

ENOUGH = 20
"""Keys after which another partitioner is recognised: chance alone puts at most half of them right."""

ALMOST_ALL = 0.9
"""Share of the keys that a partitioner must put where they lie to be recognised: a few may be misplaced
otherwise.
"""


def partition_of(
    keys: Sequence[bytes], partitions: int, partitioner: Partitioner = "murmur2"
) -> NDArray[np.int32]:
    """The partition of each key among so many: int32[n]."""
    if partitioner == "crc32":
        hashes = np.fromiter(map(zlib.crc32, keys), np.uint32, len(keys))
    else:
        hashes = murmur2(keys)
    return (hashes % np.uint32(partitions)).astype(np.int32)


def murmur2(keys: Sequence[bytes]) -> NDArray[np.uint32]:
    """The hash of each key (murmur2, Appleby) without its sign, as the Java client takes it: uint32[n]."""
    if len(keys) > _AT_ONCE:
        parts = [murmur2(keys[start : start + _AT_ONCE]) for start in range(0, len(keys), _AT_ONCE)]
        return np.concatenate(parts)
    n = len(keys)
    length = np.fromiter(map(len, keys), np.uint32, n)
    words = max((int(length.max(initial=0)) + 3) // 4, 1)
    padded = np.array(keys, f"S{words * 4}")  # with zeros
    word = np.ascontiguousarray(padded.view("<u4").reshape(n, words).T)
    whole = length // np.uint32(4)
    shortest = int(whole.min(initial=0))
    h = _SEED ^ length
    for i in range(words):
        k = word[i] * _M
        k ^= k >> _R
        k *= _M
        mixed = (h * _M) ^ k
        if i < shortest:  # a word of all keys
            h = mixed
            continue
        # The last, partial word is mixed in without the steps above: its bytes as they are.
        tail = (h ^ word[i]) * _M
        h = np.where(i < whole, mixed, np.where((i == whole) & (length % 4 > 0), tail, h))
    h ^= h >> np.uint32(13)
    h *= _M
    h ^= h >> np.uint32(15)
    return np.asarray(h & np.uint32(0x7FFFFFFF), np.uint32)


class OtherPartitioner:
    """Recognises that records were placed by another partitioner than the one that is set."""

    def __init__(self, partitions: int, partitioner: Partitioner) -> None:
        self._partitions, self._set = partitions, partitioner
        self._fits: dict[Partitioner, int] = dict.fromkeys(get_args(Partitioner), 0)
        self._seen = 0
        self._decided = False

    def recognised(self, keys: Sequence[bytes], partition: int) -> str | None:
        """Take in keys of records that lie in a partition. Returns what to tell the user, once: as soon as
        almost all keys lie where another partitioner puts them, and not where the one that is set puts them.
        """
        if self._decided or not keys:
            return None
        for name in self._fits:
            self._fits[name] += int((partition_of(keys, self._partitions, name) == partition).sum())
        self._seen += len(keys)
        if self._seen < ENOUGH:
            return None
        self._decided = True
        other = max(self._fits, key=self._fits.__getitem__)
        if self._fits[other] < ALMOST_ALL * self._seen or self._fits[self._set] >= ALMOST_ALL * self._seen:
            return None
        return (
            f"{self._fits[other]} of the first {self._seen} keys lie where the partitioner {other} puts "
            f"them, {self._fits[self._set]} where {self._set} does: set EDDY_PARTITIONER={other} for all of "
            f"Eddy's processes, or let the producers use {self._set}"
        )
