"""One event's life: from a file through replay, a worker's decoder and the exported log into replay again."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eddy.models.event_limits import EARLIEST_MS, MAX_ID, MAX_TYPE, MAX_VALUE
from eddy.models.logs.events import Events, read_events
from eddy.stream.event_log.table import events_table
from eddy.stream.feed import event_messages
from eddy.stream.records.admission import Admission
from eddy.stream.records.decode import decode_events
from tests.support.event_files import FORMATS, NAMES, Row, expected, written_out
from tests.support.records import Record

pytestmark = pytest.mark.unit

APPENDED_MS = 1_800_000_000_000


IDS = NAMES | st.sampled_from(["é" * MAX_ID, "\U0001f600", "\u2028", "\ufeff", "007", "\x01"])
LOGS = st.lists(
    st.fixed_dictionaries(
        {
            "user_id": IDS,
            "item_id": IDS,
            "timestamp": st.integers(EARLIEST_MS // 1000, APPENDED_MS // 1000),
            "event_type": st.none() | NAMES | st.just("t" * MAX_TYPE),
            "value": st.none()
            | st.sampled_from([MAX_VALUE, -MAX_VALUE, 65_519.0, 65_520.0, 1e300, -1e300, 0.1, 5e-324, -0.0])
            | st.floats(allow_nan=False, allow_infinity=False),
            "event_id": st.none() | IDS,
        }
    ),
    min_size=1,
    max_size=5,
)


def replayed(events: Events) -> list[Record]:
    messages = event_messages(events, np.arange(len(events)))
    return [Record(key, value, offset, APPENDED_MS) for offset, (key, value) in enumerate(messages)]


def exported(records: Sequence[Record], folder: Path) -> Path:
    table, _ = events_table(list(records), 0, Admission())
    pq.write_table(table, folder / "part-00000000.parquet")
    return folder


@given(rows=LOGS, name=st.sampled_from([name for name in FORMATS if name != "typed parquet"]))
@settings(max_examples=100)
def test_an_event_is_the_same_after_replay_export_and_replay_again(rows: list[Row], name: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        events = read_events(FORMATS[name](Path(place), rows))
        records = replayed(events)
        log = Path(place) / "exported"
        log.mkdir()
        again = read_events(exported(records, log))
    assert written_out(events) == written_out(again) == expected(rows)
    assert replayed(again) == records
    decoded = decode_events(records, 0, Admission())
    assert not decoded.rejected
    assert (decoded.events.user, decoded.events.item) == (
        [row[0] for row in expected(rows)],
        [row[1] for row in expected(rows)],
    )
    assert np.isfinite(decoded.events.value).tolist() == [row[4] is not None for row in expected(rows)]
    assert (decoded.events.event_id != 0).tolist() == [row[5] is not None for row in expected(rows)]


RAW: list[dict[str, Any]] = [
    {"event_id": None}, {"event_id": ""}, {"event_type": None}, {"event_type": ""}, {"value": None},
    {"value": 1.7976931348623157e308}, {"value": -(10**300)}, {"value": 65_520}, {"timestamp": EARLIEST_MS},
    {"user_id": "u" * MAX_ID}, {"event_id": "e" * MAX_ID}, {"context": {"deep": [1]}},
]  # fmt: skip


@pytest.mark.parametrize("fields", RAW, ids=str)
def test_what_a_worker_takes_can_be_exported_read_and_replayed(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    sent = {"user_id": "u", "item_id": "i", "timestamp": 1_700_000_000_000, **fields}
    record = Record(sent["user_id"].encode(), msgspec.json.encode(sent), 0, APPENDED_MS)
    assert not decode_events([record], 0, Admission()).rejected
    records = replayed(read_events(exported([record], tmp_path)))
    assert not decode_events(records, 0, Admission()).rejected
    again, first = (decode_events(each, 0, Admission()).events for each in (records, [record]))
    assert (again.user, again.item, again.time.tolist()) == (first.user, first.item, first.time.tolist())
    assert (again.type.tolist(), again.event_id.tolist()) == (first.type.tolist(), first.event_id.tolist())
    np.testing.assert_array_equal(again.value, first.value)
