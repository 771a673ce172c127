"""From the records of a user's own topic to events, by a mapping of fields such as
`user_id=uid,item_id=product.sku,timestamp=ts`.

Values are JSON, bare or behind the frame that Confluent's JSON Schema serializer puts before it.

Guarantee: whatever a record holds, it becomes either an event that `events` takes, or a reason why it cannot.
Only one check is left to the readers of `events`, who know when an event was appended: whether its time lies
in the future.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import msgspec

from eddy.models.errors import EddyError
from eddy.models.event_limits import EARLIEST_MS
from eddy.models.logs.events import DEFAULT_TYPE
from eddy.models.untrusted import Unreadable, decoded
from eddy.stream.records.admission import date_of
from eddy.stream.records.schema import Event

TimeUnit = Literal["ms", "s", "iso"]

REQUIRED = ("user_id", "item_id", "timestamp")
OPTIONAL = ("event_type", "value", "event_id")
_EXAMPLE = "for example user_id=uid,item_id=product.sku,timestamp=ts"

_LAST_MS = 253_402_300_799_999
"""The end of the year 9999, the last that ISO 8601 can write."""

_ABSENT = (None, "")

_MAGIC, _FRAME_BYTES = b"\0", 5
"""Confluent's serializers write a zero byte and the four bytes of a schema's id before each value. No JSON
begins like this.
"""

_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Unmappable(Exception):
    """A record cannot be mapped to an event; the text is the reason."""


@dataclass(frozen=True)
class FieldMap:
    """Where the fields of an event are in a source record."""

    paths: Mapping[str, tuple[str, ...]]
    """by field of `eddy.stream.records.schema.Event`: the names on the way to it, from the outermost object
    """
    time_unit: TimeUnit = "ms"
    event_type: str = DEFAULT_TYPE
    """the type of records whose type is not mapped, absent, null or empty"""
    earliest: int = EARLIEST_MS
    """times before this one, in ms, are refused"""

    def event(self, value: bytes | None, source: str) -> Event:
        """The event of a record's value; `source` becomes its event_id if the record has none.

        Errors: Unmappable.
        """
        if value is None:
            raise Unmappable("empty value")
        framed = value[:1] == _MAGIC and len(value) > _FRAME_BYTES
        try:
            record = decoded(_decode, value[_FRAME_BYTES:] if framed else value)
        except Unreadable as reason:
            if framed:
                schema = int.from_bytes(value[1:_FRAME_BYTES], "big")
                raise Unmappable(
                    f"framed for a schema registry (magic byte 0, schema id {schema}), and no JSON object "
                    "follows but Avro or Protobuf, say: only JSON can be read"
                ) from None
            raise Unmappable(f"not a JSON object ({reason})") from None
        mapped = {name: _look_up(record, path) for name, path in self.paths.items()}
        for name in REQUIRED:
            if mapped[name] is None:
                raise Unmappable(f"no {name}: field {'.'.join(self.paths[name])} is absent or null")
        event_type, event_id = mapped.get("event_type"), mapped.get("event_id")
        fields = {
            "user_id": self._text("user_id", mapped["user_id"]),
            "item_id": self._text("item_id", mapped["item_id"]),
            "timestamp": self._time(mapped["timestamp"]),
            "event_type": self._text("event_type", event_type)
            if event_type not in _ABSENT
            else self.event_type,
            "value": mapped.get("value"),
            "event_id": self._text("event_id", event_id) if event_id not in _ABSENT else source,
        }
        try:
            return msgspec.convert(fields, Event)
        except msgspec.ValidationError as error:
            raise Unmappable(str(error)) from None

    def _text(self, name: str, value: object) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        raise Unmappable(f"{name}: field {'.'.join(self.paths[name])} is neither text nor a whole number")

    def _time(self, value: object) -> int:
        """Milliseconds since 1970; a time of day without a zone is UTC."""
        ms = self._milliseconds(value)
        if ms < self.earliest:
            field = f"field {'.'.join(self.paths['timestamp'])}"
            raise Unmappable(
                f"timestamp: {field} is before {date_of(self.earliest)} in {self.time_unit}: is --time-unit "
                "right? (EDDY_EARLIEST_EVENT says what is too early)"
            )
        return ms

    def _milliseconds(self, value: object) -> int:
        field = f"field {'.'.join(self.paths['timestamp'])}"
        if self.time_unit == "iso":
            try:
                time = datetime.fromisoformat(value)  # type: ignore[arg-type]
            except (TypeError, ValueError):
                raise Unmappable(f"timestamp: {field} is not ISO 8601") from None
            return round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Unmappable(f"timestamp: {field} is not a number")
        ms = value * 1000 if self.time_unit == "s" else value
        if not 0 <= ms <= _LAST_MS:  # also what is not finite
            raise Unmappable(f"timestamp: {field} is before 1970 or no time at all in {self.time_unit}")
        return round(ms)


def _look_up(record: dict[str, Any], path: tuple[str, ...]) -> Any:
    """The value at the end of a path; None where the path cannot be followed to its end."""
    value: Any = record
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def parse_map(
    text: str, time_unit: str = "ms", event_type: str = DEFAULT_TYPE, earliest: int = EARLIEST_MS
) -> FieldMap:
    """Read a mapping as written on the command line. Errors: EddyError naming the part that is wrong."""
    paths: dict[str, tuple[str, ...]] = {}
    for part in text.split(","):
        name, equals, path = (piece.strip() for piece in part.partition("="))
        if not (name and equals and path) or "" in path.split("."):
            raise EddyError(f"--map: {part.strip()!r} is not of the form name=field; {_EXAMPLE}")
        if name not in (*REQUIRED, *OPTIONAL):
            raise EddyError(f"--map: an event has no {name!r}, but {', '.join((*REQUIRED, *OPTIONAL))}")
        if name in paths:
            raise EddyError(f"--map: {name} is given twice")
        paths[name] = tuple(path.split("."))
    missing = [name for name in REQUIRED if name not in paths]
    if missing:
        raise EddyError(f"--map: {', '.join(missing)} missing; {_EXAMPLE}")
    if time_unit not in get_args(TimeUnit):
        raise EddyError(f"--time-unit: {time_unit!r} is none of {', '.join(get_args(TimeUnit))}")
    return FieldMap(paths, time_unit, event_type, earliest)  # type: ignore[arg-type]


__all__ = ["FieldMap", "Unmappable", "parse_map"]
