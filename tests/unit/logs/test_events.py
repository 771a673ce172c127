"""Reading event logs: formats, order, units, and the one line that says what is wrong with a file."""

import datetime
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eddy.models.errors import EddyError
from eddy.models.logs.events import DEFAULT_TYPE, Events, read_events, read_items
from eddy.models.logs.splits import boundary, leave_one_out

Columns = Mapping[str, Sequence[Any]]
LOG: Columns = {"user_id": ["u2", "u1", "u2"], "item_id": ["b", "a", "a"], "timestamp": [2_000, 1_000, 2_000]}


def write(folder: Path, columns: Columns, kind: str = "parquet") -> Path:
    path = folder / f"events.{kind}"
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if kind == "parquet":
        pq.write_table(pa.table(dict(columns)), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        lines = [
            ",".join(columns),
            *(",".join("" if v is None else str(v) for v in r.values()) for r in rows),
        ]
        text = "\n".join(lines) + "\n"
        path.write_bytes(gzip.compress(text.encode()) if kind.endswith("gz") else text.encode())
    return path


def changed(**columns: Sequence[Any]) -> Columns:
    return {**LOG, **columns}


def ids(events: Events) -> list[tuple[str, str]]:
    return [(events.users[u], events.items[i]) for u, i in zip(events.user, events.item, strict=True)]


@pytest.mark.parametrize("kind", ["parquet", "csv", "csv.gz", "jsonl"])
def test_every_format_gives_the_same_events_in_time_order_ties_in_order_of_arrival(
    tmp_path: Path, kind: str
) -> None:
    events = read_events(write(tmp_path, LOG, kind))
    assert ids(events) == [("u1", "a"), ("u2", "b"), ("u2", "a")]
    assert events.timestamp.tolist() == [1_000_000, 2_000_000, 2_000_000]
    assert (events.types, events.clock) == ([DEFAULT_TYPE], True)
    assert np.isnan(events.value).all()


def test_users_and_items_are_numbered_by_first_appearance(tmp_path: Path) -> None:
    events = read_events(write(tmp_path, LOG))
    assert events.item.tolist() == [0, 1, 0]
    assert (events.users, events.items) == (["u1", "u2"], ["a", "b"])


def test_all_columns_are_read(tmp_path: Path) -> None:
    extra = changed(event_type=["buy", None, "view"], value=[1.5, None, 2.0], event_id=["x", None, "z"])
    events = read_events(write(tmp_path, extra))
    assert [events.types[t] for t in events.type] == [DEFAULT_TYPE, "buy", "view"]
    assert events.value.tolist()[1:] == [1.5, 2.0]
    assert np.isnan(events.value[0])
    assert events.event_id == ["", "x", "z"]


def test_a_rating_column_becomes_the_value_of_rating_events(tmp_path: Path) -> None:
    events = read_events(write(tmp_path, changed(rating=[9, 8, 7])))
    assert (events.types, events.value.tolist()) == (["rating"], [8, 9, 7])


def test_a_rating_column_beside_a_value_column_is_left_alone(tmp_path: Path) -> None:
    events = read_events(write(tmp_path, changed(rating=[9, 8, 7], value=[1, 2, 3])))
    assert (events.types, events.value.tolist()) == ([DEFAULT_TYPE], [2, 1, 3])


def test_a_folder_of_parquet_files_partitioned_by_day_is_one_log(tmp_path: Path) -> None:
    for day, time in (("2013-01-01", 1), ("2013-01-02", 2)):
        (tmp_path / f"day={day}").mkdir()
        write(tmp_path / f"day={day}", {"user_id": ["u"], "item_id": [day], "timestamp": [time]})
    assert read_events(tmp_path).items == ["2013-01-01", "2013-01-02"]


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_ids_of_any_scalar_type_become_strings(tmp_path: Path, kind: str) -> None:
    events = read_events(write(tmp_path, changed(user_id=[7, 8, 7], item_id=[1, 2, 3]), kind))
    assert (events.users, events.items) == (["8", "7"], ["2", "1", "3"])


def test_ids_in_csv_keep_their_leading_zeros(tmp_path: Path) -> None:
    assert read_events(write(tmp_path, changed(item_id=["007", "7", "007"]), "csv")).items == ["7", "007"]


def test_dictionary_columns_are_read(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table({**LOG, "user_id": pa.array(LOG["user_id"]).dictionary_encode()}), path)
    assert read_events(path).users == ["u1", "u2"]


@pytest.mark.parametrize(
    ("times", "unit", "expected"),
    [
        ([1, 2, 3], "auto", 1_000),
        ([1_362_062_307, 1_400_000_000, 1_500_000_000], "auto", 1_362_062_307_000),
        ([1_396_314_141_719, 1_396_314_141_720, 1_396_314_141_721], "auto", 1_396_314_141_719),
        ([5, 6, 7], "ms", 5),
        ([1.5, 2.0, 3.0], "s", 1_500),
    ],
)
def test_numbers_are_seconds_below_1e11_and_milliseconds_above_unless_the_unit_is_given(
    tmp_path: Path, times: list[float], unit: str, expected: int
) -> None:
    assert read_events(write(tmp_path, changed(timestamp=times)), unit).timestamp[0] == expected


def test_arrow_timestamps_are_exact_whatever_their_unit_or_zone(tmp_path: Path) -> None:
    moment = datetime.datetime(2013, 2, 28, 14, 38, 27, 123_456, datetime.UTC)
    events = read_events(write(tmp_path, changed(timestamp=[moment] * 3)))
    assert events.timestamp.tolist() == [1_362_062_307_123] * 3


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_iso_timestamps_in_text_are_understood(tmp_path: Path, kind: str) -> None:
    events = read_events(write(tmp_path, changed(timestamp=["2013-02-28 14:38:27"] * 3), kind))
    assert events.timestamp.tolist() == [1_362_062_307_000] * 3


def test_positions_order_a_log_without_clock_and_rows_do_without_positions(tmp_path: Path) -> None:
    columns = {"user_id": ["u", "u", "v"], "item_id": ["second", "first", "other"]}
    by_rows = read_events(write(tmp_path, columns))
    by_position = read_events(write(tmp_path, {**columns, "position": [1, 0, 0]}))
    assert not by_rows.clock
    assert not by_position.clock
    assert by_rows.items == ["second", "first", "other"]
    assert by_position.items == ["first", "other", "second"]


@pytest.mark.parametrize(
    ("position", "reason"),
    [(None, "is empty"), (float("nan"), "is empty"), (float("inf"), "inf is too"), (2e16, "2e.16 is too")],
)
def test_a_position_that_orders_nothing_is_refused(
    tmp_path: Path, position: float | None, reason: str
) -> None:
    """An event without a place would be its user's last one, on which a version is judged."""
    columns: Columns = {
        "user_id": ["u", "u", "u"], "item_id": ["b", "c", "a"], "position": [1.0, position, 0.0],
    }  # fmt: skip
    with pytest.raises(EddyError, match=f"row 2: position {reason}"):
        read_events(write(tmp_path, columns))


NAN = float("nan")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user_id": ["u"], "timestamp": [1]}, "no column item_id; it has user_id, timestamp"),
        ({"user_id": [], "item_id": [], "timestamp": []}, "no events"),
        (changed(user_id=["u", None, "v"]), "row 2: user_id is empty"),
        (changed(item_id=["a", "b", ""]), "row 3: item_id is empty"),
        (changed(timestamp=[1, 2, None]), "row 3: timestamp is empty"),
        (changed(timestamp=[1.0, NAN, 3.0]), "row 2: timestamp is empty"),
        (changed(timestamp=[1, -2, 3]), "row 2: timestamp -2 is no time"),
        (changed(timestamp=[1.0, float("inf"), 3.0]), "row 2: timestamp inf is no time"),
        (changed(timestamp=[10**18, 2, 3]), "row 1: timestamp 1e+18 is no time"),
        (changed(timestamp=["x", "y", "z"]), "row 1: timestamp is 'x', which is no time"),
        (changed(value=[1.0, 2.0, float("-inf")]), "row 3: value is not a finite number"),
        (changed(value=["good", "bad", "good"]), "row 1: value is 'good', which is no number"),
        (changed(user_id=[["u"], ["v"], ["w"]]), "column user_id is list"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line_that_names_file_row_and_column(
    tmp_path: Path, columns: Columns, message: str
) -> None:
    path = write(tmp_path, columns)
    with pytest.raises(EddyError) as caught:
        read_events(path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert message in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("truncated.parquet", None),
        ("text.parquet", b"user_id,item_id,timestamp\nu,a,1\n"),
        ("empty.csv", b""),
        ("ragged.csv", b"user_id,item_id,timestamp\nu,a\n"),
        ("broken.jsonl", b'{"user_id": "u", "item_id": \n'),
        ("latin1.csv", b"user_id,item_id,timestamp\nu\xe9,a,1\n"),
        ("nothing-in-it", ()),
        ("absent.parquet", None),
    ],
)
def test_damaged_and_missing_files_are_refused_in_one_line(tmp_path: Path, name: str, content: Any) -> None:
    path = tmp_path / name
    if name == "truncated.parquet":
        path.write_bytes(write(tmp_path, LOG).read_bytes()[:-20])
    elif content == ():
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(EddyError) as caught:
        read_events(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_an_unknown_time_unit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EddyError, match="time unit 'us'"):
        read_events(write(tmp_path, LOG), "us")


def test_a_split_never_puts_a_later_event_before_an_earlier_one(tmp_path: Path) -> None:
    columns = {"user_id": range(10), "item_id": range(10), "timestamp": [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]}
    events = read_events(write(tmp_path, columns))
    row = boundary(events, 0.8)
    assert row == 8
    assert events.timestamp[:row].max() <= events.timestamp[row:].min()


def test_a_log_too_short_to_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EddyError, match="cannot be split"):
        boundary(read_events(write(tmp_path, LOG)), 0.1)


def test_leave_one_out_tests_the_last_event_of_every_user_with_three_or_more(tmp_path: Path) -> None:
    columns = {"user_id": list("aababcb"), "item_id": list("pqrstuv"), "timestamp": range(7)}
    events = read_events(write(tmp_path, columns))
    split = leave_one_out(events)
    assert split.test.tolist() == [3, 6]  # the last events of a and b; c has one event only
    assert split.validation.tolist() == [1, 4]
    assert split.train.tolist() == [0, 2, 5]


def test_leave_one_out_needs_a_user_with_three_events(tmp_path: Path) -> None:
    with pytest.raises(EddyError, match="at least three events"):
        leave_one_out(read_events(write(tmp_path, LOG)))


@pytest.mark.parametrize("genres", [["Action|Drama", None], [["Action", "Drama"], []]])
def test_items_have_titles_and_genres(tmp_path: Path, genres: Sequence[Any]) -> None:
    items = read_items(write(tmp_path, {"item_id": [1, 2], "title": ["One", None], "genres": genres}))
    assert items.title == {"1": "One"}
    assert items.genres == {"1": ["Action", "Drama"], "2": []}
