"""Whatever lies on `events`: valid events are applied, everything else is rejected with a reason,
nothing is lost.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stream.dead_letters import dead_letter
from stream.events import MAX_AHEAD_MS, decode_events, rounds
from stream.schema import MAX_ID_BYTES
from tests.engines import new_engine, random_version, stored_rows

NOW = 1_700_000_000_000


@dataclass(frozen=True)
class Record:
    key: bytes | None
    value: bytes | None
    offset: int = 0


def event(**fields: Any) -> dict[str, Any]:
    return {"user_id": "u", "item_id": "i", "timestamp": 1_380_000_000_000, **fields}


def record(fields: Any, key: bytes = b"u", offset: int = 0) -> Record:
    return Record(key, json.dumps(fields).encode(), offset)


VALID = [
    event(),
    event(event_type="view", value=4.5, event_id="e-1", context={"page": [1, {"deep": None}]}),
    event(user_id="u", item_id="日本語 \u0000 \U0001f600"),
    event(timestamp=0),
    event(timestamp=NOW + MAX_AHEAD_MS),
    event(value=None, event_id=None),
    event(value=1e300),
    event(value=-7),
    event(item_id="i" * MAX_ID_BYTES),
]

INVALID = {
    "missing": {"user_id": "u", "timestamp": 1},
    "missing user": {"item_id": "i", "timestamp": 1},
    "null id": event(item_id=None),
    "number as id": event(item_id=7),
    "empty id": event(item_id=""),
    "long id": event(item_id="i" * (MAX_ID_BYTES + 1)),
    "negative time": event(timestamp=-1),
    "time as text": event(timestamp="2013-01-01"),
    "time as fraction": event(timestamp=1.5),
    "no time": event(timestamp=None),
    "huge time": event(timestamp=10**30),
    "time in the future": event(timestamp=NOW + MAX_AHEAD_MS + 1),
    "value as text": event(value="five"),
    "empty type": event(event_type=""),
    "a list": [event()],
    "a number": 5,
    "null": None,
}


@pytest.mark.parametrize("fields", VALID, ids=range(len(VALID)))
def test_a_valid_event_is_taken(fields: dict[str, Any]) -> None:
    found = decode_events([record(fields)], 0, NOW)
    assert (found.batch.user, found.batch.item) == (["u"], [fields["item_id"]])
    assert not found.rejected
    assert np.isfinite(found.batch.value[0]) == (fields.get("value") is not None)


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_event_is_rejected_with_a_reason_and_its_neighbours_are_not(name: str) -> None:
    records = [record(event(), offset=0), record(INVALID[name], offset=1), record(event(), offset=2)]
    found = decode_events(records, 0, NOW)
    assert found.batch.offset.tolist() == [0, 2]
    assert [(one.record.offset, bool(one.reason)) for one in found.rejected] == [(1, True)]


RAW = [
    b"",
    b"{",
    b"\xff\xfe",
    b'{"user_id":"u","item_id":"\xff","timestamp":1}',
    b'{"user_id":"u","item_id":"\\ud800","timestamp":1}',
    b'{"user_id":"\\ud800","item_id":"i","timestamp":1}',
    b'{"user_id":"u","item_id":"i","timestamp":1,"event_id":"\\udfff"}',
    b'{"user_id":"u","item_id":"i","timestamp":1,"event_type":"\\udfff"}',
    b'{"user_id":"u","item_id":"i","timestamp":1,"value":NaN}',
    b'{"user_id":"u","item_id":"i","timestamp":1,"value":1e999}',
    b'{"user_id":"u","item_id":"i","timestamp":1}{"user_id":"u","item_id":"j","timestamp":2}',
    b'{"user_id":"u","item_id":"i",\n"timestamp":',
    b'{"user_id":"u","item_id":"i","timestamp":1,"context":' + b"[" * 100_000,
    b'{"user_id":"u","item_id":"i","timestamp":1,"context":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001,
    b"[" * 100_000,
]


@pytest.mark.parametrize("value", RAW, ids=range(len(RAW)))
def test_raw_bytes_never_raise_and_never_touch_their_neighbours(value: bytes) -> None:
    records = [record(event(), offset=0), Record(b"u", value, 1), record(event(), offset=2)]
    found = decode_events(records, 0, NOW)
    offsets = found.batch.offset.tolist()
    assert {0, 2} <= set(offsets)
    assert len(offsets) + len(found.rejected) == 3
    for one in found.rejected:
        assert one.reason.encode()


def test_values_that_would_join_into_valid_lines_stay_apart() -> None:
    whole = json.dumps(event()).encode()
    halves = [whole + b"\n" + whole, b'{"user_id":"u",', b'"item_id":"i","timestamp":1}']
    found = decode_events([Record(b"u", value, i) for i, value in enumerate(halves)], 0, NOW)
    assert (len(found.batch), len(found.rejected)) == (0, 3)


def test_the_key_must_be_the_user_id() -> None:
    wrong = [record(event(), key=b"someone else"), Record(None, json.dumps(event()).encode(), 1)]
    found = decode_events(wrong, 0, NOW)
    assert [one.reason for one in found.rejected] == ["the record's key is not its user_id"] * 2


def test_an_empty_value_erases_its_key_and_an_empty_key_erases_nobody() -> None:
    found = decode_events([Record(b"u", None, 4), Record(None, None, 5), Record(b"\xff", None, 6)], 0, NOW)
    assert [(one.user, one.offset) for one in found.erasures] == [("u", 4)]
    assert [one.record.offset for one in found.rejected] == [5, 6]


@given(kinds=st.lists(st.sampled_from("eet"), max_size=30), split=st.integers(0, 30))
def test_between_two_tombstones_every_event_takes_its_turn(kinds: list[str], split: int) -> None:
    records = [Record(b"u", None, i) if k == "t" else record(event(), offset=i) for i, k in enumerate(kinds)]
    parts = [decode_events(records[:split], 0, NOW), decode_events(records[split:], 1, NOW)]
    seen: dict[int, list[int | str]] = {0: [], 1: []}
    for batches, erased in rounds(parts):
        for one in batches:
            seen[one.partition] += one.offset.tolist()
        for partition, user in erased:
            seen[partition].append(user)
    numbered = ["u" if kind == "t" else i for i, kind in enumerate(kinds)]
    assert seen == {0: numbered[:split], 1: numbered[split:]}


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


@settings(max_examples=150, deadline=None)
@given(values=st.lists(VALUES, max_size=40))
@example(values=[b"{}\n{}", b"{}"])
def test_every_record_comes_out_once_whatever_it_holds(values: list[bytes | None]) -> None:
    records = [Record(b"u", value, i) for i, value in enumerate(values)]
    alone = [decode_events([one], 0, NOW) for one in records]
    together = decode_events(records, 0, NOW)
    assert together.batch.offset.tolist() == [offset for one in alone for offset in one.batch.offset.tolist()]
    offsets = [*together.batch.offset.tolist(), *(e.offset for e in together.erasures)]
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
        decoded = decode_events(chunk, 0, NOW)
        outcome = engine.apply([decoded.batch])
        applied += outcome.applied
        letters |= {dead_letter("events", 0, one)["key"] for one in decoded.rejected}
        assert all(one.reason for one in decoded.rejected)
        assert not outcome.refused
    assert applied + len(letters) == len(records)
    assert 15_000 < len(letters) < 25_000
    rows = stored_rows(engine)
    assert int(rows.applied.sum()) == applied
    assert np.isfinite(rows.hidden).all()
