"""A log that workers would refuse is refused before any of it is written."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from eddy.models.errors import EddyError
from eddy.models.logs.events import read_events
from eddy.stream.feed import feed
from eddy.stream.records.settings import load_settings


@pytest.mark.parametrize("times", [",timestamp", ",position"])
def test_a_log_whose_clock_begins_at_zero_or_that_has_none_is_refused_in_one_line(
    tmp_path: Path, times: str
) -> None:
    file = tmp_path / "zero.csv"
    file.write_text(f"user_id,item_id{times}\nada,heat,0\nada,alien,5\n")
    with pytest.raises(
        EddyError, match=r"2 of 2 events are before 1990-01-01.*EDDY_EARLIEST_EVENT=0"
    ) as told:
        asyncio.run(feed(load_settings(), read_events(file)))
    assert "\n" not in str(told.value)


def test_with_the_setting_it_goes_on_to_the_cluster(tmp_path: Path) -> None:
    file = tmp_path / "zero.csv"
    file.write_text("user_id,item_id,timestamp\nada,heat,0\n")
    with pytest.raises(EddyError, match="no Kafka cluster is named"):
        asyncio.run(feed(load_settings(earliest_event=0), read_events(file)))


def test_a_time_that_has_not_come_is_refused_with_its_file_and_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp\nada,heat,2020-01-01\n")
    (tmp_path / "b.csv").write_text(
        "user_id,item_id,timestamp\nada,heat,2020-01-01\nada,alien,2098-01-01\nada,heat,2020-01-01\n"
    )
    with pytest.raises(EddyError, match=r"b\.csv: row 2: timestamp 4039372800000 is more than an hour ahead"):
        asyncio.run(feed(load_settings(), read_events(tmp_path)))
