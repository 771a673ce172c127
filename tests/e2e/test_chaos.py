"""The short form of `make chaos`: workers killed at each step of the checkpoint, and at a random moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.run import SHORT, run
from tests.kafka_clusters import MakeSettings


@pytest.mark.timeout(420)
def test_nothing_is_missing_and_nothing_doubled_after_kills_at_every_step(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings(partitions=SHORT.partitions, session_timeout_s=6, k=5)
    story, verdict = run(SHORT, settings, tmp_path, broker=None)
    assert verdict.problems == []
    assert (verdict.missing, verdict.doubled) == (0, 0)
    assert story.kills == SHORT.random_kills + 4 * SHORT.step_kills
    assert story.unexpected_exits == []
