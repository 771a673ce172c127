"""Files as they are in the wild: the same content gives the same events, however it is written down."""

import bz2
import csv
import datetime
import decimal
import gzip
import io
import json
import tempfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eddy.models.errors import EddyError
from eddy.models.event_limits import MAX_ID, MAX_TYPE, MAX_VALUE
from eddy.models.logs.events import DEFAULT_TYPE, Events, read_events

pytestmark = pytest.mark.unit

Row = dict[str, Any]
FIELDS = ("user_id", "item_id", "timestamp", "event_type", "value", "event_id")
S = 1_700_000_000
"""a moment of 2023 in seconds"""


def rows_of(*rows: Sequence[Any]) -> list[Row]:
    return [dict(zip(FIELDS, [*row, None, None, None][:6], strict=True)) for row in rows]


def csv_text(rows: Sequence[Row], separator: str = ",", quoting: Any = csv.QUOTE_MINIMAL) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, quoting=quoting)
    writer.writerow(["context", *FIELDS])
    writer.writerows(
        ['{"a": 1}', *("" if row[name] is None else row[name] for name in FIELDS)] for row in rows
    )
    return text.getvalue().encode()


def json_lines(rows: Sequence[Row], absent_as_null: bool = True) -> bytes:
    return b"".join(
        json.dumps(
            {"context": [1] if n % 2 else {"a": n}}
            | {name: value for name, value in row.items() if absent_as_null or value is not None}
        ).encode()
        + b"\n"
        for n, row in enumerate(rows)
    )


def parquet(rows: Sequence[Row], types: dict[str, pa.DataType] | None = None) -> bytes:
    """Columns without any value are left out."""
    columns = {name: [row[name] for row in rows] for name in FIELDS}
    kept = {
        name: pa.array(column, (types or {}).get(name))
        for name, column in columns.items()
        if any(value is not None for value in column)
    }
    file = io.BytesIO()
    pq.write_table(pa.table({"context": pa.array([{"a": 1}] * len(rows)), **kept}), file)
    return file.getvalue()


def in_one(name: str, content: Callable[[Sequence[Row]], bytes]) -> Callable[[Path, Sequence[Row]], Path]:
    def write(folder: Path, rows: Sequence[Row]) -> Path:
        path = folder / name
        path.write_bytes(content(rows))
        return path

    return write


def in_folder(*contents: Callable[[Sequence[Row]], bytes]) -> Callable[[Path, Sequence[Row]], Path]:
    """A file for every row or two, of each format in turn."""

    def write(folder: Path, rows: Sequence[Row]) -> Path:
        path = folder / "log"
        (path / "deeper").mkdir(parents=True)
        (path / "_SUCCESS").write_bytes(b"")
        (path / ".part-0.crc").write_bytes(b"\0\1")
        for n, start in enumerate(range(0, len(rows), 2)):
            part = path / "deeper" / f"part-{n:05d}"
            part.write_bytes(contents[n % len(contents)](rows[start : start + 2]))
        return path

    return write


def zstd(content: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(content, asbytes=True))


FORMATS = {
    "parquet": in_one("e.parquet", parquet),
    "typed parquet": in_one(
        "e.parquet",
        lambda rows: parquet(
            rows,
            {
                "user_id": pa.dictionary(pa.int32(), pa.large_string()),
                "item_id": pa.binary(),
                "timestamp": pa.decimal128(38, 0),
                "value": pa.float32(),
                "event_id": pa.large_string(),
            },
        ),
    ),
    "csv": in_one("e.csv", csv_text),
    "quoted csv": in_one("e.csv", lambda rows: csv_text(rows, quoting=csv.QUOTE_ALL)),
    "semicolons and a byte-order mark": in_one("e.csv", lambda rows: b"\xef\xbb\xbf" + csv_text(rows, ";")),
    "gzip'd tabs": in_one("e.tsv", lambda rows: gzip.compress(csv_text(rows, "\t"))),
    "json lines": in_one("e.jsonl", json_lines),
    "json lines, absent fields left out": in_one("e", lambda rows: json_lines(rows, False)),
    "zstd'd json lines": in_one("e.jsonl.zst", lambda rows: zstd(json_lines(rows))),
    "json array with a byte-order mark": in_one(
        "e.json",
        lambda rows: (
            b"\xef\xbb\xbf "
            + json.dumps([json.loads(line) for line in json_lines(rows).splitlines()]).encode()
        ),
    ),
    "a folder of parquet": in_folder(parquet),
    "a folder of everything": in_folder(parquet, csv_text, lambda rows: bz2.compress(json_lines(rows))),
}

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=6)
NAMES = TEXT | st.sampled_from(["7", "07", "7.0", "NA", "null", "NaN", "true", " x ", '"', "a,b;c\td|e"])
LOGS = st.lists(
    st.fixed_dictionaries(
        {
            "user_id": NAMES,
            "item_id": NAMES,
            "timestamp": st.integers(S, S + 3),
            "event_type": st.none() | NAMES,
            "value": st.none() | st.floats(width=32, allow_nan=False, allow_infinity=False),
            "event_id": st.none() | NAMES,
        }
    ),
    min_size=1,
    max_size=6,
)


