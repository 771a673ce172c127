"""Two versions side by side, on events that neither was trained on."""

from dataclasses import replace
from pathlib import Path

import pytest

from eddy.cli.models_compare import table
from eddy.models.descriptions import UNTIL
from eddy.models.registry import Version, publish
from eddy.models.rules import EVERY_EVENT
from eddy.models.training.train import train
from eddy.refresh.compare import compare_versions
from eddy.refresh.windows import NotYet
from tests.support.training import FAST, SMALL
from tests.support.walks import walks

pytestmark = pytest.mark.unit

EVENTS = walks(30, 40)


def version_until(registry: Path, row: int, seed: int = 1) -> Version:
    trained = train(EVENTS.take(slice(0, 300)), SMALL, replace(FAST, seed=seed), EVERY_EVENT)
    until = {UNTIL: int(EVENTS.timestamp[row])}
    return publish(registry, replace(trained, metrics=until), {})


def test_they_are_compared_on_what_both_have_not_seen(tmp_path: Path) -> None:
    first, second = version_until(tmp_path, 400), version_until(tmp_path, 899, seed=2)
    judgement = compare_versions(EVENTS, first, second, EVERY_EVENT)
    assert judgement.targets == 300
    assert judgement.since_ms == EVENTS.timestamp[900]
    other_way = compare_versions(EVENTS, second, first, EVERY_EVENT)
    assert other_way.gains["live"].mean == pytest.approx(-judgement.gains["live"].mean)
    # The table names both, what they are beside, and the difference.
    lines = table(judgement, first.id, second.id).splitlines()
    assert lines[0].startswith("300 events of 30 users")
    assert [line.split()[0] for line in lines[2:]] == [first.id, second.id, "decayed", "mrr@20"]
    assert f"{judgement.metrics['candidate']['mrr@20']:.4f}" in lines[3]


def test_too_few_events_that_both_have_not_seen_are_no_comparison(tmp_path: Path) -> None:
    first, second = version_until(tmp_path, 400), version_until(tmp_path, 1100)
    with pytest.raises(NotYet, match="99 events since"):
        compare_versions(EVENTS, first, second, EVERY_EVENT)
