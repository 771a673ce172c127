"""Compiled loops that make dense scores of a product with the item matrix: they scale it, add the popularity
columns, and sum exponentials for log Z, a few rows at a time while they lie in the cache.
"""

import numpy as np

from eddy.models.kernels.compiled import Floats, compiled, inlined
from eddy.models.kernels.compiled_maths import LOG2_E, NONE, ONE, ZERO, exp2
from eddy.models.kernels.topk import maximum_of

USERS_AT_ONCE, ITEMS_AT_ONCE = 8, 512
"""Users and items whose scores are completed together. 512 scores are 2 KB: these and the popularity columns
of as many items stay in the first cache while eight users need them; longer stretches would not.
"""

COLUMNS_AT_ONCE = 5
"""Popularity columns that are added in one pass over the scores; the loop is written out for five."""

MAX_SUM = np.float32(1e15)
"""A sum of exponentials beyond which its shift is too far below the largest score: far from float32's end,
3e38, so that the sum over all chunks of a row stays finite.
"""


@compiled
def complete_dense(
    unit: Floats,
    vector: Floats,
    moving: Floats,
    tile: int,
    end: int,
    items: int,
    sparse: bool,
    dense: Floats,
    shift: Floats,
    total: Floats,
) -> None:
    """Complete columns `tile` … `end` - 1 of dense[B,N], in place: the product there becomes
    unit[B] · product + vector[B, last K columns] · moving[K,N], and -inf from column `items` on.

    If there are `sparse` parts, which need log Z = shift + log(total), shift[B] and total[B] are updated: a
    score among the larger ones, and Σ exp(d - shift) over the columns so far. They start as -inf and 0.
    N and the columns of `moving` must be at least `end`.
    """
    fixed = vector.shape[1] - len(moving)
    for first in range(0, len(dense), USERS_AT_ONCE):
        last = min(first + USERS_AT_ONCE, len(dense))
        for start in range(tile, end, ITEMS_AT_ONCE):
            stop = min(start + ITEMS_AT_ONCE, end)
            for b in range(first, last):
                shift[b], total[b] = complete_part(
                    unit[b], vector[b, fixed:], moving, start, items, sparse, dense[b, start:stop],
                    shift[b], total[b],
                )  # fmt: skip


@inlined
def complete_part(
    unit: np.float32, weight: Floats, moving: Floats, start: int, items: int, sparse: bool, scores: Floats,
    shift: np.float32, total: np.float32,
) -> tuple[np.float32, np.float32]:  # fmt: skip
    """Complete one user's scores of some items, those from `start` on, in place, with weight[K] of the
    columns; returns the shift and the total of log Z with these items.
    """
    _add_columns(unit, weight, moving, start, scores)
    for j in range(max(items - start, 0), len(scores)):
        scores[j] = NONE
    return _add_exponentials(scores, shift, total) if sparse else (shift, total)


@inlined
def _sum_exponentials(scores: Floats, shift: np.float32) -> np.float32:
    """Σ exp(scores - shift)"""
    summed, shifted = ZERO, shift * LOG2_E
    for j in range(len(scores)):
        summed += exp2(scores[j] * LOG2_E - shifted)
    return summed


@compiled
def _add_exponentials(scores: Floats, shift: np.float32, total: np.float32) -> tuple[np.float32, np.float32]:
    """The shift, and total + Σ exp(scores - shift). Another shift is chosen only if there is none yet, or if
    the sum would grow beyond MAX_SUM: looking for the largest score first costs another pass.
    """
    if shift > NONE:
        summed = _sum_exponentials(scores, shift)
        if summed < MAX_SUM:
            return shift, total + summed
    best = maximum_of(scores)
    if best == NONE:
        return shift, total
    before = total * exp2((shift - best) * LOG2_E) if total > ZERO else ZERO
    return best, before + _sum_exponentials(scores, best)


@compiled
def _add_columns(unit: np.float32, weight: Floats, moving: Floats, start: int, scores: Floats) -> None:
    """scores[n] becomes unit · scores + weight[K] · moving[K, start … start + n - 1], COLUMNS_AT_ONCE of the
    K in one pass over the scores, and the rest one by one.
    """
    stop = start + len(scores)
    if unit != ONE and len(moving) < COLUMNS_AT_ONCE:
        for j in range(len(scores)):
            scores[j] *= unit
        unit = ONE
    k = 0
    while k + COLUMNS_AT_ONCE <= len(moving):
        c0, c1, c2 = moving[k, start:stop], moving[k + 1, start:stop], moving[k + 2, start:stop]
        c3, c4 = moving[k + 3, start:stop], moving[k + 4, start:stop]
        w0, w1, w2, w3, w4 = weight[k], weight[k + 1], weight[k + 2], weight[k + 3], weight[k + 4]
        for j in range(len(scores)):
            scores[j] = unit * scores[j] + w0 * c0[j] + w1 * c1[j] + w2 * c2[j] + w3 * c3[j] + w4 * c4[j]
        unit, k = ONE, k + COLUMNS_AT_ONCE
    while k < len(moving):
        column, factor = moving[k, start:stop], weight[k]
        for j in range(len(scores)):
            scores[j] += factor * column[j]
        k += 1
