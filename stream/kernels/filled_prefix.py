"""Tables whose rows are used from the front, as far as each has something: compiled loops that look at no
more than that.
"""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from eddy.models.kernels.compiled import compiled

Number = TypeVar("Number", bound=np.generic)


@compiled
def _filled_lengths(table: NDArray[Any], count: NDArray[np.int64]) -> None:
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
    for i in range(len(rows)):
        key, own = keys[rows[i]], into[i]
        for place in range(count[i]):
            own[place] = values[key[place] - first]
        own[count[i] :] = 0


def filled_lengths(table: NDArray[Any]) -> NDArray[np.int64]:
    """How many places of each row of table[n,k] are not zero before the first that is: int64[n]."""
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
    """values[keys - first] of the first `count[i]` keys in row `rows[i]`, zeros past them: [n, width]."""
    found = np.empty((len(rows), width), values.dtype)
    _take_prefix(keys, rows, values, count, first, found)
    return found
