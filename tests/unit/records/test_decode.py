"""Whatever lies on `events`: valid events are applied, everything else is rejected with a reason,
nothing is lost.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eddy.models.event_limits import EARLIEST_MS, MAX_ID, MAX_TYPE, MAX_VALUE
from eddy.models.hashing import type_hash
from eddy.stream.records.admission import MAX_AHEAD_MS, Admission
from eddy.stream.records.dead_letters import dead_letter
from eddy.stream.records.decode import Decoded, decode_events, stretches
from eddy.stream.records.partitioner import Partitioner, partition_of
from tests.support.engines import new_engine, random_version, stored_rows
from tests.support.records import NOW, Record

ONE_PARTITION = Admission()


def event(**fields: Any) -> dict[str, Any]:
    return {"user_id": "u", "item_id": "i", "timestamp": 1_380_000_000_000, **fields}


def record(fields: Any, key: bytes = b"u", offset: int = 0) -> Record:
    return Record(key, json.dumps(fields).encode(), offset)


VALID = [
    event(),
    event(event_type="view", value=4.5, event_id="e-1", context={"page": [1, {"deep": None}]}),
    event(user_id="u", item_id="日本語 \u0000 \U0001f600"),
    event(timestamp=EARLIEST_MS),
    event(timestamp=NOW + MAX_AHEAD_MS),
    event(event_type=None, value=None, event_id=None),
    event(event_type="", event_id=""),
    event(event_type="t" * MAX_TYPE),
    event(value=1e300),
    event(value=-7),
    event(item_id="i" * MAX_ID),
]

INVALID = {
    "missing": {"user_id": "u", "timestamp": 1},
    "missing user": {"item_id": "i", "timestamp": 1},
    "null id": event(item_id=None),
    "number as id": event(item_id=7),
    "empty id": event(item_id=""),
    "long id": event(item_id="i" * (MAX_ID + 1)),
    "negative time": event(timestamp=-1),
    "no time at all": event(timestamp=0),
    "time in seconds": event(timestamp=NOW // 1000),
    "time before the earliest": event(timestamp=EARLIEST_MS - 1),
    "time as text": event(timestamp="2013-01-01"),
    "time as fraction": event(timestamp=1.5),
    "no time": event(timestamp=None),
    "huge time": event(timestamp=10**30),
    "time in the future": event(timestamp=NOW + MAX_AHEAD_MS + 1),
    "value as text": event(value="five"),
    "long type": event(event_type="t" * (MAX_TYPE + 1)),
    "a list": [event()],
    "a number": 5,
    "null": None,
}


@pytest.mark.parametrize("fields", VALID, ids=range(len(VALID)))
def test_a_valid_event_is_taken(fields: dict[str, Any]) -> None:
    found = decode_events([record(fields)], 0, ONE_PARTITION)
    assert (found.events.user, found.events.item) == (["u"], [fields["item_id"]])
    assert not found.rejected
    assert np.isfinite(found.events.value[0]) == (fields.get("value") is not None)


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_event_is_rejected_with_a_reason_and_its_neighbours_are_not(name: str) -> None:
    records = [record(event(), offset=0), record(INVALID[name], offset=1), record(event(), offset=2)]
    found = decode_events(records, 0, ONE_PARTITION)
    assert found.events.offset.tolist() == [0, 2]
    assert [(one.record.offset, bool(one.reason)) for one in found.rejected] == [(1, True)]


def test_an_empty_value_is_no_tombstone_and_is_told_from_one() -> None:
    found = decode_events([Record(b"u", b"", 0)], 0, ONE_PARTITION)
    assert found.erasures == []
    assert "an empty value: a tombstone" in found.rejected[0].reason


RAW = [
    b"",
    b"{",
    b"\xff\xfe",
    b'{"user_id":"u","item_id":"\xff","timestamp":1380000000000}',
    b'{"user_id":"u","item_id":"\\ud800","timestamp":1380000000000}',
    b'{"user_id":"\\ud800","item_id":"i","timestamp":1380000000000}',
    b'{"user_id":"u","item_id":"i","timestamp":1380000000000,"event_id":"\\udfff"}',
    b'{"user_id":"u","item_id":"i","timestamp":1380000000000,"event_type":"\\udfff"}',
    b'{"user_id":"u","item_id":"i","timestamp":1380000000000,"value":NaN}',
    b'{"user_id":"u","item_id":"i","timestamp":1380000000000,"value":1e999}',
    b'{"user_id":"u","item_id":"i","timestamp":1380000000000}{"user_id":"u","item_id":"j","timestamp":1380000000001}',
    b'{"user_id":"u","item_id":"i",\n"timestamp":',
    b'{"user_id":"u","item_id":"i","timestamp":1380000000000,"context":' + b"[" * 100_000,
    b'{"user_id":"u","item_id":"i","timestamp":1380000000000,"context":'
    + b'{"a":' * 50_000
    + b"1"
    + b"}" * 50_001,
    b"[" * 100_000,
]


@pytest.mark.parametrize("value", RAW, ids=range(len(RAW)))
def test_raw_bytes_never_raise_and_never_touch_their_neighbours(value: bytes) -> None:
    records = [record(event(), offset=0), Record(b"u", value, 1), record(event(), offset=2)]
    found = decode_events(records, 0, ONE_PARTITION)
    offsets = found.events.offset.tolist()
    assert {0, 2} <= set(offsets)
    assert len(offsets) + len(found.rejected) == 3
    for one in found.rejected:
        assert one.reason.encode()


def test_values_that_would_join_into_valid_lines_stay_apart() -> None:
    whole = json.dumps(event()).encode()
    halves = [whole + b"\n" + whole, b'{"user_id":"u",', b'"item_id":"i","timestamp":1380000000000}']
    found = decode_events([Record(b"u", value, i) for i, value in enumerate(halves)], 0, ONE_PARTITION)
    assert (len(found.events), len(found.rejected)) == (0, 3)


def test_the_key_must_be_the_user_id() -> None:
    wrong = [record(event(), key=b"someone else"), Record(None, json.dumps(event()).encode(), 1)]
    found = decode_events(wrong, 0, ONE_PARTITION)
    assert [one.reason for one in found.rejected] == ["the record's key is not its user_id"] * 2


def test_absent_null_and_empty_are_the_same_for_every_optional_field() -> None:
    absent, null, empty = (
        decode_events([record(event(**fields))], 0, ONE_PARTITION).events
        for fields in ({}, {"event_type": None, "event_id": None}, {"event_type": "", "event_id": ""})
    )
    for batch in (absent, null, empty):
        assert batch.type.tolist() == [type_hash("view")]
        assert batch.event_id.tolist() == [0]


def test_a_value_is_taken_as_the_nearest_that_a_row_can_hold() -> None:
    sent = [1e300, -1e300, 70_000, 65_510, 4.5, 0]
    found = decode_events(
        [record(event(value=value), offset=i) for i, value in enumerate(sent)], 0, ONE_PARTITION
    )
    assert found.events.value.tolist() == [MAX_VALUE, -MAX_VALUE, MAX_VALUE, MAX_VALUE, 4.5, 0]


def test_a_time_in_seconds_is_refused_and_the_reason_says_so() -> None:
    found = decode_events([record(event(timestamp=1_700_000_000))], 0, ONE_PARTITION)
    (refused,) = found.rejected
    assert "timestamp 1700000000 is 1970-01-20 in ms, before 1990-01-01: seconds where" in refused.reason
    assert "EDDY_EARLIEST_EVENT" in refused.reason


@pytest.mark.parametrize("time", [0, 1_700_000_000])
def test_a_clock_that_begins_at_zero_is_a_setting(time: int) -> None:
    found = decode_events([record(event(timestamp=time))], 0, Admission(earliest=0))
    assert found.events.time.tolist() == [time]


@pytest.mark.parametrize("unit", [1_000, 1_000_000])
def test_a_time_in_micro_or_nanoseconds_is_refused_and_the_reason_says_so(unit: int) -> None:
    (refused,) = decode_events([record(event(timestamp=NOW * unit))], 0, ONE_PARTITION).rejected
    assert "micro- or nanoseconds where milliseconds are meant?" in refused.reason


def test_how_far_ahead_an_event_is_counts_from_its_own_append() -> None:
    ahead = [NOW + MAX_AHEAD_MS, NOW + MAX_AHEAD_MS + 1, NOW + MAX_AHEAD_MS + 1]
    appended = [NOW, NOW, NOW + 1]
    records = [
        Record(b"u", json.dumps(event(timestamp=time)).encode(), i, at)
        for i, (time, at) in enumerate(zip(ahead, appended, strict=True))
    ]
    found = decode_events(records, 0, ONE_PARTITION)
    assert found.events.offset.tolist() == [0, 2]
    assert f"ahead of the record's append time ({NOW} ms)" in found.rejected[0].reason


def test_an_empty_value_erases_its_key_and_what_is_no_user_id_erases_nobody() -> None:
    keys = [b"u", None, b"", b"\xff", b"\xed\xa0\x80", b"u" * (MAX_ID + 1), b"u" * MAX_ID]
    found = decode_events([Record(key, None, i) for i, key in enumerate(keys)], 0, ONE_PARTITION)
    assert [(one.user, one.offset) for one in found.erasures] == [("u", 0), ("u" * MAX_ID, 6)]
    assert [one.record.offset for one in found.rejected] == [1, 2, 3, 4, 5]
    assert all("a tombstone's key is the user_id" in one.reason for one in found.rejected)


USERS = [f"u-{i}" for i in range(40)]


def in_partition(
    partition: int, partitioner: Partitioner, erasing: bool = False
) -> tuple[Decoded, list[int]]:
    """40 users' events, or tombstones, in one of four partitions; and which belong there."""
    keys = [user.encode() for user in USERS]
    records = [
        Record(user.encode(), None if erasing else json.dumps(event(user_id=user)).encode(), i)
        for i, user in enumerate(USERS)
    ]
    home = np.flatnonzero(partition_of(keys, 4, partitioner) == partition).tolist()
    assert 0 < len(home) < 40
    return decode_events(records, partition, Admission(4, partitioner)), home


