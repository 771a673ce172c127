"""Structs of arrays: cut anywhere and joined again, they are what they were."""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from eddy.stream.records.columns import join_columns, select_entries

pytestmark = pytest.mark.unit


class Inner(NamedTuple):
    number: NDArray[np.int64]
    pair: NDArray[np.int32]


@dataclass(frozen=True)
class Outer:
    partition: int
    topic: bytes
    name: list[str]
    inner: Inner


def outer(n: int, partition: int = 3) -> Outer:
    pair = np.arange(2 * n, dtype=np.int32).reshape(n, 2)
    return Outer(partition, b"t", [str(i) for i in range(n)], Inner(np.arange(n), pair))


def same(one: Outer, other: Outer) -> bool:
    assert one.inner.pair.dtype == other.inner.pair.dtype
    return (
        (one.partition, one.topic, one.name) == (other.partition, other.topic, other.name)
        and np.array_equal(one.inner.number, other.inner.number)
        and np.array_equal(one.inner.pair, other.inner.pair)
    )


@given(n=st.integers(0, 20), cuts=st.lists(st.integers(0, 20), max_size=4))
def test_parts_joined_again_are_the_whole(n: int, cuts: list[int]) -> None:
    bounds = [0, *sorted(min(cut, n) for cut in cuts), n]
    parts = [select_entries(outer(n), slice(start, end)) for start, end in pairwise(bounds)]
    assert same(join_columns(parts), outer(n))


def test_entries_are_chosen_in_every_column_and_what_holds_for_all_is_the_last_part_s() -> None:
    index = np.array([2, 0, 2])
    chosen = select_entries(outer(4), index)
    assert chosen.name == ["2", "0", "2"]
    assert chosen.inner.number.tolist() == [2, 0, 2]
    assert chosen.inner.pair.tolist() == [[4, 5], [0, 1], [4, 5]]
    assert join_columns([outer(1), outer(2, partition=7)]).partition == 7
    whole = outer(4)
    assert select_entries(whole, slice(1, 3)).inner.number.base is whole.inner.number, "a slice is a view"
