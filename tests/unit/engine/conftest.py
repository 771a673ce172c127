"""Two versions that have little in common."""

from __future__ import annotations

import pytest

from eddy.models.registry import Version
from tests.support.engines import random_version


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Version:
    return random_version(tmp_path_factory.mktemp("first"))


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Version:
    """Another cell, of another size, which looks further back for transitions."""
    return random_version(tmp_path_factory.mktemp("second"), "lstm", hidden=8, seed=3, transition_lags=4)
