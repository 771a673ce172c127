"""Folders as other tools write them: Kafka Connect's S3 sink, Spark, Flink."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eddy.models.errors import EddyError
from eddy.models.logs.column_store import ColumnStore
from eddy.models.logs.events import Events, read_events

pytestmark = pytest.mark.unit

COUNT = 400
BEGIN_MS = 1_709_164_800_000  # 29 February 2024
TIMES = BEGIN_MS + np.random.default_rng(1).permutation(COUNT) * 900_000  # four days, in no order


def table() -> pa.Table:
    return pa.table(
        {
            "user_id": [f"u{n % 23}" for n in range(COUNT)],
            "item_id": [f"i{n % 31}" for n in range(COUNT)],
            "timestamp": pa.array(TIMES, pa.timestamp("ms", "UTC")),
            "event_type": ["view", "buy"] * (COUNT // 2),
            "value": pa.array([None, 2.5] * (COUNT // 2), pa.float32()),
        }
    )


def write(part: pa.Table, path: Path, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(part, path, **options)


def kafka_connect(folder: Path) -> None:
    """topics/TOPIC/partition=0/TOPIC+0+0000000000.parquet, by the partition of Kafka, snappy, times in ms."""
    for partition in range(3):
        rows = np.arange(partition, COUNT, 3)
        part = table().take(pa.array(rows))
        part = part.set_column(2, "timestamp", pa.array(TIMES[rows]))
        for start in range(0, len(rows), 50):
            name = f"clicks+{partition}+{start:010d}.snappy.parquet"
            write(
                part.slice(start, 50), folder / "topics/clicks" / f"partition={partition}" / name,
                compression="snappy", row_group_size=20,
            )  # fmt: skip


def spark(folder: Path) -> None:
    """year=/month=/day=/part-….snappy.parquet beside _SUCCESS and checksums; times in µs of local time."""
    by_day = [tuple(day.split("-")) for day in np.datetime_as_string(TIMES.astype("M8[ms]").astype("M8[D]"))]
    for year, month, day in sorted(set(by_day)):
        rows = [n for n, each in enumerate(by_day) if each == (year, month, day)]
        part = table().take(pa.array(rows))
        part = part.set_column(2, "timestamp", part["timestamp"].cast(pa.timestamp("us")))
        name = "part-00000-7d0c.c000.snappy.parquet"
        target = folder / f"year={year}" / f"month={int(month)}" / f"day={int(day)}" / name
        write(part, target, compression="snappy", row_group_size=32)
        (target.parent / f".{name}.crc").write_bytes(b"crc\0")
    (folder / "_SUCCESS").touch()


def flink(folder: Path) -> None:
    """2024-02-29--00/part-…-0 without a suffix, beside an unfinished file; zstd, ns, dictionaries."""
    for n, start in enumerate(range(0, COUNT, 90)):
        part = table().slice(start, 90)
        part = part.set_column(2, "timestamp", part["timestamp"].cast(pa.timestamp("ns", "UTC")))
        part = part.set_column(0, "user_id", part["user_id"].dictionary_encode())
        write(part, folder / f"2024-02-29--{n:02d}" / f"part-5f2c-{n}", compression="zstd", row_group_size=25)
        (folder / f"2024-02-29--{n:02d}" / f".part-5f2c-{n + 1}.inprogress.a1b2").write_bytes(b"PAR1 half")


def content(events: Events) -> set[tuple[Any, ...]]:
    users, items, value = list(events.users), events.items, np.nan_to_num(events.value, nan=-1)
    columns = (events.user, events.item, events.timestamp, events.type, value)
    return {
        (users[user], items[item], time, events.types[type_], number)
        for user, item, time, type_, number in zip(*(column.tolist() for column in columns), strict=True)
    }


@pytest.mark.parametrize("limit", [None, 0])
@pytest.mark.parametrize("layout", [kafka_connect, spark, flink])
def test_folders_of_other_tools_give_the_same_events(
    tmp_path: Path, layout: Callable[[Path], None], limit: int | None
) -> None:
    write(table(), tmp_path / "one.parquet")
    layout(tmp_path / "folder")
    store = ColumnStore(limit, tmp_path / "columns")
    events = read_events(tmp_path / "folder", store=store)
    assert len(events) == COUNT
    assert (np.diff(events.timestamp) > 0).all()
    assert content(events) == content(read_events(tmp_path / "one.parquet"))


def test_files_and_folders_behind_links_belong_to_the_log(tmp_path: Path) -> None:
    log, elsewhere = tmp_path / "log", tmp_path / "elsewhere"
    write(table().slice(0, 100), log / "a.parquet")
    write(table().slice(100, 100), elsewhere / "deeper" / "b.parquet")
    write(table().slice(200), tmp_path / "c.parquet")
    (log / "folder").symlink_to(elsewhere)
    (log / "c.parquet").symlink_to(tmp_path / "c.parquet")
    (log / "back").symlink_to(log)
    (log / ".#locked-by-an-editor").symlink_to(tmp_path / "nothing")
    assert len(read_events(log)) == COUNT


def test_a_link_to_nothing_is_refused_as_its_events_are_missing(tmp_path: Path) -> None:
    write(table(), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").symlink_to(tmp_path / "nothing")
    with pytest.raises(EddyError, match=r"b\.parquet: is a link to nothing"):
        read_events(tmp_path)


@pytest.mark.parametrize("locked", ["day=1", "_manifest"])
def test_a_folder_that_cannot_be_listed_is_refused_as_its_events_are_missing(
    tmp_path: Path, locked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(table(), tmp_path / "day=0" / "a.parquet")
    write(table(), tmp_path / locked / "b.parquet")
    scandir = os.scandir

    def refuses(path: Any = ".") -> Any:
        if Path(path).name == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuses)
    with pytest.raises(EddyError, match=rf"cannot be listed \(.*Permission denied.*{locked}"):
        read_events(tmp_path)


def test_a_pipe_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(EddyError, match="is a pipe or a device; write what comes from it to a file first"):
        read_events(tmp_path / "pipe")
