"""A snapshot gives back exactly what was stored, or is discarded with a message; never less, never other."""

import logging
from pathlib import Path

import numpy as np
import pytest

from models.errors import EddyError
from stream.rows import Rows
from stream.snapshots import Snapshot, blocks, read_snapshot, snapshot_path, write_snapshot
from tests.engines import TOPIC_ID, Happening, batch, new_engine, random_version, stored_rows

DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    engine = new_engine(random_version(tmp_path_factory.mktemp("registry")))
    rng = np.random.default_rng(0)
    stream = [
        Happening(f"üser-{rng.integers(30)}", f"item-{rng.integers(90)}", int(t), event_id=f"e{t}")
        for t in np.sort(rng.integers(1, 10**12, 2_000))
    ]
    engine.apply([batch(stream, range(len(stream)))])
    return stored_rows(engine)


def test_what_was_written_is_read(rows: Rows, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_snapshot(path, Snapshot(77, rows))
    read = read_snapshot(path, TOPIC_ID, DAY_MS)
    assert read is not None
    assert read.position == 77
    assert (rows.anchor_time >= 0).any(), "some rows have an anchor"
    for name, column in vars(rows).items():
        found = getattr(read.rows, name)
        if isinstance(column, np.ndarray):
            np.testing.assert_array_equal(found, column, err_msg=name)
        else:
            assert found == column, name


def test_blocks_are_the_rows_in_order(rows: Rows) -> None:
    assert [user for part in blocks(rows) for user in part.user] == list(rows.user)


@pytest.mark.parametrize("position", [10, 200, -9, -2000])
def test_a_torn_or_changed_file_is_discarded(
    rows: Rows, tmp_path: Path, position: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.safetensors"
    write_snapshot(path, Snapshot(1, rows))
    data = bytearray(path.read_bytes())
    data[position] ^= 0x40
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        assert read_snapshot(path, TOPIC_ID, DAY_MS) is None
    assert "restoring from the changelog" in caplog.text
    assert not path.exists()


def test_a_cut_file_is_discarded(rows: Rows, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_snapshot(path, Snapshot(1, rows))
    path.write_bytes(path.read_bytes()[:-100])
    assert read_snapshot(path, TOPIC_ID, DAY_MS) is None


def test_one_of_another_topic_is_discarded(
    rows: Rows, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.safetensors"
    write_snapshot(path, Snapshot(1, rows))
    with caplog.at_level(logging.WARNING):
        assert read_snapshot(path, bytes(16), DAY_MS) is None
    assert "of another topic" in caplog.text


def test_one_older_than_tombstones_are_kept_is_discarded(
    rows: Rows, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.safetensors"
    write_snapshot(path, Snapshot(1, rows))
    with caplog.at_level(logging.WARNING):
        assert read_snapshot(path, TOPIC_ID, max_age_ms=-1) is None
    assert "tombstones may be forgotten" in caplog.text


def test_no_snapshot_is_no_error(tmp_path: Path) -> None:
    assert read_snapshot(tmp_path / "none", TOPIC_ID, DAY_MS) is None


def test_a_folder_that_cannot_be_written_is_one_clear_error(rows: Rows, tmp_path: Path) -> None:
    (tmp_path / "snapshots").write_text("a file where a folder should be")
    path = snapshot_path(tmp_path, "group", TOPIC_ID, 3)
    with pytest.raises(EddyError, match="cannot be written"):
        write_snapshot(path, Snapshot(1, rows))
