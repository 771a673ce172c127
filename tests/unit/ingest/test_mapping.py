"""Field mappings: what `eddy ingest --map` accepts, and what becomes of every kind of record."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eddy.models.errors import EddyError
from eddy.stream.ingest.mapping import FieldMap, Unmappable, parse_map
from eddy.stream.records.schema import Event

PLAIN = "user_id=uid,item_id=sku,timestamp=ts"
FULL = PLAIN + ",event_type=what,value=stars,event_id=id"
TIME = 1_362_062_307_000
RECORD = {"uid": "u1", "sku": "i1", "ts": TIME}

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def mapped(record: object, text: str = PLAIN, time_unit: str = "ms", **options: Any) -> Event:
    return parse_map(text, time_unit, **options).event(msgspec.json.encode(record), "T:0:7")


def test_an_event_without_an_id_gets_that_of_its_source_record() -> None:
    assert mapped(RECORD) == Event("u1", "i1", TIME, event_id="T:0:7")


def test_every_field_of_an_event_can_be_mapped() -> None:
    record = {**RECORD, "what": "rating", "stars": 4, "id": "e-1"}
    assert mapped(record, FULL) == Event("u1", "i1", TIME, "rating", 4.0, "e-1")


@pytest.mark.parametrize("absent", [{}, {"what": None, "stars": None, "id": None}, {"what": "", "id": ""}])
def test_optional_fields_that_are_absent_null_or_empty_fall_back(absent: dict[str, object]) -> None:
    assert mapped({**RECORD, **absent}, FULL, event_type="like") == Event(
        "u1", "i1", TIME, "like", event_id="T:0:7"
    )


def test_dots_go_into_nested_objects() -> None:
    record = {"who": {"user": {"id": "u1"}}, "sku": "i1", "ts": TIME}
    assert mapped(record, "user_id=who.user.id,item_id=sku,timestamp=ts").user_id == "u1"


def test_ids_may_be_whole_numbers() -> None:
    event = mapped({"uid": 17, "sku": 2**40, "ts": TIME})
    assert (event.user_id, event.item_id) == ("17", "1099511627776")


@pytest.mark.parametrize(
    ("time_unit", "written", "ms"),
    [
        ("ms", 1_362_062_307_000, 1_362_062_307_000),
        ("ms", 1_362_062_307_000.0, 1_362_062_307_000),
        ("s", 1_362_062_307, 1_362_062_307_000),
        ("s", 1_362_062_307.25, 1_362_062_307_250),
        ("iso", "2013-02-28T14:38:27Z", 1_362_062_307_000),
        ("iso", "2013-02-28T14:38:27.250", 1_362_062_307_250),
        ("iso", "2013-02-28T15:38:27+01:00", 1_362_062_307_000),
    ],
)
def test_times_become_milliseconds_and_a_time_without_a_zone_is_utc(
    time_unit: str, written: object, ms: int
) -> None:
    assert mapped({**RECORD, "ts": written}, time_unit=time_unit).timestamp == ms


@pytest.mark.parametrize(
    ("change", "time_unit", "reason"),
    [
        ({"uid": None}, "ms", "no user_id: field uid is absent or null"),
        ({"sku": ""}, "ms", r"length >= 1 - at `\$\.item_id`"),
        ({"uid": True}, "ms", "user_id: field uid is neither text nor a whole number"),
        ({"uid": ["u1"]}, "ms", "user_id: field uid is neither text"),
        ({"ts": "yesterday"}, "ms", "timestamp: field ts is not a number"),
        ({"ts": "yesterday"}, "iso", "timestamp: field ts is not ISO 8601"),
        ({"ts": 5}, "iso", "timestamp: field ts is not ISO 8601"),
        ({"ts": -1}, "ms", "before 1970 or no time at all in ms"),
        ({"ts": 1e306}, "s", "before 1970 or no time at all in s"),
        ({"ts": 10**30}, "ms", "before 1970 or no time at all in ms"),
        ({"ts": "1969-12-31T23:59:59Z"}, "iso", "field ts is before 1990-01-01 in iso"),
        ({"ts": TIME // 1000}, "ms", "before 1990-01-01 in ms: is --time-unit right"),
        ({"ts": 631_151_999}, "s", "before 1990-01-01 in s"),
        ({"uid": "u" * 2_000}, "ms", "length <= 1024"),
    ],
)
def test_a_record_that_cannot_be_mapped_says_why(
    change: dict[str, object], time_unit: str, reason: str
) -> None:
    with pytest.raises(Unmappable, match=reason):
        mapped({**RECORD, **change}, time_unit=time_unit)


def test_a_source_whose_clock_begins_at_zero_is_a_setting() -> None:
    assert mapped({**RECORD, "ts": 0}, earliest=0).timestamp == 0


@pytest.mark.parametrize("number", ["1e999", "1" + "0" * 400])
def test_a_value_that_is_no_finite_number_is_refused(number: str) -> None:
    value = b'{"uid": "u1", "sku": "i1", "ts": 1362062307000, "stars": %s}' % number.encode()
    with pytest.raises(Unmappable, match="Number out of range"):
        parse_map(FULL).event(value, "T:0:7")


@pytest.mark.parametrize("value", [None, b"", b"{", b"[1]", b'"text"', b"\xff\xfe", b'{"uid": "\xff"}'])
def test_what_is_no_json_object_is_refused(value: bytes | None) -> None:
    with pytest.raises(Unmappable, match=r"empty value|not a JSON object"):
        parse_map(PLAIN).event(value, "T:0:7")


def test_the_frame_of_a_schema_registry_before_json_is_passed_over() -> None:
    framed = b"\0\0\0\1\7" + msgspec.json.encode(RECORD)
    assert parse_map(PLAIN).event(framed, "T:0:7") == mapped(RECORD)


def test_what_is_framed_and_no_json_is_called_by_its_name() -> None:
    avro = b"\0\0\0\1\7\4u1\4i1"
    with pytest.raises(Unmappable, match=r"schema registry \(magic byte 0, schema id 263\)"):
        parse_map(PLAIN).event(avro, "T:0:7")


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first text drawn builds Unicode's tables
@given(record=st.dictionaries(st.sampled_from(["uid", "sku", "ts", "what", "stars", "id"]), anything))
def test_whatever_a_record_holds_it_is_an_event_or_refused(record: dict[str, object]) -> None:
    for time_unit in ("ms", "s", "iso"):
        try:
            event = mapped(record, FULL, time_unit)
        except Unmappable:
            continue
        assert msgspec.json.decode(msgspec.json.encode(event), type=Event) == event


@given(value=st.binary())
def test_whatever_bytes_a_record_has_it_is_an_event_or_refused(value: bytes) -> None:
    mapping: FieldMap = parse_map(PLAIN)
    try:
        mapping.event(value, "T:0:7")
    except Unmappable:
        return


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user_id", "'user_id' is not of the form name=field"),
        ("user_id=,item_id=b,timestamp=c", "'user_id=' is not of the form"),
        ("user_id=a..b,item_id=b,timestamp=c", "'user_id=a..b' is not of the form"),
        ("userid=a,item_id=b,timestamp=c", "an event has no 'userid'"),
        ("user_id=a,user_id=b,timestamp=c", "user_id is given twice"),
        ("user_id=a", "item_id, timestamp missing"),
    ],
)
def test_a_mapping_that_cannot_be_read_is_one_line_that_says_why(text: str, message: str) -> None:
    with pytest.raises(EddyError, match=message):
        parse_map(text)


def test_an_unknown_time_unit_is_refused() -> None:
    with pytest.raises(EddyError, match="'us' is none of ms, s, iso"):
        parse_map(PLAIN, "us")
