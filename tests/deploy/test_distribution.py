"""The wheel and the sdist hold the whole program: the folders behind the links, and the files beside code."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
FOLDERS = ("models", "stream", "serving")
"""Those at the top, to which eddy/ links."""
BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, f"build_{sys.argv[1]}")(sys.argv[2]))
"""


def program_files() -> set[str]:
    """What is in the repository below `eddy`, by the names that a distribution gives it."""
    shown = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "eddy", *FOLDERS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    links = {f"eddy/{folder}" for folder in FOLDERS}
    files = {name for name in shown.stdout.splitlines() if name not in links and (ROOT / name).is_file()}
    return {name if name.startswith("eddy/") else f"eddy/{name}" for name in files}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a distribution is built from, since building leaves files behind."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("eddy", *FOLDERS):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignore)
    return folder


def build(kind: str, source: Path) -> Path:
    """The file of a distribution, made with the build backend of this environment."""
    made = subprocess.run(
        [sys.executable, "-c", BUILD, kind, str(source / "dist")],
        cwd=source,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=True,
    )
    return source / "dist" / made.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    return build("wheel", source)


def test_the_wheel_holds_every_file_of_the_program(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if name.startswith("eddy/")}
    assert names == program_files()


def test_the_sdist_holds_every_file_of_the_program(source: Path) -> None:
    with tarfile.open(build("sdist", source)) as file:
        names = {member.name.partition("/")[2] for member in file.getmembers() if member.isfile()}
    assert program_files() <= names


def test_an_unpacked_wheel_runs_without_the_repository(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path)
    code = "import eddy, eddy.stream.records.schema; print(eddy.__file__)"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONSAFEPATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.strip() == str(tmp_path / "eddy" / "__init__.py")
