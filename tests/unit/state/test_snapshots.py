"""A snapshot gives back exactly what was stored, or is discarded with a message; never less, never other."""

import logging
import os
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from eddy.models.errors import EddyError
from eddy.models.hashing import type_hash
from eddy.stream.state import snapshots
from eddy.stream.state.rows import Rows
from eddy.stream.state.snapshots import (
    Snapshot,
    Unusable,
    discard_snapshot,
    discard_those_of_another_changelog,
    open_snapshot,
    snapshot_path,
    sweep_snapshots,
    write_snapshot,
)
from tests.support.engines import TOPIC_ID, Happening, batch, new_engine, random_version, stored_rows

DAY_MS = 86_400_000
TYPES = ["view", "rating", *(f"page_{i}" for i in range(5))]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    engine = new_engine(random_version(tmp_path_factory.mktemp("registry")))
    rng = np.random.default_rng(0)
    stream = [
        Happening(
            f"üser-{rng.integers(30)}", f"item-{rng.integers(90)}", int(t), TYPES[t % 7], event_id=f"e{t}"
        )
        for t in np.sort(rng.integers(1, 10**12, 2_000))
    ]
    engine.apply([batch(stream, range(len(stream)))])
    return stored_rows(engine)


def in_blocks(rows: Rows, size: int = 7) -> Iterator[Rows]:
    columns = [field.name for field in fields(Rows) if field.name != "topic_id"]
    for start in range(0, len(rows.user), size):
        part = slice(start, start + size)
        yield replace(rows, **{name: getattr(rows, name)[part] for name in columns})


def write(path: Path, rows: Rows, position: int = 1) -> Path:
    write_snapshot(path, Snapshot(position, TOPIC_ID, in_blocks(rows)))
    return path


def read(path: Path, topic_id: bytes = TOPIC_ID, max_age_ms: int = DAY_MS) -> tuple[int, list[Rows]]:
    with open_snapshot(path, topic_id, max_age_ms) as snapshot:
        return snapshot.position, [rows for rows, _ in snapshot.blocks()]


@pytest.mark.parametrize("absent", [(), ("event_id", "anchor"), ("item", "type", "hidden")])
def test_what_was_written_is_read(rows: Rows, tmp_path: Path, absent: tuple[str, ...]) -> None:
    rows = replace(rows, **{name: np.zeros_like(getattr(rows, name)) for name in absent})
    position, parts = read(write(tmp_path / "a", rows, position=77))
    assert position == 77
    assert (rows.anchor_time >= 0).any(), "some rows have an anchor"
    for found, expected in zip(parts, in_blocks(rows), strict=True):
        for name, column in vars(expected).items():
            if isinstance(column, np.ndarray):
                np.testing.assert_array_equal(getattr(found, name), column, err_msg=name)
            else:
                assert getattr(found, name) == column, name


def test_items_and_types_are_named_by_their_place_among_the_hashes(rows: Rows, tmp_path: Path) -> None:
    with open_snapshot(write(tmp_path / "a", rows), TOPIC_ID, DAY_MS) as snapshot:
        assert len(set(snapshot.items.tolist())) == len(snapshot.items)
        assert snapshot.items[0] == 0, "place 0 is no item"
        assert snapshot.rows == len(rows.user)
        for part, place in snapshot.blocks():
            np.testing.assert_array_equal(snapshot.items[place.item], part.item)
            np.testing.assert_array_equal(snapshot.items[place.older], part.older)
            np.testing.assert_array_equal(snapshot.types[place.type], part.type)
        assert sorted(snapshot.types.tolist()) == sorted([0, *(type_hash(name) for name in TYPES)])


def test_a_partition_without_rows_has_a_snapshot_too(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "a", Snapshot(5, TOPIC_ID, []))
    assert read(tmp_path / "a") == (5, [])


def test_any_changed_byte_is_noticed(rows: Rows, tmp_path: Path) -> None:
    data = write(tmp_path / "a", rows).read_bytes()
    torn = tmp_path / "torn"
    places = np.random.default_rng(0).integers(0, len(data) - 2_000, 200).tolist()
    for position in [*places, *range(len(data) - 2_000, len(data), 7), len(data) - 1]:
        torn.write_bytes(data[:position] + bytes([data[position] ^ 0x01]) + data[position + 1 :])
        with pytest.raises(Unusable, match=r"checksum|its end is missing"):
            read(torn)


def test_a_cut_file_is_noticed_wherever_it_ends(rows: Rows, tmp_path: Path) -> None:
    data = write(tmp_path / "a", rows).read_bytes()
    torn = tmp_path / "torn"
    for size in [0, 1, 15, 16, 17, 1_000, len(data) // 2, len(data) - 100, len(data) - 1]:
        torn.write_bytes(data[:size])
        with pytest.raises(Unusable):
            read(torn)


def test_a_file_of_another_program_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"PK\3\4" * 1_000)
    with pytest.raises(Unusable):
        read(tmp_path / "a")


