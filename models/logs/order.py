"""Sorting columns that may be larger than the memory: both sorts are stable, and give the rows in order.

First, rows are distributed among groups, slice by slice. Rows of one group are then sorted by themselves.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from eddy.models.logs import column_store
from eddy.models.logs.column_store import ColumnStore, slices

Rows = NDArray[Any]
"""Rows of a log: of type `row_type`."""

_SAMPLED = 1 << 17
"""Keys by which the boundaries between groups are chosen."""


def row_type(length: int) -> DTypeLike:
    """The smallest type that holds the rows of a log of so many events, and -1."""
    return np.int32 if length <= np.iinfo(np.int32).max else np.int64


def order_by_key(key: NDArray[Any], store: ColumnStore) -> Rows:
    """The rows in the order of their keys (times or positions), equal keys in the order of their rows.

    1. Choose boundaries between groups of about SLICE_ROWS / 4 rows, by a sample. 2. Distribute the rows: a
    key that is a boundary has a group of its own, however often it occurs. 3. Sort each of the other groups.
    """
    neighbours = (key[part.start : part.stop + 1] for part in slices(len(key)))
    if all((near[1:] >= near[:-1]).all() for near in neighbours):  # a difference could overflow
        return store.filled(len(key), row_type(len(key)), lambda part: np.arange(part.start, part.stop))
    # 1. Boundaries.
    sample = np.sort(key[:: max(1, len(key) // _SAMPLED)])
    groups = -(-4 * len(key) // column_store.SLICE_ROWS)
    boundaries = np.unique(sample[np.linspace(0, len(sample) - 1, groups + 1).astype(np.int64)])

    # 2. Odd groups are of one key.
    def group_of(part: slice) -> NDArray[np.int64]:
        return np.searchsorted(boundaries, key[part], "left") + np.searchsorted(
            boundaries, key[part], "right"
        )

    order, start = _distributed(group_of, len(key), 2 * len(boundaries) + 1, store)
    # 3. The others.
    for begin, end in zip(start[:-1:2].tolist(), start[1::2].tolist(), strict=True):
        rows = order[begin:end]
        order[begin:end] = rows[np.argsort(key[rows], kind="stable")]
    return order


def order_by_number(
    number: NDArray[np.int32], count: int, store: ColumnStore
) -> tuple[Rows, NDArray[np.int64]]:
    """The rows number after number, those of one number in order, and where each of the `count` numbers
    begins: int64[count + 1].
    """
    return _distributed(lambda part: number[part], len(number), count, store)


def count_numbers(number: Callable[[slice], NDArray[Any]], length: int, count: int) -> NDArray[np.int64]:
    """How often each number below `count` occurs in a column, which is given by slices: int64[count]."""
    total = np.zeros(count, np.int64)
    for part in slices(length):
        total += np.bincount(number(part), minlength=count)
    return total


def first_rows(number: Callable[[slice], NDArray[Any]], length: int, count: int) -> NDArray[np.int64]:
    """The first row of each number below `count` in a column, which is given by slices: int64[count], and
    `length` for one that does not occur.
    """
    first = np.full(count, length)
    for part in slices(length):
        numbers = number(part)
        new = np.flatnonzero(first[numbers] == length)[::-1]
        first[numbers[new]] = new + part.start  # of several values for one element the last stays
    return first


def _distributed(
    group_of: Callable[[slice], NDArray[Any]], length: int, groups: int, store: ColumnStore
) -> tuple[Rows, NDArray[np.int64]]:
    start = np.concatenate([[0], np.cumsum(count_numbers(group_of, length, groups))])
    order = store.empty(length, row_type(length))
    at = start[:-1].copy()
    for part in slices(length):
        group = group_of(part)
        by_group = np.argsort(group, kind="stable")
        group = group[by_group]
        first = np.flatnonzero(np.diff(group, prepend=-1))  # where each group of the slice begins
        size = np.diff(first, append=len(group))
        nth = np.arange(len(group)) - np.repeat(first, size)
        order[at[group] + nth] = by_group + part.start
        at[group[first]] += size
    return order, start
