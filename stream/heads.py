"""Tables whose rows are used from the front, as far as each has something: compiled loops that look at no
more than that.
"""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from models.compiled import compiled

Number = TypeVar("Number", bound=np.generic)


@compiled
def _used(table: NDArray[Any], rows: NDArray[np.int64], count: NDArray[np.int64]) -> None:
    for i in range(len(rows)):
        row, end = table[rows[i]], 0
        while end < len(row) and row[end] != 0:
            end += 1
        count[i] = end


@compiled
def _copy(table: NDArray[Any], rows: NDArray[np.int64], count: NDArray[np.int64], into: NDArray[Any]) -> None:
    for i in range(len(rows)):
        row, own = table[rows[i]], into[i]
        for place in range(count[i]):
            own[place] = row[place]


@compiled
def _look_up(
    keys: NDArray[np.int32], values: NDArray[Any], count: NDArray[np.int64], first: int, into: NDArray[Any]
) -> None:
    for i in range(len(keys)):
        key, own = keys[i], into[i]
        for place in range(count[i]):
            own[place] = values[key[place] - first]


def used(table: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many places of table[rows] are not zero before the first that is: int64[n]."""
    count = np.empty(len(rows), np.int64)
    _used(table, rows, count)
    return count


def heads(table: NDArray[Number], rows: NDArray[np.int64]) -> NDArray[Number]:
    """table[rows], zeros past what is used, as wide as the longest: [n, 0 … columns]."""
    count = used(table, rows)
    found = np.zeros((len(rows), int(count.max(initial=0))), table.dtype)
    _copy(table, rows, count, found)
    return found


def looked_up(
    keys: NDArray[np.int32], values: NDArray[Number], count: NDArray[np.int64], first: int = 0
) -> NDArray[Number]:
    """values[keys - first] of the first `count` of each row of keys[n,k], zeros past them: [n,k]."""
    found = np.zeros(keys.shape, values.dtype)
    _look_up(keys, values, count, first, found)
    return found
