"""Columns that cannot be used are refused with the file, the row and the column."""

import gzip
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from eddy.models.errors import EddyError
from eddy.models.event_limits import MAX_ID, MAX_TYPE, MAX_VALUE
from eddy.models.logs.events import read_events
from tests.support.event_files import line, refused, table

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("e.csv", b"user_id,item_id,x\nu,a,1\nu,b\n", "row 2: has 2 cells where the header has 3"),
        ("e.csv", b"user_id,item_id\nu,a\nu,\xe9\n", "row 2: item_id is not UTF-8"),
        ("e.csv", b"user_id,item_id\nu,a\n,b\n", "row 2: user_id is empty"),
        ("e.csv", b"user_id,item_id,user_id\nu,a,v\n", "column user_id is there more than once"),
        ("e.csv", b"u,a,1\n", "no column user_id and no item_id; it has u, a, 1"),
        ("e.dat", b"user_id::item_id\nu::a\n", "no column user_id and no item_id; it has user_id::item_id"),
        ("e.csv", b"userId,Item ID\nu,a\n", "rename userId to user_id, Item ID to item_id"),
        ("e.csv", b"user_id, item_id\nu,a\n", "it has user_id, ' item_id'; rename ' item_id' to item_id"),
        ("e.csv", b"user_id,item_id,Timestamp\nu,a,1\n", "column Timestamp is not read under this name"),
        ("e.jsonl", line(eventType="buy").encode(), "rename eventType to event_type, or remove it"),
        ("e.json", f"[{line(Value=1)}]".encode(), "rename Value to value, or remove it"),
        ("e.json", b'{"events": [{}]}', "no column user_id and no item_id; it has events"),
        ("e.csv", b"user_id,item_id", "no events in it"),
        ("e.csv", b"user_id,item_id,value\nu,a,1\nu,a,four\n", "row 2: value is 'four', which is no number"),
        ("e.csv", b"user_id,item_id,timestamp\nu,a,2020-01-01\nu,a,1/2/2020\n", "row 2: timestamp is '1/2"),
        ("e.csv", b"user_id,item_id,timestamp\nu,a,\n", "row 1: timestamp is empty"),
        ("e.jsonl", (line() + line(item_id={})).encode(), "row 2: item_id is an object"),
        ("e.jsonl", (line() + "\n" + line(value=[1])).encode(), "row 2: Expected `float | str | null`"),
        ("e.jsonl", (line() + '{"user_id"').encode(), "row 2: "),
        ("e.jsonl", (line() + "5\n").encode(), "row 2: Expected `object`"),
        ("e.jsonl", (line() + line(item_id=None)).encode(), "row 2: item_id is empty"),
        ("e.jsonl", (line() + line() + '{"x":' + "[" * 9999 + "]" * 9999 + "}").encode(), "row 3: nested"),
        ("e.json", f"[{line()}, 5]".encode(), "row 2: Expected `object`"),
        ("e.json", f"[{line()}, {line(value=[])}]".encode(), "got `array` - at `$.value`"),
        ("e.json", f"[{line()}, ".encode(), "no JSON array of objects"),
        ("e.csv", "user_id,item_id\nu,a\n".encode("utf-16"), "UTF-16"),
        ("e.csv", b"PK\x03\x04" + b"\0" * 40, "a ZIP archive or a spreadsheet"),
        ("e.bin", b"\x80\x05\0\0\0", "is no text and no Parquet file"),
        ("e.csv.gz", gzip.compress(b"user_id,item_id\n" * 999, mtime=0)[:-12], "cannot be read (Truncated"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named_with_its_row_and_column(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    refused(path, message)


def test_an_arrow_file_is_named(tmp_path: Path) -> None:
    pa.feather.write_feather(pa.table({"user_id": ["u"]}), tmp_path / "e.feather")
    refused(tmp_path / "e.feather", "is an Arrow IPC (Feather) file")


def test_a_parquet_file_with_columns_of_other_names_is_refused(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"USER_ID": ["u"], "item_id": ["a"]}), tmp_path / "e.parquet")
    refused(tmp_path / "e.parquet", "no column user_id; it has USER_ID, item_id; rename USER_ID to user_id")


def test_of_a_folder_the_file_and_its_row_are_named(tmp_path: Path) -> None:
    table(tmp_path, "a.parquet", item_id=["a", "b"])
    wrong = table(tmp_path, "b.parquet", item_id=["c", None])
    refused(tmp_path, "row 2: item_id is empty", file=wrong)


def test_a_file_whose_name_is_not_utf8_is_named(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.csv")
    (tmp_path / name).write_text("user_id,item_id\nu,a\n")
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(EddyError, match=r"caf\\udce9.csv': the name is not UTF-8; rename it"):
            read_events(path)


def test_a_row_is_named_in_whatever_block_of_the_file_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("user_id,item_id,value\n" + "u,a,1\n" * 300_000 + "u,a,x\n" + "u,a,1\n" * 300_000)
    refused(path, "row 300001: value is 'x'")


@pytest.mark.parametrize(
    ("field", "limit"),
    [("user_id", MAX_ID), ("item_id", MAX_ID), ("event_id", MAX_ID), ("event_type", MAX_TYPE)],
)
def test_a_text_is_as_long_as_the_stream_takes_it_and_no_longer(
    tmp_path: Path, field: str, limit: int
) -> None:
    def with_field(texts: list[str]) -> Path:
        columns: dict[str, Any] = {field: texts}
        return table(tmp_path, "events.parquet", **columns)

    assert len(read_events(with_field(["é" * limit, "b"]))) == 2
    message = f"row 2: {field} has {limit + 1:,} characters; at most {limit:,}"
    refused(with_field(["a", "é" * (limit + 1)]), message)


def test_a_value_is_finite_and_taken_within_what_rows_keep(tmp_path: Path) -> None:
    values = [1e300, -1.7976931348623157e308, 65_504.0, 4.25]
    assert read_events(table(tmp_path, value=values)).value.tolist() == [
        MAX_VALUE,
        -MAX_VALUE,
        MAX_VALUE,
        4.25,
    ]
    refused(table(tmp_path, value=[1.0, float("inf")]), "row 2: value is not a finite number")
