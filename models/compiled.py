"""Loops that are compiled when they are first called, by numba, and kept on disk for the next process.

For what array operations do badly: many small steps on a row that lies in the cache. Compiled functions
release the interpreter. They do not check indices: whoever calls them must.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")

_FAST = {"nnan", "nsz", "reassoc", "contract", "arcp"}
"""What lets sums and maxima use vector instructions; infinities stay what they are, NaN is not expected."""


_HOW: dict[str, Any] = {"fastmath": _FAST, "error_model": "numpy"}


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile for the processor, with sums in any order."""
    try:
        return cast(Callable[P, R], numba.njit(cache=True, nogil=True, **_HOW)(function))
    except RuntimeError:  # no folder that can be written: compile anew in every process
        return cast(Callable[P, R], numba.njit(nogil=True, **_HOW)(function))


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Part of a compiled function's body."""
    return cast(Callable[P, R], numba.njit(inline="always", **_HOW)(function))
