"""Compiled loops over transition counts: see `models.statistics`."""

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@compiled
def collect(
    items: Ints,
    row_of: Ints,
    successor: NDArray[np.int32],
    count: Floats,
    total: Floats,
    decay: np.float32,
    index: NDArray[np.int32],
    counted: Floats,
    out: Floats,
) -> None:
    """One partition's successors of items[U] into index[U,M] (-1 = none) and counted[U,M], all transitions
    added to out[U]; counts times `decay`.
    """
    for u in range(len(items)):
        item = items[u]
        row = row_of[item] if 0 <= item < len(row_of) else -1
        if row < 0:
            index[u], counted[u] = -1, np.float32(0)
            continue
        for m in range(successor.shape[1]):
            index[u, m], counted[u, m] = successor[row, m], count[row, m] * decay
        out[u] += total[row] * decay


@compiled
def merge(
    index: NDArray[np.int32], counted: Floats, summed: Floats, merged: NDArray[np.int32], kept: Floats
) -> None:
    """Successors index[P,U,M] (-1 = none) of P partitions with counts [P,U,M] -> the most counted of each
    item, each once, in merged[U,K] (-1 beyond) and kept[U,K]; ties go to the lower index. summed[N] is left
    all zero.
    """
    parts, users, width = index.shape
    distinct = np.empty(parts * width, np.int32)
    most = kept.shape[1]
    for u in range(users):
        known = 0
        for part in range(parts):
            for m in range(width):
                j, weight = index[part, u, m], counted[part, u, m]
                if j < 0 or weight <= 0:
                    continue
                if summed[j] == 0:
                    distinct[known] = j
                    known += 1
                summed[j] += weight
        filled = 0
        for n in range(known):
            j = distinct[n]
            weight = summed[j]
            summed[j] = 0
            place = filled
            if known > most:  # else their order does not matter
                while place > 0 and (
                    kept[u, place - 1] < weight or (kept[u, place - 1] == weight and merged[u, place - 1] > j)
                ):
                    place -= 1
                    if place + 1 < most:
                        kept[u, place + 1], merged[u, place + 1] = kept[u, place], merged[u, place]
            if place < most:
                kept[u, place], merged[u, place] = weight, j
                filled = min(filled + 1, most)
        for place in range(filled, most):
            kept[u, place], merged[u, place] = 0, -1
