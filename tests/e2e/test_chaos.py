"""The short form of `make chaos`: workers killed at each step of the checkpoint, and at random
moments; users erased while partitions move and while the live version changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.plan import SHORT
from tests.chaos.run import run
from tests.support.kafka_clusters import MakeSettings


@pytest.mark.timeout(600)
def test_nothing_is_missing_nothing_doubled_and_nobody_erased_comes_back(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings(partitions=SHORT.partitions, session_timeout_s=6, k=5)
    story, *verdicts = run(SHORT, settings, tmp_path, broker=None)
    for verdict in verdicts:
        assert verdict.problems == []
        assert (verdict.missing, verdict.doubled) == (0, 0)
        assert verdict.erased > 0
        assert verdict.spared > 0
    assert story.kills == SHORT.random_kills + 4 * SHORT.step_kills + 2 * SHORT.swaps
    assert story.swaps == SHORT.swaps
    assert story.unexpected_exits == []
