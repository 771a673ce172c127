"""Files of processes that were killed: they neither block the next process nor pile up."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from filelock import FileLock

from eddy.models.training import resume
from eddy.stream.local_kafka import broker
from eddy.stream.local_kafka import jars as kafka_jars

pytestmark = pytest.mark.unit


def state(epoch: int) -> resume.TrainingState:
    weights = {"w": torch.full((3,), float(epoch))}
    return resume.TrainingState(epoch, weights, {}, 0, weights, 1.0, epoch, {}, [])


def test_a_checkpoint_is_written_over_what_a_killed_training_left(tmp_path: Path) -> None:
    resume.save_training_state(tmp_path / "run.pt", state(1), "run")
    (tmp_path / "run.pt.writing").write_bytes(b"half")
    resume.save_training_state(tmp_path / "run.pt", state(2), "run")
    assert [file.name for file in tmp_path.iterdir()] == ["run.pt"]
    stored = resume.load_training_state(tmp_path / "run.pt", "run")
    assert stored is not None
    assert stored.epoch == 2


def test_checkpoints_that_differ_in_their_suffix_only_are_written_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aside: list[str] = []
    replaced = Path.replace

    def noted(self: Path, target: Path) -> Path:
        aside.append(self.name)
        return replaced(self, target)

    monkeypatch.setattr(Path, "replace", noted)
    for name in ("run.1", "run.2"):
        resume.save_training_state(tmp_path / name, state(1), name)
    assert len(set(aside)) == 2


def test_folders_of_ended_brokers_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    unclaimed, ended, alive = (tmp_path / "brokers" / name for name in ("unclaimed", "ended", "alive"))
    for folder in (unclaimed, ended, alive):
        (folder / "data").mkdir(parents=True)
    (ended / "lock").touch()
    with FileLock(alive / "lock"):
        broker._remove_leftovers(tmp_path)
        assert list((tmp_path / "brokers").iterdir()) == [alive]


def test_a_process_that_waits_for_another_to_fetch_kafka_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = FileLock(tmp_path / f"kafka-{kafka_jars.KAFKA_VERSION}.lock", thread_local=False)
    lock.acquire()
    said = caplog.handler.emit

    def release_when_told(record: object) -> None:
        said(record)  # type: ignore[arg-type]
        lock.release()

    monkeypatch.setattr(caplog.handler, "emit", release_when_told)
    monkeypatch.setattr(kafka_jars, "_resolve", lambda folder, progress: [])
    assert kafka_jars.kafka_class_path(tmp_path) == []
    assert "waiting for another process to fetch Kafka" in caplog.text
