"""Times in files: numbers in one unit, or dates."""

import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pytest

from eddy.models.logs.events import read_events
from tests.support.event_files import S, refused, table

pytestmark = pytest.mark.unit

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


def test_a_float_that_tells_no_seconds_apart_is_no_time(tmp_path: Path) -> None:
    times = pa.array([60.0, float(S)], pa.float32())
    refused(table(tmp_path, timestamp=times), f"row 2: timestamp is {S} in 32 bits")


def test_days_written_as_numbers_are_no_seconds(tmp_path: Path) -> None:
    path = table(tmp_path, timestamp=[20241231, 20250101])
    refused(path, "row 1: timestamp 20241231 reads as a day of the calendar")
    assert read_events(path, "s").timestamp.tolist() == [20241231_000, 20250101_000]
    assert len(read_events(table(tmp_path, timestamp=[20241231, 20241232]))) == 2


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
