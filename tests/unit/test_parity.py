"""Streaming parity: the engine and the offline evaluator reach the same figures on the same events."""

from dataclasses import replace
from pathlib import Path

import pytest

from models.events import Events
from models.metrics import metrics
from models.protocols import trial
from models.ranking import recommender_ranks
from models.registry import Version, publish
from models.rules import EventRules
from stream.prequential import Prequential
from tests.engines import Happening, batch, new_engine
from tests.unit.test_evaluate import SMALL, stream, untrained

CONFIG = replace(SMALL, window=50, successors=64, transition_lags=10)


@pytest.fixture
def events() -> Events:
    return stream(events=600, users=8, items=60)


@pytest.fixture
def version(tmp_path: Path, events: Events) -> Version:
    """Random weights; the vocabulary is what the training part holds, as after training on it."""
    known = trial(events, "prequential").training_part
    return publish(
        tmp_path, untrained(replace(known, items=events.items[: known.item.max() + 1]), CONFIG), {}
    )


def streamed(version: Version, events: Events, first: int, size: int) -> dict[str, float]:
    """Metrics of the engine on rows from `first` on, in micro-batches."""
    engine = new_engine(version, sample=1.0)
    columns = zip(events.user, events.item, events.timestamp, strict=True)
    happenings = [Happening(events.users[u], events.items[i], int(time)) for u, i, time in columns]

    def apply(begin: int, end: int) -> None:
        engine.apply([batch(happenings[begin:end], range(begin, end))])

    apply(0, first)
    engine.prequential = Prequential()
    for begin in range(first, len(happenings), size):
        apply(begin, min(begin + size, len(happenings)))
    engine.prequential.finish()
    return engine.prequential.metrics()


@pytest.mark.parametrize(("size", "within"), [(1, 1e-4), (16, 0.03)])
def test_the_engine_reaches_the_evaluators_figures(
    version: Version, events: Events, size: int, within: float
) -> None:
    """In batches, the engine scores as of the last event's time, the evaluator as of the first one's."""
    found = trial(events, "prequential", EventRules())
    ranks = recommender_ranks(found, version.recommender, version.vocabulary, EventRules(), size).all
    offline, online = metrics(ranks), streamed(version, events, found.train, size)
    assert online["events"] == len(ranks) == 120
    assert online["recall_at_20"] == pytest.approx(offline["recall@20"], abs=within)
    assert online["mrr_at_20"] == pytest.approx(offline["mrr@20"], abs=within)
