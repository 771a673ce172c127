"""Streaming parity: the engine and the offline evaluator reach the same figures on the same events."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from eddy.models.config import (
    CELLS,
    MAX_HALF_LIFE_MS,
    MAX_HALF_LIVES,
    MAX_OLDER,
    MAX_STATE,
    MAX_SUCCESSORS,
    RECENT_WINDOW,
    ModelConfig,
    TrainConfig,
    configs,
)
from eddy.models.errors import EddyError
from eddy.models.evaluation.metrics import metrics
from eddy.models.evaluation.protocols import make_trial
from eddy.models.evaluation.ranks import recommender_ranks
from eddy.models.logs.events import Events
from eddy.models.registry import Version, publish
from eddy.models.rules import EventRules
from eddy.stream.engine.prequential import Prequential
from eddy.stream.kafka.versions import announce, open_version
from eddy.stream.records.schema import Announcement
from eddy.stream.records.settings import load_settings
from tests.support.engines import Happening, batch, new_engine
from tests.unit.evaluation.test_evaluate import SMALL, stream, untrained

CONFIG = replace(SMALL, recent_window=50, successors=64, transition_lags=10)


@pytest.fixture
def events() -> Events:
    return stream(events=600, users=8, items=60)


@pytest.fixture
def version(tmp_path: Path, events: Events) -> Version:
    """Random weights; the vocabulary is what the training part holds, as after training on it."""
    known = make_trial(events, "prequential").training_part
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
    engine.prequential.finish_ranks()
    (metrics,) = engine.prequential.metrics().values()
    return metrics


@pytest.mark.parametrize(("size", "within"), [(1, 1e-4), (16, 0.03)])
def test_the_engine_reaches_the_evaluators_figures(
    version: Version, events: Events, size: int, within: float
) -> None:
    """In batches, the engine scores as of the last event's time, the evaluator as of the first one's."""
    found = make_trial(events, "prequential", EventRules())
    ranks = recommender_ranks(found, version.recommender, version.vocabulary, EventRules(), size).all
    offline, online = metrics(ranks), streamed(version, events, found.train, size)
    assert online["events"] == len(ranks) == 120
    assert online["recall_at_20"] == pytest.approx(offline["recall@20"], abs=within)
    assert online["mrr_at_20"] == pytest.approx(offline["mrr@20"], abs=within)


AT_BOUNDS: dict[str, list[Any]] = {
    "cell": list(CELLS),
    "hidden": [1],
    "layers": [1, 3],
    "dim": [1],
    "dropout": [0.0],
    "item_buckets": [1],
    "time_gaps": [False],
    "half_lives_ms": [(), (1,), (MAX_HALF_LIFE_MS,) * MAX_HALF_LIVES],
    "recent_window": [RECENT_WINDOW],
    "older": [0, MAX_OLDER],
    "pointer": [False],
    "transition_lags": [0, RECENT_WINDOW // 2],
    "successors": [1, MAX_SUCCESSORS],
    "spectral_radius": [9.9],
    "leak": [1.0],
}
BEYOND: dict[str, list[Any]] = {
    "cell": ["cnn"],
    "hidden": [0, MAX_STATE + 1],
    "layers": [0, MAX_STATE],
    "dim": [0],
    "dropout": [-0.1, 1.0],
    "item_buckets": [0],
    "half_lives_ms": [[0], [True], [MAX_HALF_LIFE_MS + 1], [1] * (MAX_HALF_LIVES + 1)],
    "recent_window": [0, 20, RECENT_WINDOW - 1, RECENT_WINDOW + 1],
    "older": [-1, MAX_OLDER + 1],
    "transition_lags": [-1, RECENT_WINDOW // 2 + 1],
    "successors": [0, MAX_SUCCESSORS + 1],
    "spectral_radius": [0.0, 10.0],
    "leak": [0.0, 1.1],
}
NOT_CHOSEN = {"features"}
"""Training itself says how many there are."""


def pairs(settings: dict[str, list[Any]]) -> list[tuple[str, Any]]:
    return [(name, value) for name, values in settings.items() for value in values]


def test_the_bounds_of_every_setting_of_a_model_are_tried() -> None:
    names = {field.name for field in fields(ModelConfig)} - NOT_CHOSEN
    assert set(AT_BOUNDS) == names
    assert set(BEYOND) == names - {"time_gaps", "pointer"}  # which are true or false


@pytest.mark.parametrize(("name", "value"), pairs(AT_BOUNDS))
def test_what_training_accepts_is_served_as_it_was_evaluated(name: str, value: Any, tmp_path: Path) -> None:
    events = stream(events=200, users=3, items=30)  # more than a window each
    config = replace(CONFIG, **{"cell": "esn" if name in ("spectral_radius", "leak") else "gru", name: value})
    config.require_served()
    found = make_trial(events, "prequential", EventRules())
    known = replace(found.training_part, items=events.items[: found.training_part.item.max() + 1])
    version = publish(tmp_path, untrained(known, config), {})
    assert config.state_size == version.recommender.state_size
    ranks = recommender_ranks(found, version.recommender, version.vocabulary, EventRules(), 1).all
    online = streamed(version, events, found.train, 1)
    assert online["mrr_at_20"] == pytest.approx(metrics(ranks)["mrr@20"], abs=1e-4)


@pytest.mark.parametrize(("name", "value"), pairs(BEYOND))
def test_what_the_stream_cannot_serve_is_refused_before_training(name: str, value: Any) -> None:
    pair = f"{name}={value if isinstance(value, str) else json.dumps(value)}"
    with pytest.raises(EddyError, match=name if name != "layers" else "layers|state"):
        configs("gru", [pair])


def test_a_version_that_the_stream_cannot_serve_is_refused_by_name_wherever_it_is_loaded(
    tmp_path: Path, events: Events
) -> None:
    version = publish(tmp_path, untrained(events, SMALL), {})
    announcement = Announcement(1, version.id, str(version.path), 0)
    for use in (
        lambda: open_version(announcement, tmp_path),
        lambda: announce(load_settings(bootstrap_servers="localhost:1"), version),
    ):
        with pytest.raises(EddyError, match=f"{version.id} cannot be served: .*recent_window must be 50"):
            use()


def test_window_alone_names_no_setting_and_no_name_names_two() -> None:
    with pytest.raises(EddyError, match=r"bptt_steps .* recent_window"):
        configs("gru", ["window=20"])
    names = [field.name for config in (ModelConfig, TrainConfig) for field in fields(config)]
    assert len(names) == len(set(names))
