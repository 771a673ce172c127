"""Loops that are compiled when they are first called, by numba, and kept on disk for the next process.

For what array operations do badly: many small steps on a row that lies in the cache. Compiled functions
release the interpreter. They do not check indices: whoever calls them must.
"""

import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeAlias, TypeVar, cast

import numba
import numpy as np
import platformdirs
from numba.core.caching import FunctionCache
from numpy.typing import NDArray

log = logging.getLogger("eddy.compiled")

Floats: TypeAlias = NDArray[np.float32]
Ints: TypeAlias = NDArray[np.int64]
"""What compiled loops mostly work on."""

P = ParamSpec("P")
R = TypeVar("R")

_FAST = {"nnan", "nsz", "reassoc", "contract", "arcp"}
"""What lets sums and maxima use vector instructions; infinities stay what they are, NaN is not expected."""

_HOW: dict[str, Any] = {"fastmath": _FAST, "error_model": "numpy"}


def cache_folder(package: Path, base: Path) -> Path:
    """Where to keep what is compiled from the kernels of a package: a new folder whenever a source in one of
    its folders named `kernels` changes. Numba looks at a function's own file only, not at those of the
    functions that it calls; kernels import nothing but kernels (an import contract), so these files are all
    that counts.
    """
    digest = hashlib.sha256()
    for source in sorted(package.glob("*/kernels/*.py")):
        digest.update(source.read_bytes())
    return base / digest.hexdigest()[:16]


def mark_used(folder: Path) -> None:
    """Mark the folder as used today; a new one replaces those beside it that nobody used for a month."""
    try:
        new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        for other in folder.parent.iterdir() if new else ():
            if _DIGEST.match(other.name) and time.time() - other.stat().st_mtime > _UNUSED_S:
                shutil.rmtree(other, ignore_errors=True)
    except OSError as error:
        log.info("what is compiled cannot be kept in %s: %s", folder, error)


_DIGEST = re.compile(r"^[0-9a-f]{16}$")
_UNUSED_S = 30 * 86_400.0
_config: Any = numba.config
_BASE = _config.CACHE_DIR or platformdirs.user_cache_path("eddy-streams", appauthor=False) / "compiled"
_config.CACHE_DIR = str(cache_folder(Path(__file__).parents[2], Path(_BASE)))
mark_used(Path(_config.CACHE_DIR))


class _Kept(FunctionCache):
    """Numba's cache, but a full disk costs time instead of ending the process."""

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]
        except OSError as error:
            log.warning("what is compiled cannot be written to %s: %s", self.cache_path, error)


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile for the processor, with sums in any order."""
    dispatcher: Any = numba.njit(nogil=True, **_HOW)(function)
    try:  # what `cache=True` does, with numba's own
        dispatcher._cache = _Kept(function)  # type: ignore[no-untyped-call]
    except RuntimeError:  # no folder that can be written: compile anew in every process
        log.info("no folder to keep what is compiled")
    return cast(Callable[P, R], dispatcher)


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Part of a compiled function's body."""
    return cast(Callable[P, R], numba.njit(inline="always", **_HOW)(function))
