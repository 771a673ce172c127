"""A full disk is one clear line from every part that writes, and nothing is lost once there is room again."""

from __future__ import annotations

from pathlib import Path

import pytest

from eddy.models import registry
from eddy.models.errors import EddyError
from eddy.models.rules import EVERY_EVENT
from eddy.models.training.train import train
from eddy.stream.state.snapshots import Snapshot, open_snapshot, write_snapshot
from tests.support.engines import TOPIC_ID, Happening, batch, new_engine, random_version, stored_rows
from tests.support.event_logs import DAY_MS, MARCH_1_2013, Written, append, event, opened, places
from tests.support.no_room import no_room
from tests.support.training import FAST, SMALL, random_log, same
from tests.unit.models.test_registry import trained

FULL = "cannot be written|cannot write"


def test_a_snapshot_that_does_not_fit_leaves_the_one_before(tmp_path: Path) -> None:
    engine = new_engine(random_version(tmp_path / "registry"))
    engine.apply([batch([Happening(f"user-{i}", "item-1", i) for i in range(200)], range(200))])
    rows, path = stored_rows(engine), tmp_path / "snapshots" / "a.snapshot"
    write_snapshot(path, Snapshot(7, TOPIC_ID, [rows]))
    with no_room(50_000), pytest.raises(EddyError, match=FULL):
        write_snapshot(path, Snapshot(8, TOPIC_ID, [rows]))
    assert list(path.parent.iterdir()) == [path]
    with open_snapshot(path, TOPIC_ID, 60_000) as snapshot:
        assert (snapshot.position, snapshot.rows) == (7, 200)
        assert len(list(snapshot.blocks())) == 1


@pytest.mark.parametrize("file_bytes", [0, 100, 4_000])
def test_a_version_that_does_not_fit_is_not_in_the_registry(tmp_path: Path, file_bytes: int) -> None:
    with no_room(file_bytes), pytest.raises(EddyError, match=FULL):
        registry.publish(tmp_path, trained(), {})
    assert [path.name for path in tmp_path.iterdir()] in ([], [".lock"])
    assert registry.publish(tmp_path, trained(), {}).id.startswith("v000001-")


@pytest.mark.parametrize("file_bytes", [0, 30, 1_000])
def test_events_that_do_not_fit_are_exported_once_there_is_room(tmp_path: Path, file_bytes: int) -> None:
    append(tmp_path, [event(0)])
    with no_room(file_bytes), pytest.raises(EddyError, match=FULL):
        append(tmp_path, [event(1), event(2, timestamp=MARCH_1_2013 + DAY_MS)])
    assert places(tmp_path) in ([(0, 0)], [(0, 0), (0, 1)], [(0, 0), (0, 1), (0, 2)])
    append(tmp_path, [event(1), event(2, timestamp=MARCH_1_2013 + DAY_MS)])
    assert places(tmp_path) == [(0, 0), (0, 1), (0, 2)]


def test_an_erasure_that_does_not_fit_is_done_once_there_is_room(tmp_path: Path) -> None:
    append(tmp_path, [event(0), event(1), Written(2, None)])
    with no_room(100), pytest.raises(EddyError, match=FULL), opened(tmp_path) as log:
        log.forget()
    with opened(tmp_path) as log:
        assert log.forget() == 2
    assert places(tmp_path) == []


def test_a_training_whose_checkpoint_does_not_fit_goes_on_from_the_last_that_did(tmp_path: Path) -> None:
    file = tmp_path / "training.pt"
    with no_room(1_000), pytest.raises(EddyError, match=FULL):
        train(random_log(), SMALL, FAST, EVERY_EVENT, checkpoint=file)
    assert list(tmp_path.iterdir()) == []
    resumed = train(random_log(), SMALL, FAST, EVERY_EVENT, checkpoint=file)
    assert same(resumed, train(random_log(), SMALL, FAST, EVERY_EVENT))
