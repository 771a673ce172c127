"""Compiled loops over tables whose rows are filled from the front and end in zeros: they look at no more than
the filled entries.
"""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from eddy.models.kernels.compiled import compiled

Number = TypeVar("Number", bound=np.generic)


@compiled
def _filled_lengths(table: NDArray[Any], count: NDArray[np.int64]) -> None:
    """Write `filled_lengths` of table[n,k] into count[n]."""
    for i in range(len(table)):
        row, end = table[i], 0
        while end < len(row) and row[end] != 0:
            end += 1
        count[i] = end


@compiled
def _take_prefix(
    keys: NDArray[Any], rows: NDArray[np.int64], values: NDArray[Any], count: NDArray[np.int64],
    first: int, into: NDArray[Any],
) -> None:  # fmt: skip
    """Write `take_prefix` into into[n, width]."""
    for i in range(len(rows)):
        key, entry = keys[rows[i]], into[i]
        for k in range(count[i]):
            entry[k] = values[key[k] - first]
        entry[count[i] :] = 0


def filled_lengths(table: NDArray[Any]) -> NDArray[np.int64]:
    """How many entries of each row of table[n,k] stand before the first zero: int64[n]."""
    count = np.empty(len(table), np.int64)
    _filled_lengths(table, count)
    return count


def take_prefix(
    keys: NDArray[Any],
    rows: NDArray[np.int64],
    values: NDArray[Number],
    count: NDArray[np.int64],
    width: int,
    first: int = 0,
) -> NDArray[Number]:
    """values[V] looked up by keys[R,k]: row i of the result [n, width] has values[key - first] for the first
    `count[i]` keys of row `rows[i]`, and zeros past them.

    Indices are not checked: each of these keys must be in first … first + V - 1, and each count at most k and
    `width`.
    """
    taken = np.empty((len(rows), width), values.dtype)
    _take_prefix(keys, rows, values, count, first, taken)
    return taken
