"""Compiled loops on disk, and the functions that they stand in for."""

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from models.compiled import compiled, folder_for, use
from models.compiled_maths import exp2, log
from tests.no_room import no_room

pytestmark = pytest.mark.unit


def test_what_was_compiled_from_other_sources_is_not_used(tmp_path: Path) -> None:
    """A change in any file counts: loops call functions of other files."""
    (tmp_path / "caller.py").write_text("same")
    (tmp_path / "called.py").write_text("before")
    before = folder_for(tmp_path, tmp_path)
    assert folder_for(tmp_path, tmp_path) == before
    (tmp_path / "called.py").write_text("after!")
    assert folder_for(tmp_path, tmp_path) != before


def test_what_nobody_used_for_a_month_makes_room_for_what_is_new(tmp_path: Path) -> None:
    unused, used, of_others, new = (
        tmp_path / name for name in ("0" * 16, "1" * 16, "another programs's", "2" * 16)
    )
    for folder in (unused, used, of_others):
        folder.mkdir()
        os.utime(folder, (0, 0))
    use(used)
    use(new)
    assert sorted(tmp_path.iterdir()) == sorted((used, of_others, new))


@compiled
def _each(x: NDArray[np.float32], powers: NDArray[np.float32], logs: NDArray[np.float32]) -> None:
    for n in range(len(x)):
        powers[n], logs[n] = exp2(x[n]), log(np.abs(x[n]))


def test_on_a_full_disk_a_loop_runs_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    @compiled
    def twice(x: int) -> int:
        return 2 * x

    with no_room(0):
        assert twice(21) == 42
    assert "cannot be written" in caplog.text


def test_powers_and_logarithms_are_right_to_single_precision() -> None:
    x = np.concatenate([np.linspace(-120, 120, 20_001), np.geomspace(1e-30, 1e30, 20_001)]).astype(np.float32)
    x = x[x != 0]
    powers, logs = np.empty_like(x), np.empty_like(x)
    _each(x, powers, logs)
    clipped = np.clip(x.astype(np.float64), -126, 127)
    np.testing.assert_allclose(powers, np.exp2(clipped), rtol=3e-7)
    np.testing.assert_allclose(logs, np.log(np.abs(x.astype(np.float64))), rtol=3e-7, atol=3e-7)
