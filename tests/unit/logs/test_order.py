"""Sorting columns slice by slice gives what sorting them whole gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eddy.models.logs import column_store
from eddy.models.logs.column_store import IN_MEMORY
from eddy.models.logs.order import first_rows, order_by_key, order_by_number

pytestmark = pytest.mark.unit

NUMBERS = st.lists(st.integers(0, 9), max_size=60).map(lambda drawn: np.array(drawn, np.int32))
KEYS = st.one_of(
    NUMBERS.map(lambda drawn: drawn.astype(np.int64) + 1_700_000_000_000),
    st.lists(st.floats(allow_infinity=False), max_size=60).map(lambda drawn: np.array(drawn, np.float64)),
)


@pytest.fixture(autouse=True)
def _small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column_store, "SLICE_ROWS", 8)


@given(KEYS)
def test_equal_keys_keep_the_order_of_their_rows(key: np.ndarray) -> None:
    assert order_by_key(key, IN_MEMORY).tolist() == np.argsort(key, kind="stable").tolist()


@given(NUMBERS)
def test_rows_go_number_after_number(number: np.ndarray) -> None:
    order, start = order_by_number(number, 10, IN_MEMORY)
    assert order.tolist() == np.argsort(number, kind="stable").tolist()
    assert start.tolist() == np.searchsorted(np.sort(number), np.arange(11)).tolist()


@given(NUMBERS)
def test_the_first_row_of_a_number_is_found(number: np.ndarray) -> None:
    rows = number.tolist()
    first = first_rows(lambda part: number[part], len(number), 10)
    assert first.tolist() == [rows.index(n) if n in rows else len(rows) for n in range(10)]
