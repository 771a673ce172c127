"""The engine and the trainer elsewhere than on the CPU: the same rows, lists and weights.

Where there is no GPU, only the CPU takes the way that any device takes; nothing is moved then.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from eddy.models.config import CELLS, ModelConfig, TrainConfig
from eddy.models.registry import load
from eddy.models.rules import EVERY_EVENT
from eddy.models.scoring.approximate_products import Precision
from eddy.models.training.train import train
from eddy.stream.engine.engine import Engine
from eddy.stream.engine.live_version import LiveVersion
from eddy.stream.state.rows import decode_rows, encode_rows
from tests.support.engines import (
    Happening,
    assert_same_rows,
    batch,
    item_id,
    new_engine,
    random_version,
    reencode_all,
    stored_rows,
)  # fmt: skip
from tests.support.training import FAST, random_log

pytestmark = pytest.mark.unit

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
anywhere = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])

START = 1_380_000_000_000
ITEMS = 3_000

NewEngine = Callable[[str], Engine]


@pytest.fixture(params=CELLS)
def engine_on(request: pytest.FixtureRequest, tmp_path: Path) -> NewEngine:
    """A version of each cell with all parts of the score, on any device."""
    version = random_version(tmp_path, request.param, items=ITEMS)
    return lambda device: new_engine(load(tmp_path / version.id), device=device, emit="every", sample=0.5)


def as_on_any_device(engine: Engine) -> Engine:
    """Without the loops that are compiled for the CPU."""
    engine.newest.ranker.scorer.compiled = False
    return engine


def happenings(n: int, seed: int) -> list[Happening]:
    """Some late, some sent twice, some negative, from users of whom a few come often."""
    rng = np.random.default_rng(seed)
    user, item = rng.zipf(1.3, n) % 40, rng.zipf(1.2, n) % ITEMS
    late = np.where(rng.random(n) < 0.1, rng.integers(60_000, size=n), 0)
    value = rng.integers(1, 11, n)
    return [
        Happening(
            f"u-{user[i]}", item_id(int(item[i])), START + i * 1_000 - int(late[i]), "rating",
            float(value[i]), f"e-{int(rng.integers(n * 20))}",
        )
        for i in range(n)
    ]  # fmt: skip


def run(engine: Engine, batches: int = 6, size: int = 150) -> list[np.ndarray]:
    """Apply them; the scores of every list."""
    scores = []
    for number in range(batches):
        sent = batch(happenings(size, number), range(number * size, (number + 1) * size))
        outcome = engine.apply([sent])
        (lists,) = outcome.lists
        scores.append(lists.topk().score.numpy())
        engine.prequential.finish_ranks()
    return scores


@anywhere
def test_rows_lists_and_ranks_are_those_of_the_cpu(engine_on: NewEngine, device: str) -> None:
    expected, found = engine_on("cpu"), as_on_any_device(engine_on(device))
    for wanted, scores in zip(run(expected), run(found), strict=True):
        np.testing.assert_allclose(scores, wanted, rtol=1e-3, atol=1e-3)
    assert_same_rows(stored_rows(found), stored_rows(expected))
    assert found.prequential.metrics() == pytest.approx(expected.prequential.metrics(), abs=1e-3)


@anywhere
def test_stored_rows_and_a_new_version_are_taken(engine_on: NewEngine, device: str, tmp_path: Path) -> None:
    before, after = as_on_any_device(engine_on(device)), engine_on(device)
    run(before)
    rows = stored_rows(before)
    for group in decode_rows(rows.user, encode_rows(rows)):
        after.load_rows(group)
    assert_same_rows(stored_rows(after), rows, but=("older",))
    wider = random_version(tmp_path / "wider", hidden=24, items=ITEMS, seed=1)
    live = LiveVersion(wider, 2, after.names.catalogue, torch.device(device))
    builder = after.builder(live)
    after.switch_version(builder(), builder)
    assert sum(len(slots) for _, slots in reencode_all(after)) == len(rows.user)
    exported = stored_rows(after)
    assert np.isfinite(exported.hidden).all()
    assert exported.hidden.shape[1] == 24


@anywhere
@pytest.mark.parametrize("precision", ["bfloat16", "auto"])
def test_a_first_pass_in_reduced_precision_finds_the_same_lists(
    tmp_path: Path, device: str, precision: Precision
) -> None:
    version = random_version(tmp_path, items=ITEMS)
    exact = new_engine(version, emit="every")
    found = as_on_any_device(
        new_engine(load(tmp_path / version.id), device=device, emit="every", precision=precision)
    )
    for number in range(3):
        sent = [batch(happenings(150, number), range(number * 150, (number + 1) * 150))]
        (wanted,), (lists,) = exact.apply(sent).lists, found.apply(sent).lists
        pairs = zip(wanted.topk().item, lists.topk().item, strict=True)
        share = [len(np.intersect1d(one, other)) / len(one) for one, other in pairs]
        assert np.mean(share) >= 0.99


@needs_gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("cell", CELLS)
def test_training_reaches_the_loss_of_the_cpu(cell: str, precision: str) -> None:
    model = ModelConfig(cell=cell, hidden=16, dim=16, dropout=0.0, item_buckets=4, recent_window=10)
    settings = TrainConfig(**{**vars(FAST), "device": "cuda", "precision": precision, "sampled": 0})
    expected = TrainConfig(**{**vars(settings), "device": "cpu", "precision": "float32"})
    events = random_log(n=2_000)
    losses = [
        train(events, model, chosen, EVERY_EVENT).metrics["curve"][-1]["validation_loss"]
        for chosen in (settings, expected)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3 if precision == "float32" else 2e-2)
