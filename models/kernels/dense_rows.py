"""What is added to a product with the item matrix to make dense scores of it, compiled, a few rows at a time
while they lie in the cache.
"""

import numpy as np

from eddy.models.kernels.compiled import Floats, compiled, inlined
from eddy.models.kernels.compiled_maths import LOG2_E, NONE, ONE, ZERO, exp2
from eddy.models.kernels.topk import largest_of

SIDE_BY_SIDE, CHUNK = 8, 512
"""Users and items at a time to which the popularity columns are added while they lie in the cache."""

TOGETHER = 5
"""Columns that are added in one pass; the code is for five."""

TOO_LARGE = np.float32(1e15)
"""A sum beyond which the shift is not near the largest score any more: float32 ends at 3e38."""


@compiled
def take_in(
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
    """Columns `tile` … `end` of the product dense[B,N], in place: times unit[B], plus the last K of
    vector[B,columns] · moving[K,N], and -inf from `items` on.

    shift[B] and total[B] go on as a score among the larger ones and Σ exp(d - shift), from -inf and 0, if
    there are `sparse` parts to need them.
    """
    fixed = vector.shape[1] - len(moving)
    for first in range(0, len(dense), SIDE_BY_SIDE):
        last = min(first + SIDE_BY_SIDE, len(dense))
        for start in range(tile, end, CHUNK):
            stop = min(start + CHUNK, end)
            for b in range(first, last):
                into = dense[b, start:stop]
                _add_columns(unit[b], vector[b, fixed:], moving, start, into)
                for j in range(max(items - start, 0), stop - start):
                    into[j] = NONE
                if sparse:
                    shift[b], total[b] = _with_exponentials(into, shift[b], total[b])


@inlined
def _exponentials(part: Floats, shift: np.float32) -> np.float32:
    """Σ exp(part - shift)"""
    summed, shifted = ZERO, shift * LOG2_E
    for j in range(len(part)):
        summed += exp2(part[j] * LOG2_E - shifted)
    return summed


@compiled
def _with_exponentials(part: Floats, shift: np.float32, total: np.float32) -> tuple[np.float32, np.float32]:
    """total + Σ exp(part - shift), and the shift: another one only if that is the first sum or would be too
    large for float32, since looking for the largest score first costs another pass.
    """
    if shift > NONE:
        summed = _exponentials(part, shift)
        if summed < TOO_LARGE:
            return shift, total + summed
    best = largest_of(part)
    if best == NONE:
        return shift, total
    before = total * exp2((shift - best) * LOG2_E) if total > ZERO else ZERO
    return best, before + _exponentials(part, best)


@compiled
def _add_columns(unit: np.float32, weight: Floats, moving: Floats, start: int, into: Floats) -> None:
    """into[n] · unit + weight[K] · n columns of moving[K,N], in place; TOGETHER at a time, so that `into` is
    passed over less.
    """
    stop = start + len(into)
    if unit != ONE and len(moving) < TOGETHER:
        for j in range(len(into)):
            into[j] *= unit
        unit = ONE
    k = 0
    while k + TOGETHER <= len(moving):
        c0, c1, c2 = moving[k, start:stop], moving[k + 1, start:stop], moving[k + 2, start:stop]
        c3, c4 = moving[k + 3, start:stop], moving[k + 4, start:stop]
        w0, w1, w2, w3, w4 = weight[k], weight[k + 1], weight[k + 2], weight[k + 3], weight[k + 4]
        for j in range(len(into)):
            into[j] = unit * into[j] + w0 * c0[j] + w1 * c1[j] + w2 * c2[j] + w3 * c3[j] + w4 * c4[j]
        unit, k = ONE, k + TOGETHER
    while k < len(moving):
        column, of_column = moving[k, start:stop], weight[k]
        for j in range(len(into)):
            into[j] += of_column * column[j]
        k += 1
