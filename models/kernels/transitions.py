"""Compiled loops over transition counts: see `eddy.models.scoring.item_statistics`.

Successors of an item are kept by space-saving (Metwally et al. 2005) without its overestimate: a newcomer
starts from its own weight, and a place is given up when its count, decayed by what was lost so far, falls
below the newcomer's.
"""

import numpy as np
from numpy.typing import NDArray

from eddy.models.kernels.compiled import Floats, Ints, compiled
from eddy.models.kernels.topk import insert


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
    merged[:], kept[:] = -1, 0
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
            if known > most:
                filled = min(filled + 1, most)
                insert(merged[u, :filled], kept[u, :filled], j, weight)
            else:  # their order does not matter
                merged[u, filled], kept[u, filled] = j, weight
                filled += 1


@compiled
def new_rows(item: Ints, previous: Ints, row_of: Ints, rows: int) -> int:
    """Number the items without a row that transitions start from, from `rows` on, in row_of[N]; how
    many rows there are then.
    """
    for n in range(len(item)):
        for source in previous[n]:
            if source >= 0 and source != item[n] and row_of[source] < 0:
                row_of[source] = rows
                rows += 1
    return rows


@compiled
def _pairs(
    item: Ints, previous: Ints, weight: NDArray[np.float64], source: Ints, target: Ints, summed: Floats
) -> int:
    """Sum weights of events[n] by (source, target), in order of appearance; how many pairs there are."""
    slots = 1
    while slots < 2 * previous.size:
        slots *= 2
    slot_of, exact = np.full(slots, -1, np.int32), np.empty(previous.size, np.float64)
    pairs = 0
    for n in range(len(item)):
        for lag in range(previous.shape[1]):
            start, end = previous[n, lag], item[n]
            if start < 0 or start == end:
                continue
            mixed = np.uint64(start) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(end)
            mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
            slot = np.int64(mixed >> np.uint64(32)) & (slots - 1)
            while True:
                pair = slot_of[slot]
                if pair < 0:
                    slot_of[slot] = pair = pairs
                    source[pair], target[pair], exact[pair] = start, end, 0.0
                    pairs += 1
                if source[pair] == start and target[pair] == end:
                    break
                slot = (slot + 1) & (slots - 1)
            exact[pair] += np.float32(weight[n] / (lag + 1))
    for pair in range(pairs):
        summed[pair] = np.float32(exact[pair])
    return pairs


@compiled
def _take_in(row: int, target: Ints, summed: Floats, successor: NDArray[np.int32], count: Floats) -> None:
    """Newcomers among the successors of one row: the one with the i-th largest sum takes the i-th smallest
    place, if it outweighs what is there.
    """
    order, places = np.argsort(-summed, kind="mergesort"), np.argsort(count[row], kind="mergesort")
    old = count[row].copy()
    for rank in range(min(len(order), len(places))):
        place, newcomer = places[rank], order[rank]
        if successor[row, place] < 0 or old[place] <= summed[newcomer]:
            successor[row, place], count[row, place] = target[newcomer], summed[newcomer]
        else:
            count[row, place] -= summed[newcomer]


@compiled
def add(
    item: Ints,
    previous: Ints,
    weight: NDArray[np.float64],
    row_of: Ints,
    successor: NDArray[np.int32],
    count: Floats,
    total: Floats,
) -> None:
    """Count transitions to item[n] from the items before, previous[n,K], latest first, -1 = none; one from l
    places before counts weight[n] / l, one from an item to itself does not count. Rows must exist.
    """
    source, target = np.empty(previous.size, np.int64), np.empty(previous.size, np.int64)
    summed = np.empty(previous.size, np.float32)
    pairs = _pairs(item, previous, weight, source, target, summed)
    new = 0
    for pair in range(pairs):
        row, found = row_of[source[pair]], -1
        total[row] += summed[pair]
        for place in range(successor.shape[1]):
            if successor[row, place] == target[pair]:
                found = place
        if found >= 0:
            count[row, found] += summed[pair]
        else:  # for later, when all that are known have been counted
            source[new], target[new], summed[new] = row, target[pair], summed[pair]
            new += 1
    order = np.argsort(source[:new], kind="mergesort")
    begin = 0
    for end in range(1, new + 1):
        if end == new or source[order[end]] != source[order[begin]]:
            of_row = order[begin:end]
            _take_in(source[order[begin]], target[of_row], summed[of_row], successor, count)
            begin = end
