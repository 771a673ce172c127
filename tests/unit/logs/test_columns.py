"""Files as they are in the wild: the same content gives the same events, however it is written down."""

import gzip
import tempfile
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest
from hypothesis import given, settings

from eddy.models.logs.events import DEFAULT_TYPE, read_events
from tests.support.event_files import (
    FORMATS,
    LOGS,
    WHOLE,
    Row,
    S,
    csv_text,
    expected,
    refused,
    rows_of,
    table,
    written_out,
)

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("name", FORMATS)
@given(rows=LOGS)
@settings(max_examples=20)
def test_the_same_content_gives_the_same_events_in_every_format(name: str, rows: list[Row]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert written_out(read_events(FORMATS[name](Path(folder), rows))) == expected(rows)


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
