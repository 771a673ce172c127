"""Event logs as columns: the dataclass `Events`, and `read_events`, which makes it of a file.

Guarantees: events are in (timestamp, arrival) order, where arrival is the order in the file. Users and items
are numbered by first appearance in that order, so the items that appeared before event t are exactly those
below a certain number.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from eddy.models.errors import EddyError
from eddy.models.event_limits import MAX_ID, MAX_TYPE, MAX_VALUE
from eddy.models.logs.columns import Columns, Part, place_in, read_columns, records
from eddy.models.logs.event_times import event_times
from eddy.models.logs.formats.cells import Kind
from eddy.models.rules import EventRules, Flags
from eddy.models.storage import Place, located

DEFAULT_TYPE = "view"
"""The type of an event that names none; in a log with `rating` instead of `value` it is "rating"."""

RATING_TYPE = "rating"

_WANTED = {
    "user_id": Kind.NAME, "item_id": Kind.NAME, "timestamp": Kind.TIME, "position": Kind.NUMBER,
    "event_type": Kind.NAME, "value": Kind.NUMBER, "rating": Kind.NUMBER, "event_id": Kind.TEXT,
}  # fmt: skip
_REQUIRED = ("user_id", "item_id")
_LIMITS = {"user_id": MAX_ID, "item_id": MAX_ID, "event_type": MAX_TYPE, "event_id": MAX_ID}


@dataclass(frozen=True)
class Origin:
    """The files that n events were read from, and their rows."""

    parts: Sequence[Part]
    row: NDArray[np.int64]  # [n] each event's row among the rows of all parts


@dataclass(frozen=True)
class Events:
    """n events in (timestamp, arrival) order."""

    user: NDArray[np.int32]  # [n] index into `users`
    item: NDArray[np.int32]  # [n] index into `items`
    timestamp: NDArray[np.int64]  # [n] event time in ms; all 0 without a clock
    type: NDArray[np.int32]  # [n] index into `types`
    value: NDArray[np.float32]  # [n] NaN = absent
    users: list[str]
    items: list[str]
    types: list[str]
    event_id: list[str] | None = None  # [n] "" = absent; None when the log has no such column
    clock: bool = True  # False: only the order of each user's events is known
    source: str = "events"  # for error messages
    origin: Origin | None = None

    def __len__(self) -> int:
        return len(self.user)

    def flags(self, rules: EventRules) -> Flags:
        """Which events move states, are targets, are negative: bool[n] each."""
        return rules.flags(self.types, self.type, self.value)

    def place(self, event: int) -> str:
        """The file and the row of an event, for error messages."""
        if self.origin is None:
            return self.source
        file, row = place_in(self.origin.parts, int(self.origin.row[event]))
        return f"{file}: row {row}"

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_] | slice) -> "Events":
        """The events of these rows, in this order; users, items and types keep their numbers."""
        ids = self.event_id
        if ids is not None:
            ids = ids[rows] if isinstance(rows, slice) else np.array(ids, object)[rows].tolist()
        columns = {name: getattr(self, name)[rows] for name in ("user", "item", "timestamp", "type", "value")}
        origin = self.origin and replace(self.origin, row=self.origin.row[rows])
        return replace(self, event_id=ids, origin=origin, **columns)


def read_events(path: Place, time_unit: str = "auto") -> Events:
    """Read user_id, item_id, timestamp (and event_type, value or rating, event_id) from a file or a folder.

    The path is anything that eddy.models.logs.columns reads. Fields keep to eddy.models.event_limits, so that
    what was trained on can be streamed, too. `timestamp` is a date, ISO 8601, or a number in `time_unit`:
    "s", "ms" or "auto" (see eddy.models.logs.event_times). A log without `timestamp` has no clock: the column
    `position` orders it or, without that, the order of its rows.

    Errors: EddyError for a file that is missing, unreadable, empty, lacks a column, or holds an absent, too
    long, not finite, negative or impossible value, with the row (counted from 1).
    """
    path = located(path)
    columns = read_columns(path, _WANTED, _REQUIRED)
    n = len(columns)
    if n == 0:
        raise EddyError(f"{path}: no events in it; give a file with at least one row")
    for name, limit in _LIMITS.items():
        _refuse_length(columns, name, limit)
    clock = "timestamp" in columns
    timestamp = event_times(columns, time_unit) if clock else np.zeros(n, np.int64)
    order_by: NDArray[np.float64] | NDArray[np.int64] = timestamp
    if not clock and "position" in columns:
        order_by = columns.numbers["position"]
    order = np.argsort(order_by, kind="stable")

    value, is_rating = _values(columns)
    type_number, types = _types(columns, is_rating, order)
    user, users = _numbered(columns.names["user_id"], order)
    item, items = _numbered(columns.names["item_id"], order)
    event_id = None
    if "event_id" in columns:
        event_id = pc.fill_null(columns.texts["event_id"], "").take(pa.array(order)).to_pylist()
    return Events(
        user=user, item=item, timestamp=timestamp[order], type=type_number, value=value[order], users=users,
        items=items, types=types, event_id=event_id, clock=clock, source=str(path),
        origin=Origin(columns.parts, order),
    )  # fmt: skip


def _refuse_length(columns: Columns, name: str, limit: int) -> None:
    length = columns.lengths(name)
    if name in _REQUIRED:
        columns.refuse(length == 0, lambda _: f"{name} is empty; every row needs one")
    columns.refuse(
        length > limit, lambda row: f"{name} has {length[row]:,} characters; at most {limit:,} are taken"
    )


def _values(columns: Columns) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Each event's value, and whether it is a rating: a file may have `rating` instead of `value`."""
    value, is_rating = np.full(len(columns), np.nan), np.zeros(len(columns), np.bool_)
    for part in columns.parts:
        name = "rating" if "rating" in part.names and "value" not in part.names else "value"
        is_rating[part.rows] = name == "rating"
        if name in columns:
            value[part.rows] = columns.numbers[name][part.rows]
    columns.refuse(
        np.isinf(value),
        lambda row: (
            f"{'rating' if is_rating[row] else 'value'} is not a finite number; correct it or leave it empty"
        ),
    )
    return value.clip(-MAX_VALUE, MAX_VALUE).astype(np.float32), is_rating


