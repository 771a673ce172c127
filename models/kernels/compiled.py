"""Loops that numba compiles when they are first called, and that are kept on disk for the next process.

They do what array operations do badly: many small steps on a row that lies in the cache. A compiled function
releases the interpreter's lock. It does not check indices: its caller must, and each function's docstring
says what must hold of its arguments.
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
from numba.core.caching import FunctionCache
from numpy.typing import NDArray

from eddy.models.machine_cache import cache_folder

log = logging.getLogger("eddy.compiled")

Floats: TypeAlias = NDArray[np.float32]
Ints: TypeAlias = NDArray[np.int64]
"""The arrays that most compiled loops work on."""

P = ParamSpec("P")
R = TypeVar("R")

_FAST = {"nnan", "nsz", "reassoc", "contract", "arcp"}
"""Liberties of floating-point arithmetic that let sums and maxima use vector instructions: terms may be added
in any order, and NaN is not expected; infinities keep their meaning.
"""

_OPTIONS: dict[str, Any] = {"fastmath": _FAST, "error_model": "numpy"}


def folder_of_sources(package: Path, base: Path) -> Path:
    """The folder below `base` for code that was compiled from the kernels of a package: a new one whenever a
    source in one of the package's folders named `kernels` changes. Numba looks at a function's own file only,
    not at those of the functions that it calls; kernels import nothing but kernels and the cache folder's
    name (an import contract says so), so no other file matters.
    """
    digest = hashlib.sha256()
    for source in sorted(package.glob("*/kernels/*.py")):
        digest.update(source.read_bytes())
    return base / digest.hexdigest()[:16]


def mark_used(folder: Path) -> None:
    """Mark the folder as used today; if it is new, remove those beside it that nobody used for a month."""
    try:
        new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        for other in folder.parent.iterdir() if new else ():
            if _DIGEST.match(other.name) and time.time() - other.stat().st_mtime > _UNUSED_S:
                shutil.rmtree(other, ignore_errors=True)
    except OSError as error:
        log.info("compiled code cannot be kept in %s: %s", folder, error)


_DIGEST = re.compile(r"^[0-9a-f]{16}$")
_UNUSED_S = 30 * 86_400.0
_config: Any = numba.config
_BASE = Path(_config.CACHE_DIR or cache_folder() / "compiled")
_config.CACHE_DIR = str(folder_of_sources(Path(__file__).parents[2], _BASE))
mark_used(Path(_config.CACHE_DIR))


class _DiskCache(FunctionCache):
    """Numba's cache, but a full disk costs time instead of ending the process."""

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]
        except OSError as error:
            log.warning("compiled code cannot be written to %s: %s", self.cache_path, error)


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile the function for this processor, with _FAST arithmetic."""
    dispatcher: Any = numba.njit(nogil=True, **_OPTIONS)(function)
    try:  # the same as `cache=True`, which would take numba's own cache
        dispatcher._cache = _DiskCache(function)  # type: ignore[no-untyped-call]
    except RuntimeError:  # no folder can be written: every process compiles anew
        log.info("no folder to keep compiled code in")
    return cast(Callable[P, R], dispatcher)


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Make the function a part of the bodies of the compiled functions that call it."""
    return cast(Callable[P, R], numba.njit(inline="always", **_OPTIONS)(function))
