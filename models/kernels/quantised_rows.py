"""Dense scores of few users by item rows in int8, compiled: one pass over the rows, which is as fast as the
memory gives them. oneDNN's products in int8 are made for many users at a time; one user alone takes them four
times as long as the memory does.

Queries are quantised to 16 bits, so that nearly all of the error is that of the rows, and it has a bound.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eddy.models.kernels.compiled import Floats, compiled, inlined
from eddy.models.kernels.compiled_maths import ONE
from eddy.models.kernels.dense_rows import complete_part
from eddy.models.kernels.quantisation import TINY

WIDTH_STEP = 64
"""Rows have a multiple of so many columns, zeros at the end, so that vectors leave no rest."""

ITEMS_AT_ONCE = 4096
"""Items whose rows are read for one user after another: half a megabyte, which stays in the second cache."""

_MAX_SUM = (1 << 31) - 1


class QuantisedRows(NamedTuple):
    """Item vectors x = scale · steps, nearly, and their biases, which are exact. N items, W columns."""

    steps: NDArray[np.int8]  # [N,W]
    scale: Floats  # [N]
    bias: Floats  # [N]


@compiled
def quantise_queries(
    vector: Floats, units: int, steps: NDArray[np.int16], unit: Floats, norm: Floats, lost: Floats
) -> None:
    """Write the first `units` columns of vector[B,…], which must be finite, as whole numbers into steps[B,W]
    and scales into unit[B]: x = unit · steps, nearly. norm[B] becomes the length of x, lost[B] that of what
    the steps leave out.
    """
    most = np.float32(min(32_767, _MAX_SUM // (127 * units + 1)))
    for b in range(len(vector)):
        largest, squares, rest = np.float32(TINY), 0.0, 0.0
        for j in range(units):
            largest = max(largest, abs(vector[b, j]))
        unit[b] = largest / most
        for j in range(units):
            steps[b, j] = np.int16(np.rint(vector[b, j] * (most / largest)))
            squares += vector[b, j] ** 2
            rest += (vector[b, j] - unit[b] * np.float32(steps[b, j])) ** 2
        norm[b], lost[b] = np.sqrt(squares), np.sqrt(rest)


@inlined
def _multiply(
    steps: NDArray[np.int8], start: int, query: NDArray[np.int16], scores: Floats, width: int
) -> None:
    """scores[n] = the products of the n rows from `start` on with query[width]."""
    for i in range(len(scores)):
        row, total = steps[start + i], np.int32(0)
        for j in range(width):
            total = np.int32(total + np.int32(np.int32(query[j]) * np.int32(row[j])))
        scores[i] = np.float32(total)


@compiled
def multiply_quantised(
    rows: QuantisedRows, query: NDArray[np.int16], unit: Floats, vector: Floats, moving: Floats, items: int,
    sparse: bool, dense: Floats, shift: Floats, total: Floats,
) -> None:  # fmt: skip
    """Write dense scores of B users into dense[B,N]: query[B,W] and unit[B] are theirs of `quantise_queries`;
    vector[B, D + 1 + K] gives the weights of biases and of the columns moving[K, N or more]. What `items`,
    `sparse`, shift[B] and total[B] are: see `eddy.models.kernels.dense_rows.complete_dense`.
    """
    width, columns = query.shape[1], len(moving)
    fixed = vector.shape[1] - columns
    for start in range(0, dense.shape[1], ITEMS_AT_ONCE):
        stop = min(start + ITEMS_AT_ONCE, dense.shape[1])
        scale, bias = rows.scale[start:stop], rows.bias[start:stop]
        for b in range(len(dense)):
            scores, steps = dense[b, start:stop], query[b]
            if width == WIDTH_STEP:  # a number that the compiler knows makes the loop twice as fast
                _multiply(rows.steps, start, steps, scores, WIDTH_STEP)
            elif width == 2 * WIDTH_STEP:
                _multiply(rows.steps, start, steps, scores, 2 * WIDTH_STEP)
            else:
                _multiply(rows.steps, start, steps, scores, width)
            of_user, of_bias = unit[b], vector[b, fixed - 1]
            for i in range(len(scores)):
                scores[i] = scores[i] * (scale[i] * of_user) + of_bias * bias[i]
            shift[b], total[b] = complete_part(
                ONE, vector[b, fixed:], moving, start, items, sparse, scores, shift[b], total[b]
            )
