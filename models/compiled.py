"""Loops that are compiled when they are first called, by numba, and kept on disk for the next process.

For what array operations do badly: many small steps on a row that lies in the cache. Compiled functions
release the interpreter. They do not check indices: whoever calls them must.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba
import platformdirs

P = ParamSpec("P")
R = TypeVar("R")

_FAST = {"nnan", "nsz", "reassoc", "contract", "arcp"}
"""What lets sums and maxima use vector instructions; infinities stay what they are, NaN is not expected."""

_HOW: dict[str, Any] = {"fastmath": _FAST, "error_model": "numpy"}


def folder_for(sources: Path, base: Path) -> Path:
    """Where to keep what is compiled from a folder of sources: another folder whenever one of them changes,
    since numba looks at a function's own file only, not at those of the functions that it calls.
    """
    digest = hashlib.sha256()
    for source in sorted(sources.glob("*.py")):
        digest.update(source.read_bytes())
    return base / digest.hexdigest()[:16]


_config: Any = numba.config
_BASE = _config.CACHE_DIR or platformdirs.user_cache_path("eddy-streams", appauthor=False) / "compiled"
_config.CACHE_DIR = str(folder_for(Path(__file__).parent, Path(_BASE)))


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile for the processor, with sums in any order."""
    try:
        return cast(Callable[P, R], numba.njit(cache=True, nogil=True, **_HOW)(function))
    except RuntimeError:  # no folder that can be written: compile anew in every process
        return cast(Callable[P, R], numba.njit(nogil=True, **_HOW)(function))


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Part of a compiled function's body."""
    return cast(Callable[P, R], numba.njit(inline="always", **_HOW)(function))
