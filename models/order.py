"""Stable sorting of integers by vector instructions: numpy has them for values, not for their places."""

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]


def stable_order(key: Index) -> Index:
    """`np.argsort(key, kind="stable")` of integers [n], several times as fast while each, not negative, fits
    into 64 bits together with its place.
    """
    n = len(key)
    bits = n.bit_length()
    if not n or int(key.max()) >> (63 - bits) or int(key.min()) < 0:
        return np.argsort(key, kind="stable").astype(np.int64, copy=False)
    return np.sort(key.astype(np.int64) << bits | np.arange(n)) & ((1 << bits) - 1)


def groups(key: Index) -> tuple[Index, Index, Index]:
    """(order, start, count): a stable order that brings equal keys together, and where each group stands in
    it.
    """
    order = stable_order(key)
    ordered = key[order]
    first = np.ones(len(key), np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    start = np.flatnonzero(first)
    return order, start, np.diff(np.append(start, len(key)))
