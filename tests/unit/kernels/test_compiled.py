"""Compiled loops on disk, and the functions that they stand in for."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import eddy
from eddy.models.kernels.compiled import compiled, folder_of_sources, mark_used
from eddy.models.kernels.compiled_maths import exp2, log
from tests.support.no_room import no_room

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("kernel", ["models/kernels/topk.py", "stream/kernels/row_bytes.py"])
def test_what_was_compiled_from_other_sources_is_not_used(tmp_path: Path, kernel: str) -> None:
    """A change in any kernel counts, whichever package it is in: loops call functions of other files."""
    package = tmp_path / "eddy"
    shutil.copytree(Path(eddy.__path__[0]), package, ignore=shutil.ignore_patterns("__pycache__", "logs"))
    before = folder_of_sources(package, tmp_path)
    (package / "stream" / "erase.py").write_text("no kernel")
    assert folder_of_sources(package, tmp_path) == before
    with (package / kernel).open("a") as file:
        file.write("# changed")
    assert folder_of_sources(package, tmp_path) != before


def test_a_kernel_whose_source_changed_is_compiled_again(tmp_path: Path) -> None:
    """In a copy of the package, with a folder of its own for what is compiled."""
    package = tmp_path / "eddy"
    shutil.copytree(Path(eddy.__path__[0]), package, ignore=shutil.ignore_patterns("__pycache__", "logs"))
    kernel = package / "stream" / "kernels" / "filled_prefix.py"
    program = (
        "import numpy as np; from eddy.stream.kernels.filled_prefix import filled_lengths; "
        "print(filled_lengths(np.array([[3, 5, 0, 7]])))"
    )

    def outcome() -> str:
        return subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path, env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")},
            check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip

    assert outcome() == outcome() == "[2]"
    kernel.write_text(kernel.read_text().replace("row[end] != 0", "row[end] >= 0"))
    assert outcome() == "[4]"


@pytest.mark.parametrize(
    ("setting", "folder"), [("EDDY_CACHE_DIR", "cache/compiled"), ("NUMBA_CACHE_DIR", "cache")]
)
def test_what_is_compiled_is_kept_where_the_setting_says(tmp_path: Path, setting: str, folder: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    program = "import numba; from eddy.models.kernels import compiled; print(numba.config.CACHE_DIR)"
    outcome = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, setting: str(tmp_path / "cache")}, check=True, capture_output=True, text=True,
    )  # fmt: skip
    kept = Path(outcome.stdout.strip())
    assert kept.parent == tmp_path / folder
    assert kept.is_dir()


def test_every_compiled_loop_is_in_a_folder_that_the_cache_looks_at() -> None:
    package = Path(eddy.__path__[0])
    sources = [path for part in ("models", "stream", "serving") for path in (package / part).rglob("*.py")]
    compiled_loops = [
        path for path in sources if re.search(r"^\s*@(compiled|inlined)$", path.read_text(), re.M)
    ]
    assert compiled_loops
    assert {path.parent.name for path in compiled_loops} == {"kernels"}


def test_what_nobody_used_for_a_month_makes_room_for_what_is_new(tmp_path: Path) -> None:
    unused, used, of_others, new = (
        tmp_path / name for name in ("0" * 16, "1" * 16, "another programs's", "2" * 16)
    )
    for folder in (unused, used, of_others):
        folder.mkdir()
        os.utime(folder, (0, 0))
    mark_used(used)
    mark_used(new)
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
