"""What cannot be taken back from a user holds nothing that names them: versions, training checkpoints, item
statistics, counts of ranks.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from eddy.models.config import ModelConfig, TrainConfig
from eddy.models.logs.events import Events
from eddy.models.registry import publish
from eddy.models.rules import EventRules
from eddy.models.training.train import train
from eddy.stream.records.rank_counts import encode_ranks
from eddy.stream.state.item_statistics import Journal
from tests.support.engines import Happening, batch, item_id, new_engine, random_version

USER = "somebody-who-may-want-to-be-forgotten"


def log() -> Events:
    n = 60
    return Events(
        user=(np.arange(n) % 4).astype(np.int32),
        item=(np.arange(n) % 7).astype(np.int32),
        timestamp=np.arange(n) * 60_000 + 1_370_000_000_000,
        type=np.zeros(n, np.int16),
        value=np.full(n, np.nan, np.float32),
        users=[f"{USER}-{number}" for number in range(4)],
        items=[item_id(number) for number in range(7)],
        types=["view"],
        event_id=[f"event-of-{USER}-{number}" for number in range(n)],
    )


def test_neither_a_version_nor_a_training_checkpoint_names_a_user(tmp_path: Path) -> None:
    settings = TrainConfig(epochs=1, batch=4, gate_epochs=1, threads=1)
    model = ModelConfig(hidden=8, dim=8, item_buckets=4)
    checkpoint, kept = tmp_path / "run.pt", list[bytes]()

    def keep(*_: object) -> None:  # it goes when the training ends well
        if checkpoint.exists():
            kept.append(checkpoint.read_bytes())

    trained = train(log(), model, replace(settings, epochs=2), EventRules(), keep, checkpoint)
    version = publish(tmp_path / "registry", trained, {})
    files = [path.read_bytes() for path in version.path.rglob("*") if path.is_file()]
    assert any(item_id(0).encode() in file for file in files), "the search finds what is there"
    assert kept, "a checkpoint was looked at"
    assert not any(USER.encode() in file for file in [*files, *kept])


def test_item_statistics_name_no_user(tmp_path: Path) -> None:
    engine = new_engine(random_version(tmp_path))
    engine.statistics_buffer.begin_partition(0, -1)
    engine.apply([batch([Happening(USER, item_id(n), 1_370_000_000_000 + n) for n in range(9)], range(9))])
    journal = Journal(0, -1, -1)
    for since_base in (0, 10**6):  # a record of the journal, and a base
        journal.since_base = since_base
        for counted in engine.statistics_buffer.drain_counted(0):
            journal.note_counted(counted)
        messages = journal.drain_records(engine.statistics, engine.names.catalogue)()
        assert messages
        assert not any(USER.encode() in (key or b"") + (value or b"") for key, value in messages)
        engine.apply([batch([Happening(USER, item_id(1), 1_370_000_001_000)], [9])])


def test_counts_of_ranks_name_no_user(tmp_path: Path) -> None:
    engine = new_engine(random_version(tmp_path), sample=1.0)
    engine.apply([batch([Happening(USER, item_id(n), 1_370_000_000_000 + n) for n in range(9)], range(9))])
    engine.prequential.finish_ranks()
    taken = engine.prequential.take(1)
    assert sum(sums[0].sum() for sums in taken.values()) == 9
    assert not any(USER.encode() in (part or b"") for part in encode_ranks("0" * 32, 1, taken))
