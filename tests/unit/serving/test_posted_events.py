"""What is accepted of posted events, and what becomes of it."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eddy.models.event_limits import EARLIEST_MS, MAX_ID, MAX_TYPE
from eddy.models.untrusted import Unreadable
from eddy.serving.posted_events import (
    CLOCK_SKEW_MS,
    MAX_EVENT_BYTES,
    PostedEvents,
    check_events,
    event_schema,
    split_body,
)
from eddy.stream.records.admission import MAX_AHEAD_MS, Admission
from eddy.stream.records.decode import decode_events
from eddy.stream.records.partitioner import partition_of

NOW = 1_795_896_000_000
ADMISSION = Admission(partitions=4)
EVENT = {"user_id": "anna", "item_id": "0816692", "timestamp": NOW - 5}


def check(*events: object) -> PostedEvents:
    return check_events(split_body(json.dumps(list(events)).encode()), NOW, ADMISSION)


def accepted_fields(event: object) -> dict[str, Any]:
    """The record that an accepted event becomes."""
    posted = check(event)
    assert posted.rejected == []
    fields: dict[str, Any] = json.loads(posted.accepted[0].value)
    return fields


def reason_for(event: object) -> str:
    posted = check(event)
    assert posted.accepted == []
    return posted.rejected[0].reason


ids = st.text(max_size=3) | st.sampled_from(["x" * MAX_ID, "x" * (MAX_ID + 1), "ü/?\u2028\x00", "\n"])
times = st.integers(NOW - 10, NOW + 10) | st.sampled_from(
    [0, -1, EARLIEST_MS - 1, EARLIEST_MS, NOW + MAX_AHEAD_MS - CLOCK_SKEW_MS, NOW + MAX_AHEAD_MS, 1 << 63]
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
anything = st.none() | st.booleans() | st.integers() | FLOATS | ids | st.lists(st.integers(), max_size=2)
events = st.fixed_dictionaries(
    {},
    optional={
        "user_id": ids | anything,
        "item_id": ids | anything,
        "timestamp": times | anything,
        "event_type": st.sampled_from(["view", "", "y" * MAX_TYPE, "y" * (MAX_TYPE + 1)]) | anything,
        "value": FLOATS | anything,
        "event_id": ids | anything,
        "context": st.dictionaries(ids, anything, max_size=2),
    },
)


@settings(max_examples=300)
@given(posted=st.lists(events | anything, max_size=5), skew=st.integers(-CLOCK_SKEW_MS, CLOCK_SKEW_MS))
def test_what_is_accepted_is_accepted_by_a_worker_too(posted: list[Any], skew: int) -> None:
    try:
        values = split_body(json.dumps(posted).encode())
    except Unreadable:  # NaN, infinity and lone surrogates are no JSON
        return
    checked = check_events(values, NOW, ADMISSION)
    assert sorted(
        [event.number for event in checked.accepted] + [rejection.number for rejection in checked.rejected]
    ) == list(range(len(posted)))
    for event in checked.accepted:
        (partition,) = partition_of([event.key], ADMISSION.partitions).tolist()
        record: Any = SimpleNamespace(key=event.key, value=event.value, offset=7, timestamp=NOW + skew)
        decoded = decode_events([record], partition, ADMISSION)
        assert decoded.rejected == []
        assert decoded.events.user == [event.key.decode()]


def test_a_body_is_one_event_a_list_or_an_object_with_a_list() -> None:
    text = json.dumps(EVENT, separators=(",", ":")).encode()
    assert split_body(json.dumps(EVENT, indent=2).encode()) == [text]
    assert split_body(json.dumps([EVENT, EVENT], indent=2).encode()) == [text, text]
    assert split_body(json.dumps({"events": [EVENT]}).encode()) == [text]
    assert split_body(b" [ ] ") == []


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\xff", b"3", b'"events"', b"null", b"[", b"[" * 100_000, b'{"events": 3}', b'{"events": {}}',
        b'{"events": [], "more": 1}', b"[{}] x", b"[{},]",
    ],
    ids=lambda body: body[:20],
)  # fmt: skip
def test_a_body_of_another_form_is_refused_as_a_whole(body: bytes) -> None:
    with pytest.raises(Unreadable):
        split_body(body)


def test_an_event_without_a_timestamp_happens_now() -> None:
    event = {"user_id": "anna", "item_id": "x", "context": {"page": 3}}
    assert accepted_fields(event) == {**event, "timestamp": NOW}
    assert accepted_fields({**event, "timestamp": None}) == {**event, "timestamp": NOW}


def test_the_time_is_all_that_is_added_to_an_event_without_one() -> None:
    event = b'{"user_id":"anna","item_id":"x","price":19.90,"ratio":0.12345678901234567890}'
    posted = check_events([event], NOW, ADMISSION)
    assert posted.accepted[0].value == event[:-1] + b',"timestamp":%d}' % NOW


def test_fields_that_eddy_does_not_know_stay_as_they_are() -> None:
    event = {**EVENT, "context": {"a": [1, {"b": None}]}, "n": 2**70}
    assert accepted_fields(event) == event


def test_each_event_is_judged_alone_and_named_by_its_number() -> None:
    posted = check(EVENT, 3, {**EVENT, "item_id": ""}, EVENT, {**EVENT, "timestamp": 4})
    assert [event.number for event in posted.accepted] == [0, 3]
    assert [rejection.number for rejection in posted.rejected] == [1, 2, 4]
    assert "seconds where milliseconds" in posted.rejected[2].reason


def test_an_event_far_ahead_is_refused_with_room_for_a_slow_clock_of_the_broker() -> None:
    latest = NOW - CLOCK_SKEW_MS + MAX_AHEAD_MS
    assert accepted_fields({**EVENT, "timestamp": latest})["timestamp"] == latest
    assert "ahead" in reason_for({**EVENT, "timestamp": latest + 1})


def test_an_event_that_kafka_might_refuse_for_its_size_is_refused() -> None:
    assert "larger than" in reason_for({**EVENT, "context": "x" * MAX_EVENT_BYTES})


def test_the_described_event_needs_no_timestamp() -> None:
    schema = event_schema()
    assert schema["required"] == ["user_id", "item_id"]
    assert schema["properties"]["user_id"]["maxLength"] == MAX_ID
