"""Model versions for workers in memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from eddy.models.config import DAY_MS, HOUR_MS
from eddy.models.registry import Version
from tests.support.engines import random_version


@dataclass(frozen=True)
class Versions:
    """Four versions of one registry."""

    first: Version
    second: Version
    """of the same size"""
    larger: Version
    """whose states are larger"""
    recounted: Version
    """that asks for item statistics which nobody has counted yet"""


@pytest.fixture(scope="session")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Versions]:
    registry = tmp_path_factory.mktemp("registry")
    gc.freeze()  # what is imported is no part of the garbage of each test
    first, second = (random_version(registry, hidden=8, items=50, seed=seed) for seed in range(2))
    larger = random_version(registry, cell="lstm", hidden=8, items=50, seed=2)
    recounted = random_version(registry, hidden=8, items=50, seed=4, half_lives_ms=(HOUR_MS, 2 * DAY_MS))
    yield Versions(first, second, larger, recounted)
    gc.unfreeze()  # or libraries would tell of objects that are left when the process ends
