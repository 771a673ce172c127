"""Events as callers post them: one by one either accepted, by the rule that workers apply to records of
`events`, or rejected with the reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgspec

from eddy.models.untrusted import FAILURES, Unreadable, decoded, reason_of
from eddy.stream.records.admission import Admission
from eddy.stream.records.decode import accept_events
from eddy.stream.records.schema import Event, Id

MAX_EVENTS = 10_000
"""The most events of one request."""

MAX_EVENT_BYTES = 64 << 10
"""The largest event: far below the largest message of `events`, so that Kafka can never refuse one."""

CLOCK_SKEW_MS = 60_000
"""The broker, whose clock stamps an event, may be so far behind this server: an event that is close to an
hour ahead is refused here already.
"""


class Rejection(NamedTuple):
    """Why an event of a request is not accepted."""

    number: int
    """of the event in the request, from 0 on"""
    reason: str


class AcceptedEvent(NamedTuple):
    """An event of a request as a record of `events`."""

    number: int
    key: bytes
    value: bytes


@dataclass(frozen=True)
class PostedEvents:
    """What a request holds, each part in the order of the request."""

    accepted: list[AcceptedEvent]
    rejected: list[Rejection]


@dataclass(frozen=True, slots=True)
class _Record:
    """What would be consumed, with the event's index for the offset."""

    key: bytes
    value: bytes
    offset: int
    timestamp: int


class _Outline(msgspec.Struct, gc=False):
    """What must be known of an event before it can be a record."""

    user_id: Id
    timestamp: object = None


_outline = msgspec.json.Decoder(_Outline).decode
_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


def split_body(body: bytes) -> list[bytes]:
    """The events of a body in JSON: one event, a list of events, or {"events": a list of events}. White space
    is left out, as workers read records without line breaks faster.

    Errors: Unreadable for a body that has none of these forms.
    """
    compact = decoded(lambda data: msgspec.json.format(data, indent=-1), body)
    if compact.startswith(b"{"):
        parts = decoded(_object, compact)
        if "events" not in parts or "user_id" in parts:
            return [compact]
        if len(parts) > 1:
            raise Unreadable(f"{sorted(parts.keys() - {'events'})[0]}: there is no such field beside events")
        compact = bytes(parts["events"])
    if not compact.startswith(b"["):
        raise Unreadable("an event is a JSON object; several are a list, or an object with a list of events")
    return [bytes(part) for part in decoded(_list, compact)]


def check_events(values: Sequence[bytes], now: int, admission: Admission) -> PostedEvents:
    """Tell the events among `values` (JSON) from the others. An event without a timestamp happens `now`, ms
    since 1970. Fields that Eddy does not know stay as they are.
    """
    # 1. Records, as far as an event can be one.
    records: list[_Record] = []
    rejected: list[Rejection] = []
    for index, value in enumerate(values):
        try:
            records.append(_record(index, value, now))
        except FAILURES as error:
            rejected.append(Rejection(index, reason_of(error)))
    # 2. The rule of workers. The partition follows from the key, so that none can be wrong.
    _, accepted, _, refused = accept_events(records, 0, replace(admission, partitions=1))
    rejected += [Rejection(refusal.record.offset, refusal.reason) for refusal in refused]
    return PostedEvents(
        [AcceptedEvent(record.offset, record.key or b"", record.value or b"") for record in accepted],
        sorted(rejected),
    )


def _record(index: int, value: bytes, now: int) -> _Record:
    """Errors: those in FAILURES when the value is no event."""
    if len(value) > MAX_EVENT_BYTES:
        raise ValueError(f"larger than {MAX_EVENT_BYTES} bytes")
    outline = _outline(value)
    if outline.timestamp is None:
        value = msgspec.json.encode({**_object(value), "timestamp": now})
    return _Record(outline.user_id.encode(), value, index, now - CLOCK_SKEW_MS)


def event_schema() -> dict[str, Any]:
    """The JSON schema of one posted event: a record of `events`, but that its timestamp may be left out."""
    schema: dict[str, Any] = msgspec.json.schema(Event)["$defs"]["Event"]
    schema["required"] = [name for name in schema["required"] if name != "timestamp"]
    return schema
