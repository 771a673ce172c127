"""Compiled loops over transition counts: see `eddy.models.scoring.item_statistics`.

Each item that transitions start from has a row with M slots for its successors. They are kept by
space-saving (Metwally et al. 2005) without its overestimate: a newcomer starts from its own weight. It
replaces the successor in a slot whose count does not exceed that weight; otherwise its weight is subtracted
from the count, and the newcomer is dropped.

Indices are not checked: those of items must be below the lengths of `row_of` and `summed`, and rows below
those of `successor`, `count` and `total`.
"""

import numpy as np
from numpy.typing import NDArray

from eddy.models.kernels.compiled import Floats, Ints, compiled
from eddy.models.kernels.topk import insert_ranked


@compiled
def collect_successors(
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
    """Write one partition's successors of items[U] into index[U,M'] (-1 = none) and their counts, times
    `decay`, into counted[U,M']; add all transitions out of each item, times `decay`, to out[U].

    row_of[N] is an item's row of successor[R,M], count[R,M] and total[R], -1 = none; M' is at least M. An
    item outside 0 … N - 1 has no successors.
    """
    for u in range(len(items)):
        item = items[u]
        row = row_of[item] if 0 <= item < len(row_of) else -1
        if row < 0:
            index[u], counted[u] = -1, np.float32(0)
            continue
        for m in range(successor.shape[1]):
            index[u, m], counted[u, m] = successor[row, m], count[row, m] * decay
        for m in range(successor.shape[1], index.shape[1]):
            index[u, m], counted[u, m] = -1, np.float32(0)
        out[u] += total[row] * decay


@compiled
def merge_successors(
    index: NDArray[np.int32], counted: Floats, summed: Floats, merged: NDArray[np.int32], kept: Floats
) -> None:
    """Add up the counts counted[P,U,M] of P partitions for the successors index[P,U,M] (-1 = none), and write
    the K most counted of each item into merged[U,K] (-1 beyond) and their counts into kept[U,K] (0 beyond).
    In a row with more than K they stand in the order of their counts, ties to the lower index; else in any.

    summed[N] must be all zero, and is so again afterwards.
    """
    parts, users, width = index.shape
    distinct = np.empty(parts * width, np.int32)
    most = kept.shape[1]
    merged[:], kept[:] = -1, 0
    for u in range(users):
        # 1. Add up the partitions' counts of each distinct successor.
        n_distinct = 0
        for part in range(parts):
            for m in range(width):
                j, weight = index[part, u, m], counted[part, u, m]
                if j < 0 or weight <= 0:
                    continue
                if summed[j] == 0:
                    distinct[n_distinct] = j
                    n_distinct += 1
                summed[j] += weight
        # 2. Keep the most counted ones.
        filled = 0
        for n in range(n_distinct):
            j = distinct[n]
            weight = summed[j]
            summed[j] = 0
            if n_distinct > most:
                filled = min(filled + 1, most)
                insert_ranked(merged[u, :filled], kept[u, :filled], j, weight)
            else:  # their order does not matter
                merged[u, filled], kept[u, filled] = j, weight
                filled += 1


@compiled
def assign_rows(item: Ints, previous: Ints, row_of: Ints, rows: int) -> int:
    """Give each item of previous[n,K] (-1 = none) that has no row yet, and is not item[n] itself, the next
    row number in row_of[N]; the first one is `rows`. Returns the new number of rows.
    """
    for n in range(len(item)):
        for source in previous[n]:
            if source >= 0 and source != item[n] and row_of[source] < 0:
                row_of[source] = rows
                rows += 1
    return rows


@compiled
def _sum_pairs(
    item: Ints, previous: Ints, weight: NDArray[np.float64], source: Ints, target: Ints, summed: Floats
) -> int:
    """Sum the weights of transitions from previous[n,K] to item[n] by pair (source, target), and write the
    pairs, in order of appearance, into the first entries of source, target and summed, each [n K]. Returns
    how many pairs there are. See `count_transitions` for the weights.
    """
    # 1. An open-addressing hash table of pairs, at most half full.
    slots = 1
    while slots < 2 * previous.size:
        slots *= 2
    slot_of, exact = np.full(slots, -1, np.int32), np.empty(previous.size, np.float64)
    pairs = 0
    # 2. Add each transition to its pair, in float64.
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
    # 3. Round the sums.
    for pair in range(pairs):
        summed[pair] = np.float32(exact[pair])
    return pairs


@compiled
def _admit_newcomers(
    row: int, first: int, end: int, target: Ints, summed: Floats, successor: NDArray[np.int32], count: Floats,
    met: NDArray[np.bool_],
) -> None:  # fmt: skip
    """Offer target[first … end - 1] with weights summed[first … end - 1], none of which the row has as a
    successor yet, slots of the row: the newcomer with the i-th largest weight meets the slot with the i-th
    smallest count, and the module's docstring says what becomes of both. Those beyond the M largest are
    dropped. Equal ones meet in the order in which they stand. met[M] is working space.

    Most rows have one or two newcomers, for which sorting would take ten times as long.
    """
    slots = successor.shape[1]
    met[:] = False
    for rank in range(min(end - first, slots)):
        # 1. The next newcomer comes to the front of those that are left, which keep their order.
        best = first + rank
        for n in range(best + 1, end):
            if summed[n] > summed[best]:
                best = n
        newcomer, weight = target[best], summed[best]
        for n in range(best, first + rank, -1):
            target[n], summed[n] = target[n - 1], summed[n - 1]
        # 2. The next slot.
        slot = -1
        for m in range(slots):
            if not met[m] and (slot < 0 or count[row, m] < count[row, slot]):
                slot = m
        met[slot] = True
        # 3. They meet.
        if successor[row, slot] < 0 or count[row, slot] <= weight:
            successor[row, slot], count[row, slot] = newcomer, weight
        else:
            count[row, slot] -= weight


@compiled
def count_transitions(
    item: Ints,
    previous: Ints,
    weight: NDArray[np.float64],
    row_of: Ints,
    successor: NDArray[np.int32],
    count: Floats,
    total: Floats,
) -> None:
    """Count transitions to item[n] from the user's items before, previous[n,K], latest first, -1 = none, in
    successor[R,M], count[R,M] and total[R]. A transition from the item l events before counts weight[n] / l,
    one from an item to itself does not count. `assign_rows` must have given each source its row.
    """
    # 1. Sum equal pairs.
    source, target = np.empty(previous.size, np.int64), np.empty(previous.size, np.int64)
    summed = np.empty(previous.size, np.float32)
    pairs = _sum_pairs(item, previous, weight, source, target, summed)
    # 2. Add them to the successors that their rows have; bring the others to the front, by row.
    new = 0
    for pair in range(pairs):
        row, slot = row_of[source[pair]], -1
        total[row] += summed[pair]
        for m in range(successor.shape[1]):
            if successor[row, m] == target[pair]:
                slot = m
        if slot >= 0:
            count[row, slot] += summed[pair]
        else:
            source[new], target[new], summed[new] = row, target[pair], summed[pair]
            new += 1
    # 3. Offer the newcomers of each row its slots.
    order = np.argsort(source[:new], kind="mergesort")
    target, summed = target[order], summed[order]
    met, begin = np.empty(successor.shape[1], np.bool_), 0
    for end in range(1, new + 1):
        row = source[order[begin]]
        if end == new or source[order[end]] != row:
            _admit_newcomers(row, begin, end, target, summed, successor, count, met)
            begin = end
