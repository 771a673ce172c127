"""Where columns lie: in memory up to a limit, beyond it in files that leave nothing behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eddy.models.errors import EddyError
from eddy.models.logs.column_store import IN_MEMORY, ColumnStore, bounded_store, slices
from tests.support.no_room import no_room

pytestmark = pytest.mark.unit


def in_file(array: np.ndarray) -> bool:
    while array.base is not None and not isinstance(array, np.memmap):
        array = array.base
    return isinstance(array, np.memmap)


def test_arrays_lie_in_memory_until_the_limit_and_again_when_others_are_gone(tmp_path: Path) -> None:
    store = ColumnStore(1000, tmp_path)
    first, second = store.empty(100, np.int64), store.empty(100, np.int64)
    assert [in_file(first), in_file(second)] == [False, True]
    del first
    assert not in_file(store.empty(100, np.int64))


@pytest.mark.parametrize("limit", [None, 0, 1 << 30])
def test_what_was_written_is_what_is_read_wherever_it_lies(tmp_path: Path, limit: int | None) -> None:
    store = ColumnStore(limit, tmp_path)
    values = np.arange(1000, dtype=np.int32)
    column = store.growing(np.int32)
    for part in slices(1000, 300):
        column.append(values[part])
    grown = column.finish()
    filled = store.filled(1000, np.int32, lambda part: values[part])
    filled[3] = -1
    assert grown.tolist() == values.tolist()
    assert filled.tolist() == [0, 1, 2, -1, *range(4, 1000)]
    assert store.growing(np.int32).finish().tolist() == []
    assert store.empty(0, np.int64).tolist() == []


def test_files_have_no_name_so_that_nothing_is_left_whatever_ends_the_process(tmp_path: Path) -> None:
    store = ColumnStore(0, tmp_path)
    array = store.empty(10_000, np.int64)
    array[:] = 1
    assert in_file(array)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    store = ColumnStore(0, tmp_path)
    for make in (
        lambda: store.empty(100_000, np.int64),
        lambda: store.growing(np.int64).append(np.zeros(100_000, np.int64)),
    ):
        with no_room(100_000), pytest.raises(EddyError, match="EDDY_TRAINING_MEMORY_GB") as caught:
            make()
        assert "\n" not in str(caught.value)


def test_a_process_without_a_limit_takes_what_it_needs(tmp_path: Path) -> None:
    assert bounded_store(None, tmp_path) is IN_MEMORY
    assert bounded_store(1.0, tmp_path).is_limited
