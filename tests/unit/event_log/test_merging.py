"""Small parts become large ones, in the order of their events, and readers do not notice."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eddy.models.errors import EddyError
from eddy.models.logs.events import read_events
from eddy.models.logs.log_files import log_files
from eddy.models.logs.manifests import Part
from eddy.stream.event_log import bucket, merging
from eddy.stream.event_log.merging import PARTS, parts_to_merge
from tests.support.event_logs import (
    DAY_MS,
    MARCH_1_2013,
    ONE_PARTITION,
    Written,
    append,
    event,
    killed_at_step,
    logged,
    opened,
    parts,
    places,
)

pytestmark = pytest.mark.unit


def part(rows: int, first_offset: int, day: int = 1) -> Part:
    path = f"day=2013-03-{day:02d}/bucket=0000/part-{first_offset:012d}-1a2b3c4d.parquet"
    return Part(path, rows, rows * 50, 0, 0, first_offset)


def merged(parts: list[Part]) -> list[Part]:
    while run := parts_to_merge(parts):
        at = parts.index(run[0])
        parts[at : at + len(run)] = [part(sum(each.rows for each in run), run[0].first_offset)]
    return parts


@given(st.lists(st.integers(1, 5_000), max_size=300))
def test_however_parts_come_few_are_left_and_their_order_stays(sizes: list[int]) -> None:
    day: list[Part] = []
    for offset, rows in enumerate(sizes):
        day = merged([*day, part(rows, offset)])
    assert sum(each.rows for each in day) == sum(sizes)
    assert [each.first_offset for each in day] == sorted(each.first_offset for each in day)
    assert len(day) < 5 * PARTS


def test_an_event_is_written_again_a_few_times_only() -> None:
    written, day = 0, list[Part]()
    for offset in range(4_096):
        day.append(part(1, offset))
        while run := parts_to_merge(day):
            written += sum(each.rows for each in run)
            day = merged(day)
    assert written <= 5 * 4_096
    assert len(day) < 4 * PARTS


def test_parts_of_different_days_and_large_ones_are_not_merged() -> None:
    assert parts_to_merge([part(1, day, day + 1) for day in range(2 * PARTS)]) == []
    large = merging.LARGEST_BYTES // 50 + 1
    assert parts_to_merge([part(large, offset) for offset in range(2 * PARTS)]) == []


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A log with a day of many parts, and one of few."""
    for offset in range(PARTS):
        append(tmp_path, [event(offset, f"item-{offset}", user=f"user-{offset}")])
    append(tmp_path, [event(PARTS, timestamp=MARCH_1_2013 + DAY_MS)])
    return tmp_path


def test_merged_parts_hold_the_same_events_in_the_same_order(small: Path) -> None:
    before = logged(small)
    with opened(small) as event_log:
        assert event_log.merge_once() == PARTS
        assert event_log.merge_once() == 0
    assert logged(small) == before
    assert [each.rows for each in parts(small)] == [PARTS, 1]
    assert [file.rows for file in log_files(small)] == [PARTS, 1]
    assert len(read_events(small)) == PARTS + 1


def test_who_listed_the_files_before_a_merge_still_finds_them_and_later_they_go(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = log_files(small)
    with opened(small) as event_log:
        event_log.merge_once()
        event_log.tidy()
    assert all(file.location.is_file() for file in listed)
    with opened(small) as event_log:  # they are no leftovers
        event_log.tidy()
    assert all(file.location.is_file() for file in listed)
    monkeypatch.setattr(bucket, "KEPT_MS", -1)
    with opened(small) as event_log:
        event_log.tidy()
    assert len(list(small.rglob("*.parquet"))) == 2
    assert len(places(small)) == PARTS + 1


def test_an_erased_user_leaves_replaced_files_at_once_too_and_readers_find_all_files(small: Path) -> None:
    listed = log_files(small)
    with opened(small) as event_log:
        event_log.merge_once()
        event_log.append({0: [Written(20, None, b"user-3")]}, ONE_PARTITION)
        assert event_log.forget() == 1
    assert not any(b"user-3" in path.read_bytes() for path in small.rglob("*") if path.is_file())
    assert all(file.location.is_file() for file in listed)
    assert len(places(small)) == PARTS


def test_an_erasure_is_finished_after_a_kill_while_replaced_files_were_removed(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(small) as event_log:
        event_log.merge_once()
        event_log.append({0: [Written(20, None, b"user-3")]}, ONE_PARTITION)
        monkeypatch.setattr(bucket, "KEPT_MS", -1)
        with killed_at_step(monkeypatch, 1) as steps:
            event_log.tidy()
        assert len(steps) == 1
    with opened(small) as event_log:
        assert event_log.forget() == 1
        event_log.tidy()
    assert len(list(small.rglob("*.parquet"))) == 2
    assert len(places(small)) == PARTS


def test_a_day_of_the_log_has_each_event_once_while_replaced_files_are_there(small: Path) -> None:
    with opened(small) as event_log:
        assert event_log.merge_once() == PARTS
    day = small / "day=2013-03-01"
    assert len(read_events(day)) == len(read_events(day / "bucket=0000")) == PARTS
    assert [(file.rows, file.folders) for file in log_files(day)] == [(PARTS, ("bucket=0000",))]
    with pytest.raises(EddyError, match="no such file"):
        read_events(small / "day=2013-04-01")