def test_one_of_a_former_format_is_refused_by_number(
    rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as former:
        former.setattr(snapshots, "FORMAT", 3)
        write(tmp_path / "a", rows)
    with pytest.raises(Unusable, match="format 3, this version reads 4"):
        read(tmp_path / "a")


def test_one_of_another_topic_is_refused(rows: Rows, tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="of another topic"):
        read(write(tmp_path / "a", rows), topic_id=bytes(16))


def test_one_older_than_tombstones_are_kept_is_refused(rows: Rows, tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="tombstones may be forgotten"):
        read(write(tmp_path / "a", rows), max_age_ms=-1)


def test_one_from_the_future_is_refused_since_nobody_knows_its_age(
    rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as wrong_clock:
        wrong_clock.setattr(time, "time_ns", lambda: int((time.time() + 30 * 86_400) * 1e9))
        write(tmp_path / "a", rows)
    with pytest.raises(Unusable, match="ahead of this machine's clock"):
        read(tmp_path / "a")


def test_no_snapshot_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none")


def test_a_folder_that_cannot_be_written_is_one_clear_error_and_what_was_there_stays(
    rows: Rows, tmp_path: Path
) -> None:
    (tmp_path / "snapshots").write_text("a file where a folder should be")
    with pytest.raises(EddyError, match="cannot be written"):
        write(snapshot_path(tmp_path, "group", TOPIC_ID, 3), rows)
    assert (tmp_path / "snapshots").read_text() == "a file where a folder should be"


def test_one_that_cannot_be_removed_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a").mkdir()
    with caplog.at_level(logging.WARNING):
        discard_snapshot(tmp_path / "a")
    assert "remove it by hand" in caplog.text


def test_what_is_too_old_or_of_a_wrong_clock_is_swept_away_half_written_files_included(
    rows: Rows, tmp_path: Path
) -> None:
    ages = {"old.snapshot": 100, "old.123.tmp": 100, "new.snapshot": 0, "future.snapshot": -30 * 86_400}
    folder = tmp_path / "snapshots" / "group"
    for name, age_s in ages.items():
        write(folder / name, rows)
        os.utime(folder / name, (time.time() - age_s, time.time() - age_s))
    sweep_snapshots(tmp_path, "group", max_age_ms=50_000)
    assert [path.name for path in folder.iterdir()] == ["new.snapshot"]


def test_those_that_were_written_beside_another_changelog_are_discarded(rows: Rows, tmp_path: Path) -> None:
    ours, other = (snapshot_path(tmp_path, "group", id_, 3) for id_ in (TOPIC_ID, bytes(16)))
    first, second = b"1" * 16, b"2" * 16

    def start(changelog_id: bytes) -> None:
        discard_those_of_another_changelog(tmp_path, "group", TOPIC_ID, changelog_id)

    start(first)
    write(ours, rows)
    write(other, rows)
    start(first)
    sweep_snapshots(tmp_path, "group", max_age_ms=50_000)
    start(first)
    assert ours.exists(), "it is this changelog's"
    start(second)
    assert not ours.exists()
    assert other.exists(), "of another installation with the same folder"


def test_those_beside_which_nothing_readable_names_their_changelog_are_discarded(
    rows: Rows, tmp_path: Path
) -> None:
    ours = snapshot_path(tmp_path, "group", TOPIC_ID, 3)
    write(ours, rows)
    (ours.parent / f"{TOPIC_ID.hex()}.changelog").write_bytes(b"\xff")
    discard_those_of_another_changelog(tmp_path, "group", TOPIC_ID, b"1" * 16)
    assert not ours.exists()


def test_one_of_another_changelog_that_cannot_be_removed_is_not_used(tmp_path: Path) -> None:
    ours = snapshot_path(tmp_path, "group", TOPIC_ID, 3)
    ours.mkdir(parents=True)
    with pytest.raises(EddyError, match="do so by hand"):
        discard_those_of_another_changelog(tmp_path, "group", TOPIC_ID, b"1" * 16)


def test_which_changelog_snapshots_are_of_is_remembered_for_longer_than_they_are(
    rows: Rows, tmp_path: Path
) -> None:
    discard_those_of_another_changelog(tmp_path, "group", TOPIC_ID, b"1" * 16)
    for path in (tmp_path / "snapshots" / "group").iterdir():
        os.utime(path, (time.time() - 100, time.time() - 100))
    sweep_snapshots(tmp_path, "group", max_age_ms=50_000)
    write(snapshot_path(tmp_path, "group", TOPIC_ID, 3), rows)
    discard_those_of_another_changelog(tmp_path, "group", TOPIC_ID, b"1" * 16)
    assert snapshot_path(tmp_path, "group", TOPIC_ID, 3).exists()
