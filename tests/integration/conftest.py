"""A stage for real workers, on the session's broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kafka_clusters import MakeSettings
from tests.support.stage import Stage, staged


@pytest.fixture
def stage(make_settings: MakeSettings, tmp_path: Path) -> Iterator[Stage]:
    """An installation of two partitions, sessions as short as they may be."""
    settings = make_settings(partitions=2, session_timeout_s=6, k=5, metrics_port=0)
    with staged(settings, tmp_path) as one:
        yield one