@pytest.mark.parametrize("partitioner", ["murmur2", "crc32"])
def test_an_event_in_a_wrong_partition_is_refused_and_its_neighbours_are_not(
    partitioner: Partitioner,
) -> None:
    found, home = in_partition(2, partitioner)
    assert found.events.offset.tolist() == home
    assert [one.record.offset for one in found.rejected] == [i for i in range(40) if i not in home]
    assert all(f"wrong partition: 2, but {partitioner}" in one.reason for one in found.rejected)
    assert all(one.misplaced for one in found.rejected)


@pytest.mark.parametrize("partitioner", ["murmur2", "crc32"])
def test_a_tombstone_in_a_wrong_partition_erases_nobody_and_says_so(partitioner: Partitioner) -> None:
    found, home = in_partition(1, partitioner, erasing=True)
    assert [one.user for one in found.erasures] == [USERS[i] for i in home]
    assert [one.record.offset for one in found.rejected] == [i for i in range(40) if i not in home]
    assert all(one.reason.startswith("nobody was erased; in the wrong partition") for one in found.rejected)


@given(kinds=st.lists(st.sampled_from("eet"), max_size=30), split=st.integers(0, 30))
def test_between_two_tombstones_every_event_takes_its_turn(kinds: list[str], split: int) -> None:
    def records(user: str) -> list[Record]:
        key = user.encode()
        return [
            Record(key, None, i) if kind == "t" else record(event(user_id=user), key, i)
            for i, kind in enumerate(kinds)
        ]

    two, (first, second) = Admission(2), ("u-2", "u-0")  # at home in partitions 0 and 1
    parts = [decode_events(records(first)[:split], 0, two), decode_events(records(second)[split:], 1, two)]
    seen: dict[int, list[int | str]] = {0: [], 1: []}
    for batches, erased in stretches(parts):
        for one in batches:
            for partition, offset in zip(one.partition.tolist(), one.offset.tolist(), strict=True):
                seen[partition].append(offset)
        for partition, user in erased:
            seen[partition].append(user)
    turns = [[user if kind == "t" else i for i, kind in enumerate(kinds)] for user in (first, second)]
    assert seen == {0: turns[0][:split], 1: turns[1][split:]}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
