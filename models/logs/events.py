"""Event logs as columns: the dataclass `Events`, and `read_events`, which makes it of a file.

Guarantees: events are in (timestamp, arrival) order, where arrival is the order in the file. Users and items
are numbered by first appearance in that order, so the items that appeared before event t are exactly those
below a certain number.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from eddy.models.errors import EddyError
from eddy.models.event_limits import MAX_ID, MAX_TYPE, MAX_VALUE
from eddy.models.logs.column_store import IN_MEMORY, ColumnStore, slices
from eddy.models.logs.columns import Columns, Part, place_in, read_columns, records
from eddy.models.logs.event_times import event_times
from eddy.models.logs.formats.cells import Kind
from eddy.models.logs.log_share import WHOLE_LOG, LogShare
from eddy.models.logs.names import ABSENT, NameColumn, Names
from eddy.models.logs.order import Rows, first_rows, order_by_key
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
_MAX_POSITION = 1 << 53
"""The greatest whole number up to which a float64 tells neighbours apart."""

_LIMITS = {"user_id": MAX_ID, "item_id": MAX_ID, "event_type": MAX_TYPE, "event_id": MAX_ID}


@dataclass(frozen=True)
class Origin:
    """The files that n events were read from, and their rows."""

    parts: Sequence[Part]
    row: Rows  # [n] each event's row among the rows of all parts


@dataclass(frozen=True)
class Events:
    """n events in (timestamp, arrival) order."""

    user: NDArray[np.int32]  # [n] index into `users`
    item: NDArray[np.int32]  # [n] index into `items`
    timestamp: NDArray[np.int64]  # [n] event time in ms; all 0 without a clock
    type: NDArray[np.int32]  # [n] index into `types`
    value: NDArray[np.float32]  # [n] NaN = absent
    users: Sequence[str]
    items: list[str]
    types: list[str]
    event_id: list[str] | None = None  # [n] "" = absent; None when the log has no such column
    clock: bool = True  # False: only the order of each user's events is known
    source: str = "events"  # for error messages
    origin: Origin | None = None
    store: ColumnStore = IN_MEMORY  # where arrays with an element per event are made

    def __len__(self) -> int:
        return len(self.user)

    def flags(self, rules: EventRules) -> Flags:
        """Which events move states, are targets, are negative: bool[n] each."""
        flags = Flags(*(self.store.empty(len(self), np.bool_) for _ in range(3)))
        for part in slices(len(self)):
            of_part = self.flags_of(part, rules)
            flags.moves[part], flags.target[part] = of_part.moves, of_part.target
            flags.negative[part] = of_part.negative
        return flags

    def flags_of(self, part: slice, rules: EventRules) -> Flags:
        """The same of a slice of the events."""
        return rules.flags(self.types, self.type[part], self.value[part])

    def place(self, event: int) -> str:
        """The file and the row of an event, for error messages."""
        if self.origin is None:
            return self.source
        file, row = place_in(self.origin.parts, int(self.origin.row[event]))
        return f"{file}: row {row}"

    def take(self, rows: NDArray[Any] | slice) -> "Events":
        """The events of these rows (numbers or a mask), in this order; users, items and types keep their
        numbers.
        """
        if not isinstance(rows, slice) and rows.dtype == np.bool_:
            rows = np.flatnonzero(rows)

        def taken(column: NDArray[Any]) -> NDArray[Any]:
            if isinstance(rows, slice):
                return column[rows]
            return self.store.filled(len(rows), column.dtype, lambda part: column[rows[part]])

        ids = self.event_id
        if ids is not None:
            ids = ids[rows] if isinstance(rows, slice) else np.array(ids, object)[rows].tolist()
        columns: dict[str, Any] = {
            name: taken(getattr(self, name)) for name in ("user", "item", "timestamp", "type", "value")
        }
        origin = self.origin and replace(self.origin, row=taken(self.origin.row))
        return replace(self, event_id=ids, origin=origin, **columns)


def items_in(events: Events, rows: slice) -> NDArray[np.bool_]:
    """Which items occur in a slice of the events: bool[items]."""
    occurs = np.zeros(len(events.items), np.bool_)
    for part in slices(rows.stop, begin=rows.start):
        occurs[events.item[part]] = True
    return occurs


def read_events(
    path: Place, time_unit: str = "auto", store: ColumnStore = IN_MEMORY, event_ids: bool = True,
    share: LogShare = WHOLE_LOG,
) -> Events:  # fmt: skip
    """Read user_id, item_id, timestamp (and event_type, value or rating, event_id) from a file or a folder.

    The path is anything that eddy.models.logs.columns reads. Fields keep to eddy.models.event_limits, so that
    what was trained on can be streamed, too. `timestamp` is a date, ISO 8601, or a number in `time_unit`:
    "s", "ms" or "auto" (see eddy.models.logs.event_times). A log without `timestamp` has no clock: the column
    `position` orders it or, without that, the order of its rows.

    store: makes the columns, and all arrays that are made of them. event_ids: whether the column event_id is
    read, which takes memory, and which training does not look at. share: whose events are read, of which
    there may be none where it is not the whole log.

    1. Read the columns, file after file. 2. Refuse what cannot be an event. 3. Sort. 4. Number users, items
    and types by first appearance in this order.

    Errors: EddyError for a file that is missing, unreadable, empty, lacks a column, or holds an absent, too
    long, not finite, negative or impossible value, with the row (counted from 1).
    """
    # 1. Columns.
    path = located(path)
    wanted = {name: kind for name, kind in _WANTED.items() if event_ids or name != "event_id"}
    columns = read_columns(path, wanted, _REQUIRED, store, share)
    n = len(columns)
    if n == 0 and share.is_whole:
        raise EddyError(f"{path}: no events in it; give a file with at least one row")
    # 2. What cannot be an event.
    for name, limit in _LIMITS.items():
        _refuse_length(columns, name, limit)
    clock = "timestamp" in columns
    times = (
        event_times(columns, time_unit)
        if clock
        else store.filled(n, np.int64, lambda rows: np.zeros(rows.stop - rows.start, np.int64))
    )
    value_of, is_rating = _values(columns)
    # 3. The order.
    order = order_by_key(times if clock or "position" not in columns else _positions(columns), store)
    # 4. Numbers.
    user, users = _numbered(columns.names["user_id"], order, store)
    item, items = _numbered(columns.names["item_id"], order, store)
    type_number, types = _numbered(_types(columns, is_rating), order, store)
    event_id = None
    if "event_id" in columns:
        event_id = pc.fill_null(columns.texts["event_id"], "").take(pa.array(order)).to_pylist()
    arrival = columns.arrival
    row = order if arrival is None else store.filled(n, np.int64, lambda rows: arrival[order[rows]])
    return Events(
        user=user, item=item, timestamp=store.filled(n, np.int64, lambda rows: times[order[rows]]),
        type=type_number, value=store.filled(n, np.float32, lambda rows: value_of(order[rows])),
        users=users, items=list(items), types=list(types), event_id=event_id, clock=clock, source=str(path),
        origin=Origin(columns.parts, row), store=store,
    )  # fmt: skip


def _refuse_length(columns: Columns, name: str, limit: int) -> None:
    length = columns.lengths(name)
    if name in _REQUIRED:
        columns.refuse(lambda rows: length(rows) == 0, lambda _: f"{name} is empty; every row needs one")
    columns.refuse(
        lambda rows: length(rows) > limit,
        lambda row: f"{name} has {length(slice(row, row + 1))[0]:,} characters; at most {limit:,} are taken",
    )


def _positions(columns: Columns) -> NDArray[np.float64]:
    """The places of events in a log without a clock. Errors: EddyError for one that is absent or inexact."""
    position = columns.numbers["position"]
    columns.refuse(
        lambda rows: np.isnan(position[rows]),
        lambda _: "position is empty; every row needs one, or the file no such column",
    )
    columns.refuse(
        lambda rows: np.abs(position[rows]) > _MAX_POSITION,
        lambda row: f"position {position[row]:.15g} is too large to be exact; count from 0",
    )
    return position


def _values(
    columns: Columns,
) -> tuple[Callable[[Rows], NDArray[np.float32]], NDArray[np.bool_]]:
    """A look-up of events' values by row, and whether each part's values are ratings, bool[parts]: a file may
    have `rating` instead of `value`.
    """
    parts = columns.parts
    is_rating = np.array(["rating" in part.names and "value" not in part.names for part in parts])
    stop = np.array([part.kept.stop for part in parts])

    def given(rows: Rows) -> NDArray[np.float64]:
        values = np.full(len(rows), np.nan)
        of_rating = is_rating[np.searchsorted(stop, rows, "right")]
        for name, picked in (("rating", of_rating), ("value", ~of_rating)):
            if name in columns:
                values[picked] = columns.numbers[name][rows[picked]]
        return values

    columns.refuse(
        lambda rows: np.isinf(given(np.arange(rows.start, rows.stop))),
        lambda row: (
            f"{'rating' if is_rating[np.searchsorted(stop, row, 'right')] else 'value'} is not a finite "
            "number; correct it or leave it empty"
        ),
    )
    return lambda rows: given(rows).clip(-MAX_VALUE, MAX_VALUE).astype(np.float32), is_rating


def _types(columns: Columns, is_rating: NDArray[np.bool_]) -> NameColumn:
    """The events' types; where none is named, the default of the part."""
    store, n = columns.store, len(columns)
    defaults = pa.array([DEFAULT_TYPE, RATING_TYPE], pa.large_string())
    named = columns.names.get(
        "event_type",
        NameColumn(
            store.filled(n, np.int32, lambda rows: np.full(rows.stop - rows.start, ABSENT)),
            pa.array([], pa.large_string()),
        ),
    )
    joined = pa.concat_arrays([named.names, defaults]).dictionary_encode()
    of_part = joined.indices.to_numpy()[len(named.names) :][is_rating.astype(np.int64)]
    for part, default in zip(columns.parts, of_part, strict=True):
        for rows in slices(part.kept.stop, begin=part.kept.start):
            number = named.number[rows]
            named.number[rows] = np.where(number == ABSENT, default, number)
    return NameColumn(named.number, joined.dictionary)


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
                genres[item_id] = _genres(fields["genres"])
    return Items(title, genres)


def _genres(field: object) -> list[str]:
    """The genres in a field, which is a text, a list or, in files as they are, a number or nothing."""
    if isinstance(field, str):
        return field.split("|")
    given = field if isinstance(field, list) else [field]
    return [str(genre) for genre in given if genre is not None]


def _numbered(column: NameColumn, order: Rows, store: ColumnStore) -> tuple[NDArray[np.int32], Names]:
    """Number the names, taken in `order`, by first appearance: (int32[n], the names)."""
    first = first_rows(lambda part: column.number[order[part]], len(order), len(column.names))
    used = np.flatnonzero(first < len(order))
    by_appearance = used[np.argsort(first[used])]
    new_number = np.zeros(len(first), np.int32)
    new_number[by_appearance] = np.arange(len(used))
    numbers = store.filled(len(order), np.int32, lambda part: new_number[column.number[order[part]]])
    return numbers, Names(column.names.take(pa.array(by_appearance)))
