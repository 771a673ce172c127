"""From a file to a version: bad input is one line and no version, odd input gives finite weights."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from eddy.models.config import ModelConfig, TrainConfig
from eddy.models.errors import EddyError
from eddy.models.hashing import item_hashes
from eddy.models.logs.events import read_events
from eddy.models.registry import Version, publish, versions
from eddy.models.rules import EventRules
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.scoring.scorer import Scorer
from eddy.models.tensors import Inputs, Window
from eddy.models.training.train import train
from eddy.models.vocabulary import Catalogue

pytestmark = pytest.mark.unit

MODEL = ModelConfig(hidden=8, dim=8, item_buckets=4, recent_window=10, transition_lags=3)
SETTINGS = TrainConfig(epochs=2, batch=4, bptt_steps=8, gate_epochs=1, threads=1)
NAN = float("nan")


def write(folder: Path, **changed: object) -> Path:
    """60 ratings of 7 items by 6 users, with some columns changed."""
    columns: dict[str, object] = {
        "user_id": [f"u{n % 6}" for n in range(60)],
        "item_id": [f"i{n * n % 7}" for n in range(60)],
        "timestamp": [1_370_000_000.0 + 60 * n for n in range(60)],
        "rating": [float(1 + n % 10) for n in range(60)],
    }
    file = folder / "events.parquet"
    pq.write_table(pa.table(columns | changed), file)
    return file


def published(file: Path) -> Version:
    registry = file.parent / "registry"
    return publish(registry, train(read_events(file), MODEL, SETTINGS, EventRules()), {})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"item_id": ["i0"] * 60}, "a ranking needs at least two"),
        ({"timestamp": [1_370_000_000.0] * 59 + [NAN]}, "row 60: timestamp is empty"),
        ({"rating": [1.0] * 59 + [float("inf")]}, "row 60: rating is not a finite number"),
        ({"rating": ["good"] * 60}, "row 1: rating is 'good', which is no number"),
        ({"user_id": [None] * 60}, "row 1: user_id is empty"),
    ],
)
def test_no_version_comes_of_bad_values(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    refused(write(tmp_path, **changed), message)


def test_no_version_comes_of_an_empty_log(tmp_path: Path) -> None:
    file = write(tmp_path)
    pq.write_table(pq.read_table(file).slice(0, 0), file)
    refused(file, "no events in it")


def test_no_version_comes_of_a_truncated_file(tmp_path: Path) -> None:
    file = write(tmp_path)
    file.write_bytes(file.read_bytes()[:-100])
    refused(file, "cannot be read")


def refused(file: Path, message: str) -> None:
    with pytest.raises(EddyError, match=message) as caught:
        published(file)
    assert "\n" not in str(caught.value)
    assert versions(file.parent / "registry") == []


@pytest.mark.parametrize(
    "changed",
    [
        {"user_id": ["u"] * 60},
        {"user_id": [f"u{n}" for n in range(60)]},
        {"rating": [NAN if n % 2 else None for n in range(60)]},  # no rating is no negative event
        {"item_id": ["i0", "i1"] * 30},
        {"item_id": [f"i{n}" for n in range(60)]},  # what is held out was never trained on
        {"timestamp": [0.0] * 60},
    ],
    ids=[
        "one user",
        "one event per user",
        "no rating is a number",
        "two items",
        "no item twice",
        "one moment",
    ],
)
def test_a_version_of_odd_input_has_finite_weights(tmp_path: Path, changed: dict[str, object]) -> None:
    version = published(write(tmp_path, **changed))
    assert all(torch.isfinite(weight).all() for weight in version.recommender.state_dict().values())


def test_items_that_the_version_never_saw_move_states_and_are_scored(tmp_path: Path) -> None:
    """As one unknown item: by the bucket of their hash in the cell, by one shared vector in the score."""
    version = published(write(tmp_path))
    recommender = version.recommender
    hashes = item_hashes(["never", "ever"])
    index = torch.from_numpy(version.vocabulary.input_index(hashes))
    assert (index >= len(version.vocabulary)).all()
    nothing = torch.zeros(2, dtype=torch.int64)
    event = Inputs(index, nothing, torch.tensor([False, True]), torch.tensor([-1, 60_000]))
    state = recommender.step(event, recommender.initial(2))
    assert state.abs().sum() > 0
    catalogue = Catalogue(item_hashes([*version.vocabulary.items, "never", "ever"]))
    config = recommender.config
    scorer = Scorer(
        recommender, version.vocabulary, catalogue, Statistics(config.half_lives_ms, config.successors)
    )
    scorer.update_statistics(1.37e12)
    none = torch.full((2, config.recent_window), -1)
    window = Window(none, none.clamp(min=0), none.clamp(min=0), none > 0, nothing, none[:, :0])
    scores = scorer.scores(recommender.query(state, torch.tensor([0, 60_000])), window)
    assert torch.isfinite(scores).all()
    assert torch.equal(scores[:, -1], scores[:, -2])
