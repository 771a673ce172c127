"""Orders are those of numpy's stable sort, whatever the keys."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.order import groups, stable_order

pytestmark = pytest.mark.unit


@given(st.lists(st.integers(0, 5) | st.integers(-(2**63), 2**63 - 1), max_size=50))
def test_equal_keys_keep_their_order(keys: list[int]) -> None:
    key = np.array(keys, np.int64)
    np.testing.assert_array_equal(stable_order(key), np.argsort(key, kind="stable"))


@given(st.lists(st.integers(0, 9), max_size=80))
def test_a_group_is_every_place_of_its_key_in_turn(keys: list[int]) -> None:
    key = np.array(keys, np.int64)
    order, start, count = groups(key)
    found = {int(key[order[s]]): order[s : s + c].tolist() for s, c in zip(start, count, strict=True)}
    assert found == {value: np.flatnonzero(key == value).tolist() for value in set(keys)}
