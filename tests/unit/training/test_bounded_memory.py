"""Training in bounded memory learns the same, bit for bit, and takes no more memory for a longer log."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eddy.models.config import ModelConfig, TrainConfig
from eddy.models.logs import column_store
from eddy.models.logs.column_store import IN_MEMORY, ColumnStore
from eddy.models.logs.events import Events
from eddy.models.network.recommender import Recommender
from eddy.models.rules import EVERY_EVENT, EventRules
from eddy.models.training.distributed import ALONE
from eddy.models.training.group_log import GroupLog
from eddy.models.training.objective import Objective
from eddy.models.training.popularity_prior import prior_of
from eddy.models.training.sequences import batches, sequences
from eddy.models.training.train import train, vocabulary_of
from eddy.models.training.trainer import Trainer
from tests.support.training import FAST, SMALL, log, random_log, same

pytestmark = pytest.mark.unit

SOME = EventRules(state="rating>=2", target="rating>=4", negative="rating<3")


def timeless() -> Events:
    drawn = random_log(n=300)
    return log(drawn.user, drawn.item, drawn.value, clock=False)


@pytest.mark.parametrize(
    ("events", "rules", "settings"),
    [
        (random_log(n=300), SOME, replace(FAST, epochs=1, unseen=True, sampled=10, gate_events=20)),
        (timeless(), EVERY_EVENT, replace(FAST, epochs=1, gate_events=20)),
    ],
)
def test_columns_in_files_that_are_read_in_small_slices_teach_the_same(
    events: Events, rules: EventRules, settings: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train(events, SMALL, settings, rules)
    in_files = replace(events, store=ColumnStore(0, tmp_path))
    trained = train(in_files, SMALL, settings, rules)
    assert same(trained, expected)
    assert trained.metrics["gates"] == expected.metrics["gates"]
    with monkeypatch.context() as patch:
        patch.setattr(column_store, "SLICE_ROWS", 64)
        data, of_slices = (
            sequences(each, vocabulary_of(each, SMALL, rules)[0], rules) for each in (events, in_files)
        )
    for name in ("start", "first", "following", "row", "moved", "target", "idle_ms"):
        assert getattr(data, name).tolist() == getattr(of_slices, name).tolist(), name
    for part, of_part in zip(data.inputs, of_slices.inputs, strict=True):
        assert part.tolist() == of_part.tolist()


def peak_bytes(events: Events) -> int:
    """Numpy's memory, at most, from the events to the first batches and the held-out loss's predictions."""
    config = ModelConfig.from_dict({**SMALL.to_dict(), "half_lives_ms": [3_600_000]})
    vocabulary, _ = vocabulary_of(events, config, EVERY_EVENT)
    tracemalloc.start()
    try:
        data = sequences(events, vocabulary, EVERY_EVENT)
        prior = prior_of(GroupLog(events, ALONE), vocabulary, config, EVERY_EVENT)
        recommender = Recommender(config, len(vocabulary), 1)
        trainer = Trainer(Objective(recommender, data, FAST, prior), lambda _: None)
        for wanted in (range(len(events) * 9 // 10), range(len(events) * 9 // 10, len(events))):
            assert trainer.count(wanted)
            next(batches(data, wanted, trainer.users, 8, 256))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column_store, "SLICE_ROWS", 1 << 12)

    def peak(events: int, store: ColumnStore) -> int:
        rng = np.random.default_rng(1)
        drawn = log(rng.integers(500, size=events), rng.integers(50, size=events))
        return peak_bytes(replace(drawn, store=store))

    short, long = (peak(events, ColumnStore(1 << 17, tmp_path)) for events in (20_000, 200_000))
    assert long < short + (1 << 20)
    assert peak(200_000, IN_MEMORY) > 5 * long