ODD = st.fixed_dictionaries(
    {},
    optional={
        "user_id": st.just("u") | JSON,
        "item_id": st.text(max_size=5) | JSON,
        "timestamp": st.integers(-5, NOW * 2) | JSON,
        "event_type": st.sampled_from(["view", "rating"]) | JSON,
        "value": st.floats() | JSON,
        "event_id": st.text(max_size=3) | JSON,
        "context": JSON,
    },
)
VALUES = st.one_of(ODD.map(lambda fields: json.dumps(fields).encode()), st.binary(max_size=60), st.none())


@settings(max_examples=150)
@given(values=st.lists(VALUES, max_size=40))
@example(values=[b"{}\n{}", b"{}"])
def test_every_record_comes_out_once_whatever_it_holds(values: list[bytes | None]) -> None:
    records = [Record(b"u", value, i) for i, value in enumerate(values)]
    alone = [decode_events([one], 0, ONE_PARTITION) for one in records]
    together = decode_events(records, 0, ONE_PARTITION)
    assert together.events.offset.tolist() == [
        offset for one in alone for offset in one.events.offset.tolist()
    ]
    offsets = [*together.events.offset.tolist(), *(e.offset for e in together.erasures)]
    assert sorted([*offsets, *(one.record.offset for one in together.rejected)]) == list(range(len(values)))


