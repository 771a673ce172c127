"""Logs that an earlier version of Eddy wrote are read as they are, and an export goes on with them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eddy.models.errors import EddyError
from eddy.models.logs.events import read_events
from eddy.stream.event_log.table import SCHEMA
from tests.support.event_logs import (
    DAY_MS,
    FOUR,
    MARCH_1_2013,
    TOPIC_ID,
    event,
    killed_at_step,
    next_offsets,
    opened,
    parts,
    places,
)

pytestmark = pytest.mark.unit

EVENTS = [("ada", 1, 0, 0), ("lea", 3, 0, 0), ("ada", 1, 1, 1), ("eve", 0, 0, 1), ("lea", 3, 1, 0)]
"""(user, partition, offset, day)"""


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A log of two exports, with a part that the position does not cover, and an erasure to be done."""
    for number, rows in enumerate((EVENTS[:3], EVENTS[3:], EVENTS[:1])):
        for day in (0, 1):
            of_day = [row for row in rows if row[3] == day]
            if of_day:
                write_part(tmp_path / f"day=2013-03-0{day + 1}" / f"part-{number:08d}.parquet", of_day)
    position = {
        "topic": "events", "topic_id": TOPIC_ID, "part": 2, "offsets": {"0": 1, "1": 3, "3": 2},
        "erasures": [[1, 2, "ada"]],
    }  # fmt: skip
    (tmp_path / "_position.json").write_text(json.dumps(position))
    return tmp_path


def write_part(path: Path, rows: list[tuple[str, int, int, int]]) -> None:
    path.parent.mkdir(exist_ok=True)
    columns = {
        "user_id": [row[0] for row in rows],
        "item_id": ["heat"] * len(rows),
        "timestamp": pa.array(
            [MARCH_1_2013 + row[3] * DAY_MS for row in rows], SCHEMA.field("timestamp").type
        ),
        "event_type": ["view"] * len(rows),
        "value": pa.nulls(len(rows), pa.float32()),
        "event_id": pa.nulls(len(rows), pa.string()),
        "partition": pa.array([row[1] for row in rows], pa.int32()),
        "offset": [row[2] for row in rows],
    }
    pq.write_table(pa.table(columns, SCHEMA), path)


def test_training_reads_it_whole(earlier: Path) -> None:
    assert sorted(read_events(earlier).users) == ["ada", "eve", "lea"]
    assert len(read_events(earlier)) == 6  # with the part that the next export removes


def test_an_export_goes_on_with_it(earlier: Path) -> None:
    with opened(earlier) as event_log:
        assert event_log.next_offset(1) == 3
        event_log.append({3: [event(2, user="lea")]}, FOUR)
        assert event_log.forget() == 2
    assert places(earlier) == [(0, 0), (3, 0), (3, 1), (3, 2)]
    assert next_offsets(earlier) == {0: 1, 1: 3, 2: 0, 3: 3}
    assert len(read_events(earlier)) == 4
    assert not (earlier / "_position.json").exists()
    assert not list(earlier.glob("day=*/part-*"))
    assert all(part.path.split("/")[1] != "bucket=0001" for part in parts(earlier))


def test_wherever_its_conversion_is_killed_it_is_whole_for_readers_and_for_the_next_export(
    earlier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(killed_at: int | None) -> int:
        """Returns how many steps there were."""
        with killed_at_step(monkeypatch, killed_at) as steps, opened(earlier):
            pass
        return len(steps)

    killed_at = 1
    while convert(killed_at) == killed_at:
        events = read_events(earlier)
        assert len(events) == (6 if (earlier / "_position.json").exists() else 5)
        killed_at += 2
    assert killed_at > 10
    assert places(earlier) == [(0, 0), (1, 0), (1, 1), (3, 0), (3, 1)]


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"topic": "t", "topic_id": "i", "part": 0, "offsets": {"a": 1}}']
)
def test_a_position_that_cannot_be_read_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "_position.json").write_text(content)
    with pytest.raises(EddyError, match=r"_position\.json: unreadable"), opened(tmp_path):
        pass


def test_the_log_of_another_topic_is_left_as_it_is(earlier: Path) -> None:
    before = sorted(earlier.rglob("*.parquet"))
    with pytest.raises(EddyError, match="another topic"), opened(earlier, topic_id="another"):
        pass
    assert sorted(earlier.rglob("*.parquet")) == before


def test_files_without_a_position_are_refused(earlier: Path) -> None:
    (earlier / "_position.json").unlink()
    with pytest.raises(EddyError, match="has files but no manifest"), opened(earlier):
        pass
