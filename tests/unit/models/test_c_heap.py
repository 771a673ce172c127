"""What is large and freed does not stay in the heap of a process that lives long."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only the malloc of GNU's C library is tuned"
)

FREED_BEHIND_SMALL_ONES = """
import numpy as np, psutil
from eddy.models.c_heap import LARGE, keep_large_blocks_apart
if {apart}:
    keep_large_blocks_apart()
np.ones(30 << 20, np.uint8)  # when this block is freed, malloc takes it for a usual size
before = psutil.Process().memory_info().rss
blocks, small = [], []
for _ in range(8):
    blocks.append(np.ones(2 * LARGE, np.uint8))
    small.append(np.ones(1 << 20, np.uint8))
blocks.clear()
print(psutil.Process().memory_info().rss - before)
"""


def _kept(apart: bool, **environment: str) -> int:
    """Bytes that a new process keeps of eight large blocks that were freed, with small ones behind them."""
    code = FREED_BEHIND_SMALL_ONES.format(apart=apart)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**env, **environment}, capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_large_blocks_are_given_back_although_small_ones_lie_behind_them() -> None:
    assert _kept(apart=False) > 80 << 20  # what it is about: else the next line shows nothing
    assert _kept(apart=True) < 16 << 20


def test_a_bound_in_the_environment_is_left_alone() -> None:
    assert _kept(apart=True, MALLOC_MMAP_THRESHOLD_=str(32 << 20)) > 80 << 20