def written_out(events: Events) -> list[tuple[Any, ...]]:
    ids = events.event_id or [""] * len(events)
    return [
        (
            events.users[u],
            events.items[i],
            t,
            events.types[y],
            None if np.isnan(v) else float(v),
            ids[n] or None,
        )
        for n, (u, i, t, y, v) in enumerate(
            zip(events.user, events.item, events.timestamp.tolist(), events.type, events.value, strict=True)
        )
    ]


def expected(rows: Sequence[Row]) -> list[tuple[Any, ...]]:
    return [
        (
            row["user_id"], row["item_id"], row["timestamp"] * 1000, row["event_type"] or DEFAULT_TYPE,
            None if row["value"] is None else float(np.float32(np.clip(row["value"], -MAX_VALUE, MAX_VALUE))),
            row["event_id"],
        )
        for row in sorted(rows, key=lambda row: row["timestamp"])
    ]  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
@given(rows=LOGS)
@settings(max_examples=20, deadline=None)
def test_the_same_content_gives_the_same_events_in_every_format(name: str, rows: list[Row]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert written_out(read_events(FORMATS[name](Path(folder), rows))) == expected(rows)


WHOLE = {
    "int8": pa.array([7], pa.int8()),
    "uint64": pa.array([7], pa.uint64()),
    "float64, as where some are absent": pa.array([7.0]),
    "float32": pa.array([7], pa.float32()),
    "decimal": pa.array([decimal.Decimal("7.00")]),
    "text": pa.array(["7"]),
    "dictionary": pa.array([7]).dictionary_encode(),
}


def table(folder: Path, name: str = "events.parquet", **columns: Any) -> Path:
    first = next(iter(columns.values()))
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    n = len(first)
    given = {"user_id": ["u"] * n, "item_id": ["i"] * n, "timestamp": [S + k for k in range(n)], **columns}
    pq.write_table(pa.table({key: column for key, column in given.items() if column is not None}), path)
    return path


def test_a_whole_number_is_one_id_whatever_its_type_and_a_text_with_zeros_is_another(tmp_path: Path) -> None:
    for name, column in WHOLE.items():
        table(tmp_path, f"{name}.parquet", item_id=column)
    table(tmp_path, "zeros.parquet", item_id=["007"])
    (tmp_path / "numbers.jsonl").write_text(
        "".join(
            f'{{"user_id": "u", "timestamp": {S}, "item_id": {item}}}\n'
            for item in ("7", "7.0", "7e0", '"7"')
        )
    )
    (tmp_path / "more.csv").write_text(f"user_id,item_id,timestamp\nu,7,{S}\n")
    assert sorted(read_events(tmp_path).items) == ["007", "7"]


@pytest.mark.parametrize("number", [2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1])
def test_a_large_number_is_exact(tmp_path: Path, number: int) -> None:
    table(tmp_path, item_id=pa.array([number], pa.uint64() if number >= 2**63 else pa.int64()))
    (tmp_path / "e.jsonl").write_text(f'{{"user_id": "u", "timestamp": {S}, "item_id": {number}}}')
    assert read_events(tmp_path).items == [str(number)]


def test_a_number_of_any_length_in_json_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text('{"user_id": "u", "item_id": 123456789012345678901234567890}')
    assert read_events(path).items == ["123456789012345678901234567890"]


def test_a_float_that_may_have_lost_digits_is_no_id(tmp_path: Path) -> None:
    refused(table(tmp_path, item_id=[1.0, 2.0**53, 2.0**53 + 2]), "row 3: item_id is 9.0072e+15, a float")


UUIDS = [uuid.UUID(int=5), uuid.UUID("12345678-1234-5678-1234-567812345678"), uuid.UUID(int=5)]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([each.bytes for each in UUIDS], pa.binary(16)),
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([each.bytes for each in UUIDS], pa.binary(16))),
    ],
    ids=["16 bytes", "extension type"],
)
def test_a_uuid_is_its_36_characters(tmp_path: Path, column: pa.Array) -> None:
    assert read_events(table(tmp_path, user_id=column)).users == [str(each) for each in UUIDS[:2]]