def _types(
    columns: Columns, is_rating: NDArray[np.bool_], order: NDArray[np.int64]
) -> tuple[NDArray[np.int32], list[str]]:
    default = pc.if_else(pa.array(is_rating), RATING_TYPE, DEFAULT_TYPE)
    named = (
        pc.coalesce(columns.names["event_type"].dictionary_decode(), default)
        if "event_type" in columns
        else default
    )
    return _numbered(named.dictionary_encode(), order)


@dataclass(frozen=True)
class Items:
    """Titles and genres of items, by item id."""

    title: dict[str, str]
    genres: dict[str, list[str]]


def read_items(path: Place) -> Items:
    """Read item_id and, where present, title and genres ("Action|Drama" or a list), from a file or folder."""
    title: dict[str, str] = {}
    genres: dict[str, list[str]] = {}
    for block in records(path, "item_id"):
        for item_id, fields in zip(block.key.to_pylist(), block.fields, strict=True):
            if name := fields.get("title"):
                title[item_id] = str(name)
            if "genres" in fields:
                of_item = fields["genres"]
                genres[item_id] = of_item.split("|") if isinstance(of_item, str) else list(of_item or ())
    return Items(title, genres)


def _numbered(names: pa.DictionaryArray, order: NDArray[np.int64]) -> tuple[NDArray[np.int32], list[str]]:
    """Number the names, taken in `order`, by first appearance: (int32[n], the names)."""
    codes = names.indices.to_numpy()[order]
    first = np.full(len(names.dictionary), len(codes))
    first[codes[::-1]] = np.arange(len(codes))[::-1]  # of several values for one element the last stays
    used = np.flatnonzero(first < len(codes))
    by_appearance = used[np.argsort(first[used])]
    number = np.zeros(len(first), np.int32)
    number[by_appearance] = np.arange(len(used))
    return number[codes], names.dictionary.take(pa.array(by_appearance)).to_pylist()
