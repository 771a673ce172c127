"""All versions at one look: from the registry, the newest announcement, and live ranks."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from eddy.models.decisions import Decision, record_decision
from eddy.models.storage import located
from eddy.serving.live.installation import Situation
from eddy.serving.live.ranks import Ranks
from eddy.serving.versions.answers import Versions
from eddy.serving.versions.overview import overview
from eddy.serving.versions.registry import RegistryReader
from eddy.serving.view import VersionAt
from eddy.stream.records.rank_counts import SUMS, RankedBy, Told
from eddy.stream.records.schema import GROUPS, Share
from tests.support.engines import random_version


def situation(epoch: int, shares: dict[str, int]) -> Situation:
    announced = {
        VersionAt.of(name, epoch): Share(name, "folder", percent) for name, percent in shares.items()
    }
    return Situation(announced, frozenset(announced), [], [])


def ranked(ranks: Ranks, version: str, epoch: int, hits: float) -> None:
    """A hundred events in each group, of which this share was ranked first."""
    sums = np.zeros((len(SUMS), GROUPS))
    noise = np.linspace(0.9, 1.1, GROUPS)
    sums[0], sums[1], sums[2] = 100, 100 * hits * noise, 100 * hits * noise
    ranks.take(Told(version, epoch, {RankedBy(epoch, version): sums}), 0)


def seen(registry: Path, situation: Situation, ranks: Ranks, loaded: set[str]) -> Versions:
    contents = asyncio.run(RegistryReader(located(registry)).contents())
    return overview(contents, situation, ranks, loaded, {})


def test_versions_are_told_with_their_shares_and_how_they_do(tmp_path: Path) -> None:
    first, second = (random_version(tmp_path, seed=seed) for seed in (1, 2))
    ranks = Ranks()
    ranked(ranks, first.id, 4, 0.2)
    ranked(ranks, second.id, 4, 0.4)
    record_decision(tmp_path, Decision("refused", second.id, first.id, None, "Too bad.", {
        "judgement": {"metric": "mrr@20", "gains": {"live": {"mean": -0.1, "low": -0.2, "high": 0.0}}},
    }, "refresh"))  # fmt: skip
    told = seen(tmp_path, situation(4, {first.id: 90, second.id: 10}), ranks, {first.id})
    assert (told.epoch, told.shares) == (4, {first.id: 0.9, second.id: 0.1})
    newer, older = told.versions
    assert (newer.id, newer.loaded, newer.share, newer.cell, newer.hidden) == (
        second.id,
        False,
        0.1,
        "gru",
        16,
    )
    assert (older.id, older.loaded, older.difference_to_first) == (first.id, True, None)
    assert newer.live is not None
    assert newer.live.recall_at_20 == pytest.approx(0.4)
    assert newer.difference_to_first is not None
    low, high = newer.difference_to_first.interval
    assert newer.difference_to_first.mean == pytest.approx(0.2)
    assert low < 0.2 < high
    assert newer.decision is not None
    assert (newer.decision.live, newer.decision.difference, newer.decision.interval) == (
        False,
        -0.1,
        (-0.2, 0.0),
    )


def test_what_cannot_be_read_has_a_reason_and_hides_nothing_else(tmp_path: Path) -> None:
    good, damaged = (random_version(tmp_path, seed=seed) for seed in (1, 2))
    (tmp_path / damaged.id / "version.json").write_text('{"format": "\ud7ff"')
    record_decision(tmp_path, Decision("refused", good.id, "", None, "Too bad.", {}, "refresh"))
    (tmp_path / "decisions" / "000002.json").write_text("{")
    told = seen(tmp_path, situation(1, {"v000009-00000000": 100}), Ranks(), set())
    by_id = {version.id: version for version in told.versions}
    assert by_id.keys() == {good.id, damaged.id, "v000009-00000000"}
    decision = by_id[good.id].decision
    assert decision is not None
    assert (by_id[good.id].problem, decision.reason) == (None, "Too bad.")
    (problem,) = told.problems
    assert "000002.json: not a decision" in problem
    assert "unreadable" in (by_id[damaged.id].problem or "")
    assert (by_id["v000009-00000000"].share, by_id["v000009-00000000"].cell) == (1.0, None)


def test_the_registry_is_read_again_after_a_while_and_at_once_after_a_change(tmp_path: Path) -> None:
    now = [0.0]
    reader = RegistryReader(located(tmp_path), lambda: now[0])

    def ids() -> list[str]:
        return list(asyncio.run(reader.contents()).described)

    first = random_version(tmp_path, seed=1)
    assert ids() == [first.id]
    second = random_version(tmp_path, seed=2)
    assert ids() == [first.id]
    now[0] += 60.0
    assert ids() == [first.id, second.id]
    third = random_version(tmp_path, seed=3)
    reader.forget()
    assert ids() == [first.id, second.id, third.id]