def test_values_of_folders_names_are_text(tmp_path: Path) -> None:
    for name in ("007", "7", "a%2Fb"):
        table(tmp_path, f"user_id={name}/day=3/e.parquet", item_id=["x"], user_id=None)
    assert read_events(tmp_path).users == ["007", "7", "a/b"]


@pytest.mark.parametrize("first", ["a", "z"])
def test_a_column_that_only_some_files_have_is_absent_in_the_others(tmp_path: Path, first: str) -> None:
    table(tmp_path, "m.parquet", item_id=["plain"])
    table(tmp_path, f"{first}.parquet", item_id=["rich"], event_type=["dislike"], value=[1.5], event_id=["e"])
    assert sorted(written_out(read_events(tmp_path)), key=str) == [
        ("u", "plain", S * 1000, DEFAULT_TYPE, None, None),
        ("u", "rich", S * 1000, "dislike", 1.5, "e"),
    ]


def test_a_file_that_has_ratings_and_no_values_counts_as_ratings_beside_one_that_has(tmp_path: Path) -> None:
    table(tmp_path, "a.parquet", item_id=["a"], rating=[4])
    table(tmp_path, "b.parquet", item_id=["b"], value=[2.5])
    assert [row[3:5] for row in written_out(read_events(tmp_path))] == [("rating", 4.0), (DEFAULT_TYPE, 2.5)]


