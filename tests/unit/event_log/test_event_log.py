"""The event log's files: each record once, by day, whatever was interrupted."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eddy.models.errors import EddyError
from eddy.models.event_limits import MAX_VALUE
from eddy.models.logs.events import read_events
from eddy.stream.event_log import merging
from eddy.stream.records.admission import Admission
from eddy.stream.records.decode import Record
from eddy.stream.records.schema import Event, encode
from tests.support.event_logs import (
    DAY_MS,
    FOUR,
    MARCH_1_2013,
    ONE_PARTITION,
    Written,
    append,
    event,
    killed_at_step,
    logged,
    names_ada,
    next_offsets,
    opened,
    parts,
    places,
)

EVE, ADA, LEA = ("eve", 0), ("ada", 1), ("lea", 3)
"""Users and where they are at home among four partitions."""


def days(folder: Path) -> list[str]:
    return sorted(path.name.removeprefix("day=") for path in folder.glob("day=*"))


def test_events_lie_in_the_folder_of_their_own_day_and_partition(tmp_path: Path) -> None:
    append(
        tmp_path,
        [event(0), event(1, timestamp=MARCH_1_2013 + DAY_MS - 1), event(2, timestamp=MARCH_1_2013 + DAY_MS)],
    )
    assert days(tmp_path) == ["2013-03-01", "2013-03-02"]
    (first,) = tmp_path.glob("day=2013-03-01/bucket=0000/part-*.parquet")
    assert pq.ParquetFile(first).read()["offset"].to_pylist() == [0, 1]


def test_the_log_is_what_training_reads(tmp_path: Path) -> None:
    append(tmp_path, [event(0, "heat", event_type="rating", value=4.25, event_id="e-1"), event(1, "alien")])
    events = read_events(tmp_path)
    assert [events.items[item] for item in events.item] == ["heat", "alien"]
    assert events.timestamp.tolist() == [MARCH_1_2013, MARCH_1_2013]
    assert events.value[0] == 4.25
    assert events.value[1] != events.value[1]
    assert events.event_id == ["e-1", ""]
    assert [events.types[kind] for kind in events.type] == ["rating", "view"]


def test_what_is_no_event_is_left_out_and_not_read_again(tmp_path: Path) -> None:
    records = [
        event(0),
        Written(1, b"not JSON"),
        Written(2, None),
        Written(3, encode(Event("bob", "heat", MARCH_1_2013))),
        event(4, timestamp=MARCH_1_2013 // 1000),
        event(5, timestamp=MARCH_1_2013 + 11 * DAY_MS),
    ]
    assert append(tmp_path, records) == 1
    assert places(tmp_path) == [(0, 0)]
    assert next_offsets(tmp_path)[0] == 6


def test_a_time_names_its_unit_so_that_nobody_has_to_guess(tmp_path: Path) -> None:
    append(tmp_path, [event(0)])
    (part,) = tmp_path.glob("day=*/bucket=*/*.parquet")
    table = pq.ParquetFile(part).read()
    assert table.schema.field("timestamp").type == pa.timestamp("ms", "UTC")
    assert table["timestamp"].to_pylist() == [datetime(2013, 3, 1, tzinfo=UTC)]
    early = tmp_path / "zero"
    append(early, [event(0, timestamp=1_700_000_000)], admission=Admission(earliest=0))
    assert read_events(early).timestamp.tolist() == [1_700_000_000], (
        "milliseconds, though they look like seconds"
    )


@pytest.mark.parametrize("days", [-1, 1])
def test_a_log_whose_older_parts_have_times_as_numbers_is_read_and_goes_on(tmp_path: Path, days: int) -> None:
    append(tmp_path, [event(0)])
    (path,) = tmp_path.glob("day=*/bucket=*/*.parquet")
    table = pq.ParquetFile(path).read()
    pq.write_table(table.set_column(2, "timestamp", table["timestamp"].cast(pa.int64())), path)
    append(
        tmp_path, [event(1, timestamp=MARCH_1_2013 + days * DAY_MS), event(2, user="eve"), Written(3, None)]
    )
    assert sorted(read_events(tmp_path).timestamp.tolist()) == sorted(
        [MARCH_1_2013, MARCH_1_2013 + days * DAY_MS, MARCH_1_2013]
    )
    with opened(tmp_path) as event_log:
        assert event_log.forget() == 2
    assert read_events(tmp_path).users == ["eve"]


def test_values_and_absent_fields_are_what_the_workers_take_them_for(tmp_path: Path) -> None:
    huge = event(0, value=1e300)
    empty = Written(
        1, b'{"user_id":"ada","item_id":"i","timestamp":1362096000000,"event_type":null,"event_id":""}'
    )
    append(tmp_path, [huge, empty])
    table = logged(tmp_path)
    assert table["value"].to_pylist() == [MAX_VALUE, None]
    assert table["event_type"].to_pylist() == ["view", "view"]
    assert table["event_id"].to_pylist() == [None, None]
    assert len(read_events(tmp_path)) == 2


def test_what_lies_in_a_wrong_partition_is_not_in_the_log_and_erases_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (eve, right), (_, wrong) = EVE, LEA
    append(tmp_path, [event(0, user=eve)], right, FOUR)
    append(tmp_path, [event(0, user=eve), Written(1, None, eve.encode())], wrong, FOUR)
    assert caplog.messages == ["2 records lie in a wrong partition: left out, as workers refuse them"]
    with opened(tmp_path) as event_log:
        assert event_log.forget() == 0
    assert places(tmp_path) == [(right, 0)]
    append(tmp_path, [Written(1, None, eve.encode())], right, FOUR)
    with opened(tmp_path) as event_log:
        assert event_log.forget() == 1
    assert places(tmp_path) == []


def read_and_forget(folder: Path, records: list[Record]) -> None:
    """What an export does, three records at a time, with what it has not read yet."""
    with opened(folder, [0]) as event_log:
        unread = [record for record in records if record.offset >= event_log.next_offset(0)]
        for at in range(0, len(unread), 3):
            event_log.append({0: unread[at : at + 3]}, ONE_PARTITION)
            event_log.merge_once()
        event_log.forget()


def test_an_erasure_that_was_read_is_finished_wherever_the_export_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = MARCH_1_2013 + DAY_MS
    records: list[Record] = [
        event(0), event(1, user="bob"), event(2, timestamp=day), event(3, user="bob", timestamp=day),
        event(4), Written(5, None), event(6),
    ]  # fmt: skip
    monkeypatch.setattr(merging, "PARTS", 2)

    def run(folder: Path, killed_at: int | None) -> int:
        """Returns how many steps there were."""
        with killed_at_step(monkeypatch, killed_at) as steps:
            read_and_forget(folder, records)
        return len(steps)

    steps = run(tmp_path / "undisturbed", None)
    assert steps > 20
    for killed_at in range(1, steps + 1):
        folder = tmp_path / str(killed_at)
        run(folder, killed_at)
        run(folder, None)
        assert places(folder) == [(0, 1), (0, 3), (0, 6)]
        assert not list(folder.rglob("*.writing"))
        for path in folder.rglob("*.parquet"):  # replaced ones are there for a while, and forget as well
            assert not {0, 2, 4} & set(pq.ParquetFile(path).read()["offset"].to_pylist())
        assert sum(part.rows for part in parts(folder)) == 3
        (manifest,) = (path for path in folder.glob("_manifest/*/*"))
        assert not names_ada(manifest.read_bytes()), "nothing is left to do"


def test_an_erasure_leaves_files_without_the_user_alone(tmp_path: Path) -> None:
    append(tmp_path, [event(0), event(1, user="bob", timestamp=MARCH_1_2013 + DAY_MS)])
    (others,) = tmp_path.glob("day=2013-03-02/*/*.parquet")
    before = others.stat().st_ino
    append(tmp_path, [Written(2, None)])
    with opened(tmp_path) as event_log:
        assert event_log.forget() == 1
    assert others.stat().st_ino == before
    assert places(tmp_path) == [(0, 1)]


def test_a_torn_file_does_not_hide_who_is_in_it(tmp_path: Path) -> None:
    append(tmp_path, [event(0)])
    append(tmp_path, [Written(1, None)])
    (torn,) = tmp_path.glob("day=*/*/*.parquet")
    torn.write_bytes(torn.read_bytes()[:-9])
    with (
        pytest.raises(
            EddyError, match=r"part-000000000000-.*\.parquet: cannot be read .*erased users may be in it"
        ),
        opened(tmp_path) as event_log,
    ):
        event_log.forget()


def test_a_part_without_any_event_moves_the_position_too(tmp_path: Path) -> None:
    assert append(tmp_path, [Written(7, b"{}")]) == 0
    assert next_offsets(tmp_path)[0] == 8


def test_partitions_have_their_own_positions(tmp_path: Path) -> None:
    for (user, partition), offsets in ((EVE, (0, 1)), (LEA, (0,))):
        append(tmp_path, [event(offset, user=user) for offset in offsets], partition, FOUR)
    assert next_offsets(tmp_path) == {0: 2, 1: 0, 2: 0, 3: 1}
    assert places(tmp_path) == [(0, 0), (0, 1), (3, 0)]


def test_after_a_crash_between_parts_and_manifest_nothing_is_there_twice(tmp_path: Path) -> None:
    append(tmp_path, [event(0)])
    (before,) = tmp_path.glob("_manifest/bucket=0000/*.json")
    content = before.read_bytes()
    append(tmp_path, [event(1), event(2, timestamp=MARCH_1_2013 + DAY_MS)])
    (after,) = tmp_path.glob("_manifest/bucket=0000/*.json")
    after.unlink()  # the crash: the parts were written, the manifest was not
    before.write_bytes(content)
    assert places(tmp_path) == [(0, 0)]
    with opened(tmp_path):
        assert len(list(tmp_path.rglob("*.parquet"))) == 1
    append(tmp_path, [event(1), event(2, timestamp=MARCH_1_2013 + DAY_MS), event(3)])
    assert places(tmp_path) == [(0, 0), (0, 1), (0, 2), (0, 3)]


def test_a_file_that_is_half_written_is_never_read_and_goes(tmp_path: Path) -> None:
    append(tmp_path, [event(0)])
    half = tmp_path / "day=2013-03-01" / "bucket=0000" / ".part-000000000001-1a2b3c4d.parquet.writing"
    half.write_bytes(b"PAR1")
    assert len(read_events(tmp_path)) == 1
    with opened(tmp_path):
        pass
    assert not half.exists()


def test_the_log_of_another_topic_is_refused(tmp_path: Path) -> None:
    append(tmp_path, [event(0)])
    with (
        pytest.raises(EddyError, match="exported from another topic"),
        opened(tmp_path, topic_id="another id"),
    ):
        pass


def test_only_one_export_writes_at_a_time(tmp_path: Path) -> None:
    with (
        opened(tmp_path),
        pytest.raises(EddyError, match="another export"),
        opened(tmp_path),
    ):
        pass


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"bucket": 0, "topic": "t"}', "[" * 100_000])
def test_a_manifest_that_cannot_be_read_is_refused(tmp_path: Path, content: str) -> None:
    append(tmp_path, [event(0)])
    (manifest,) = tmp_path.glob("_manifest/bucket=0000/*.json")
    manifest.write_text(content)
    with pytest.raises(EddyError, match=r"\.json: unreadable"), opened(tmp_path):
        pass
    with pytest.raises(EddyError, match=r"\.json: unreadable"):
        read_events(tmp_path)


def test_a_manifest_that_names_a_file_elsewhere_is_refused(tmp_path: Path) -> None:
    append(tmp_path, [event(0)])
    (manifest,) = tmp_path.glob("_manifest/bucket=0000/*.json")
    manifest.write_text(manifest.read_text().replace("day=2013-03-01/", "../"))
    with pytest.raises(EddyError, match="is no part's path"):
        read_events(tmp_path)


def test_files_without_a_manifest_are_refused(tmp_path: Path) -> None:
    append(tmp_path, [event(0)])
    shutil.rmtree(tmp_path / "_manifest")
    with pytest.raises(EddyError, match="has files but no"), opened(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EddyError, match="cannot be written"), opened(tmp_path / "file"):
        pass


def a_week(folder: Path) -> None:
    append(folder, [event(day, timestamp=MARCH_1_2013 + day * DAY_MS) for day in range(7)])


@pytest.mark.parametrize(
    ("keep_days", "left"), [(10, 7), (6, 7), (5.5, 6), (2, 3), (0.5, 1)], ids=lambda value: f"{value}"
)
def test_days_that_are_older_than_the_log_is_to_be_leave_it(
    tmp_path: Path, keep_days: float, left: int
) -> None:
    a_week(tmp_path)
    with opened(tmp_path) as event_log:
        dropped = event_log.drop_days(keep_days)
        assert len(dropped) == 7 - left
        assert event_log.drop_days(keep_days) == []
    assert days(tmp_path) == [f"2013-03-0{day}" for day in range(8 - left, 8)]
    # What is left is still the log: its position stands, and it goes on.
    assert [offset for _, offset in places(tmp_path)] == list(range(7 - left, 7))
    append(tmp_path, [event(7, timestamp=MARCH_1_2013 + 7 * DAY_MS)])
    assert places(tmp_path)[-1] == (0, 7)


def test_an_empty_log_has_no_day_to_lose(tmp_path: Path) -> None:
    with opened(tmp_path) as event_log:
        assert event_log.drop_days(1) == []


def test_a_day_that_was_being_removed_when_the_process_was_killed_is_gone_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_week(tmp_path)
    append(tmp_path, [event(7)])  # a second part of the first day
    removed: list[Path] = []
    unlink = Path.unlink

    def killed(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".parquet":
            if removed:
                raise KeyboardInterrupt
            removed.append(path)
        unlink(path, missing_ok)

    with monkeypatch.context() as patch, opened(tmp_path) as event_log:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            event_log.drop_days(3)
    assert days(tmp_path)[0] == "2013-03-01"
    with opened(tmp_path) as event_log:
        event_log.drop_days(3)
    assert days(tmp_path) == [f"2013-03-0{day}" for day in range(4, 8)]