def fuzzed(rng: np.random.Generator, n: int) -> list[Record]:
    """Valid events, events broken in one place, and noise."""
    users, records = [f"u{i}" for i in range(50)], list[Record]()
    for offset in range(n):
        user = users[int(rng.integers(50))]
        fields: dict[str, Any] = event(
            user_id=user, item_id=f"item-{rng.integers(300)}", timestamp=int(NOW - rng.integers(0, 10**9))
        )
        value = json.dumps(fields).encode()
        kind = rng.random()
        if kind < 0.1:
            wrong = list(INVALID.values())[int(rng.integers(len(INVALID)))]
            value = json.dumps(wrong).encode()
        elif kind < 0.2:
            noise = bytearray(value)
            for at in rng.integers(0, len(noise), int(rng.integers(1, 4))):
                noise[at] = int(rng.integers(256))
            value = bytes(noise)
        elif kind < 0.25:
            value = rng.bytes(int(rng.integers(1, 100)))
        records.append(Record(user.encode(), value, offset))
    return records


def chunked(records: Sequence[Record], rng: np.random.Generator) -> list[Sequence[Record]]:
    cuts = [0, *np.sort(rng.integers(0, len(records), 60)).tolist(), len(records)]
    return [records[start:end] for start, end in pairwise(cuts) if end > start]


def test_100_000_fuzzed_events_are_applied_or_rejected_and_none_is_lost(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    records = fuzzed(rng, 100_000)
    engine = new_engine(random_version(tmp_path, hidden=4), wall=NOW)
    applied, letters = 0, set[bytes]()
    for chunk in chunked(records, rng):
        decoded = decode_events(chunk, 0, ONE_PARTITION)
        outcome = engine.apply([decoded.events])
        applied += outcome.applied
        letters |= {dead_letter("events", 0, one)["key"] for one in decoded.rejected}
        assert all(one.reason for one in decoded.rejected)
        assert not outcome.refused
    assert applied + len(letters) == len(records)
    assert 15_000 < len(letters) < 25_000
    rows = stored_rows(engine)
    assert int(rows.applied.sum()) == applied
    assert np.isfinite(rows.hidden).all()