def test_fields_that_nobody_asked_for_may_hold_anything(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    others = ('{"p": 1}', '"none"', '[{"p": ["one"]}]', "null", "1e999")
    path.write_text("".join(f'{{"context": {it}, "user_id": "u", "item_id": "i"}}\n' for it in others))
    assert len(read_events(path)) == len(others)


def test_columns_of_recbole_are_read_without_their_types(tmp_path: Path) -> None:
    path = tmp_path / "log.inter"
    path.write_text(f"user_id:token\titem_id:token\ttimestamp:float\nu\ti\t{S}\n")
    assert written_out(read_events(path)) == [("u", "i", S * 1000, DEFAULT_TYPE, None, None)]


def test_absent_numbers_are_spelled_in_many_ways_and_spaces_around_them_say_nothing(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text(
        f"user_id,item_id,timestamp,value\nu,NA,{S}, 4.5 \nu,b,{S},NaN\nu,c,{S},NULL\nu,d,{S},  \n"
    )
    events = read_events(path)
    assert events.items == ["NA", "b", "c", "d"]
    assert np.isnan(events.value).tolist() == [False, True, True, True]


def test_compressed_files_may_have_any_name_and_be_joined(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    halves = csv_text(rows_of(("u", "a", S))), f'"",u,b,{S},,,\n'.encode()
    path.write_bytes(b"".join(map(gzip.compress, halves)))
    assert read_events(path).items == ["a", "b"]


def refused(path: Path, *messages: str, unit: str = "auto", file: Path | None = None) -> None:
    with pytest.raises(EddyError) as caught:
        read_events(path, unit)
    text = str(caught.value)
    assert text.startswith(f"{file or path}: ")
    assert all(message in text for message in messages), text
    assert "\n" not in text


def line(**changed: Any) -> str:
    return json.dumps({"user_id": "u", "item_id": "i", "timestamp": S, **changed}) + "\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("e.csv", b"user_id,item_id,x\nu,a,1\nu,b\n", "row 2: has 2 cells where the header has 3"),
        ("e.csv", b"user_id,item_id\nu,a\nu,\xe9\n", "row 2: item_id is not UTF-8"),
        ("e.csv", b"user_id,item_id\nu,a\n,b\n", "row 2: user_id is empty"),
        ("e.csv", b"user_id,item_id,user_id\nu,a,v\n", "column user_id is there more than once"),
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


def test_of_a_folder_the_file_and_its_row_are_named(tmp_path: Path) -> None:
    table(tmp_path, "a.parquet", item_id=["a", "b"])
    wrong = table(tmp_path, "b.parquet", item_id=["c", None])
    refused(tmp_path, "row 2: item_id is empty", file=wrong)


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


MS = S * 1000 + 1


@pytest.mark.parametrize(
    ("times", "unit", "message"),
    [
        ([S, MS], "auto", f"row 2: timestamp {MS} is in ms, where row 1 of events.parquet has {S}, in s"),
        ([MS, S], "auto", f"row 2: timestamp {S} is in s, where row 1 of events.parquet has {MS}, in ms"),
        ([S, 0], "auto", "row 2: timestamp 0 is before 1990, where row 1"),
        ([0, S], "auto", f"row 2: timestamp {S} is in s, where row 1 of events.parquet has 0, before 1990"),
        ([S, MS], "ms", f"row 1: timestamp {S} is in s, where row 2 of events.parquet has {MS}, in ms"),
        ([S, MS * 1000], "auto", "row 2: timestamp 1.700000000001e+15 is no time from 1990 to 2100"),
        ([S, 10 * S], "auto", "row 2: timestamp 17000000000 is no time from 1990 to 2100"),
        ([S, MS * 1000], "s", "row 2: timestamp 1.700000000001e+15 is no time between 1970 and 5138 in s"),
        ([1, -1], "auto", "row 2: timestamp -1 is no time"),
    ],
)
def test_mixed_units_are_refused(tmp_path: Path, times: list[int], unit: str, message: str) -> None:
    refused(table(tmp_path, timestamp=times), message, unit=unit)


def test_mixed_units_of_two_files_are_refused(tmp_path: Path) -> None:
    table(tmp_path, "a.parquet", timestamp=[S])
    wrong = table(tmp_path, "b.parquet", timestamp=[S, MS])
    refused(tmp_path, "row 2: timestamp", "where row 1 of a.parquet has", file=wrong)


@pytest.mark.parametrize(
    ("times", "unit", "last"),
    [
        ([60, 27_506_100], "auto", 27_506_100_000),  # a clock that starts at zero
        ([60, 27_506_100], "ms", 27_506_100),
        ([0, S], "ms", S),  # starts at zero too, and goes on for 20 days
        ([400_000_000, S], "s", S * 1000),  # 1982 is before what auto takes for a time
        ([631_152_000, 4_102_444_799], "auto", 4_102_444_799_000),
        ([631_152_000_000, 4_102_444_799_999], "auto", 4_102_444_799_999),
    ],
)
def test_numbers_are_in_the_unit_that_all_of_them_agree_on_or_in_the_given_one(
    tmp_path: Path, times: list[int], unit: str, last: int
) -> None:
    assert read_events(table(tmp_path, timestamp=times), unit).timestamp[-1] == last


def test_dates_need_no_unit_and_may_stand_beside_numbers(tmp_path: Path) -> None:
    table(tmp_path, "a.parquet", timestamp=[S])
    table(tmp_path, "b.parquet", timestamp=pa.array([MS, 0], pa.timestamp("ms", "UTC")))
    table(tmp_path, "c.parquet", timestamp=[datetime.date(2020, 1, 1)])
    assert read_events(tmp_path).timestamp.tolist() == [0, 1_577_836_800_000, S * 1000, MS]


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2023-11-14T22:13:20Z", S * 1000),
        ("2023-11-14 22:13:20.0019", MS),
        ("2023-11-14T23:13:20+01:00", S * 1000),
        ("2023-11-14 16:13:20-06", S * 1000),
        ("2023-11-14 22:13:20 UTC", S * 1000),
        ("2023-11-14", 1_699_920_000_000),
        (f" {S} ", S * 1000),
        ("1.7e9", S * 1000),
    ],
)
def test_times_are_read_from_text(tmp_path: Path, text: str, ms: int) -> None:
    path = tmp_path / "e.csv"
    path.write_text(f'user_id,item_id,timestamp\nu,a,"{text}"\nu,b,2024-01-01\n')
    assert read_events(path).timestamp[0] == ms
