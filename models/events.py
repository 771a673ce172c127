"""Event logs as columns: the dataclass `Events` and `read_events`, which makes one from a file.

Guarantees: events are in (timestamp, arrival) order, where arrival is the order in the file; users and items are
numbered by first appearance in that order, so the items known before event t are exactly those below some number.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.errors import EddyError
from models.files import path_error, read_columns
from models.rules import EventRules, Flags

DEFAULT_TYPE = "view"
"""The type of an event that names none (a log with a `rating` column instead of `value` has the type "rating")."""

MILLISECONDS_FROM = 10**11
"""With time_unit="auto", integer times below this (1973 in ms, 5138 in s) throughout the file are taken as seconds."""

_MS_PER_UNIT = {"s": 1000, "ms": 1}
_LATEST_MS = 10**14
_OPTIONAL = ("timestamp", "position", "event_type", "value", "rating", "event_id")


@dataclass(frozen=True)
class Events:
    """n events in (timestamp, arrival) order."""

    user: NDArray[np.int32]  # [n] index into `users`
    item: NDArray[np.int32]  # [n] index into `items`
    timestamp: NDArray[np.int64]  # [n] event time in ms; all 0 without a clock
    type: NDArray[np.int16]  # [n] index into `types`
    value: NDArray[np.float32]  # [n] NaN = absent
    users: list[str]
    items: list[str]
    types: list[str]
    event_id: list[str] | None = None  # [n] "" = absent; None when the log has no such column
    clock: bool = True  # False: only the order of each user's events is known
    source: str = "events"  # for error messages

    def __len__(self) -> int:
        return len(self.user)

    def flags(self, rules: EventRules) -> Flags:
        """Which events move states, are targets, are negative: bool[n] each."""
        return rules.flags(self.types, self.type, self.value)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_] | slice) -> "Events":
        """The events of these rows; users, items and types keep their numbers."""
        ids = self.event_id
        if ids is not None:
            ids = ids[rows] if isinstance(rows, slice) else np.array(ids, object)[rows].tolist()
        columns = {name: getattr(self, name)[rows] for name in ("user", "item", "timestamp", "type", "value")}
        return replace(self, event_id=ids, **columns)


def read_events(path: str | Path, time_unit: str = "auto") -> Events:
    """Read user_id, item_id, timestamp (and event_type, value or rating, event_id) from a file or a folder.

    Takes Parquet (a file, or a folder of them, hive-partitioned or not), CSV with a header, and JSON lines; ids of any
    scalar type become strings. `timestamp` is an Arrow/ISO timestamp, or a number in `time_unit`: "s", "ms" or "auto"
    (see MILLISECONDS_FROM). A file without `timestamp` has no clock: `position` orders it, or else its rows do.

    Errors: EddyError for a file that is missing, unreadable, empty, lacks a column, or holds a null, NaN, negative or
    impossible value, with the row (counted from 1).
    """
    path = Path(path)
    table = read_columns(path, required=("user_id", "item_id"), optional=_OPTIONAL)
    if time_unit not in ("auto", *_MS_PER_UNIT):
        raise EddyError(f"time unit {time_unit!r} is not known; use auto, s or ms")
    if table.num_rows == 0:
        raise EddyError(f"{path}: no events in it; give a file with at least one row")
    clock = "timestamp" in table.column_names
    timestamp = _timestamps(table["timestamp"], time_unit, path) if clock else np.zeros(table.num_rows, np.int64)
    order_by = timestamp if clock or "position" not in table.column_names else _numbers(table, "position", path)
    order = np.argsort(order_by, kind="stable")

    value, default_type = np.full(table.num_rows, np.nan, np.float32), DEFAULT_TYPE
    if "value" in table.column_names:
        value = _values(table, "value", path)
    elif "rating" in table.column_names:
        value, default_type = _values(table, "rating", path), "rating"
    type_column = pa.repeat(default_type, table.num_rows)
    if "event_type" in table.column_names:
        type_column = pc.fill_null(_strings(table["event_type"], "event_type", path), default_type)
    user, users = _numbered(_ids(table["user_id"], "user_id", path), order)
    item, items = _numbered(_ids(table["item_id"], "item_id", path), order)
    type_, types = _numbered(type_column, order)
    event_id = None
    if "event_id" in table.column_names:
        event_id = pc.fill_null(_strings(table["event_id"], "event_id", path), "").take(pa.array(order)).to_pylist()
    return Events(
        user=user.astype(np.int32), item=item.astype(np.int32), timestamp=timestamp[order],
        type=type_.astype(np.int16), value=value[order], users=users, items=items, types=types,
        event_id=event_id, clock=clock, source=str(path),
    )  # fmt: skip


def concat(parts: Sequence[Events]) -> Events:
    """Several logs as one, merged by time (ties: the earlier part first), users and items numbered anew.

    Errors: EddyError when only some of the parts have a clock.
    """
    if len({part.clock for part in parts}) != 1:
        raise EddyError(f"{parts[0].source} and others: cannot merge a log that has a clock with one that has none")
    order = np.argsort(np.concatenate([part.timestamp for part in parts]), kind="stable")

    def column(name: str) -> tuple[NDArray[np.int64], list[str]]:
        tables = [pa.array(getattr(part, f"{name}s")).take(pa.array(getattr(part, name))) for part in parts]
        return _numbered(pa.chunked_array(tables, pa.string()), order)

    user, users = column("user")
    item, items = column("item")
    type_, types = column("type")
    event_id = None
    if any(part.event_id is not None for part in parts):
        joined = [id_ for part in parts for id_ in part.event_id or [""] * len(part)]
        event_id = [joined[row] for row in order]
    return Events(
        user=user.astype(np.int32), item=item.astype(np.int32),
        timestamp=np.concatenate([part.timestamp for part in parts])[order], type=type_.astype(np.int16),
        value=np.concatenate([part.value for part in parts])[order], users=users, items=items, types=types,
        event_id=event_id, clock=parts[0].clock, source=parts[0].source,
    )  # fmt: skip


@dataclass(frozen=True)
class Items:
    """What is known about items: titles and genres by item id."""

    title: dict[str, str]
    genres: dict[str, list[str]]


def read_items(path: str | Path) -> Items:
    """Read item_id and, where present, title and genres ("Action|Drama" or a list) from Parquet, CSV or JSON lines."""
    path = Path(path)
    table = read_columns(path, required=("item_id",), optional=("title", "genres"))
    ids = _ids(table["item_id"], "item_id", path).to_pylist()
    title: dict[str, str] = {}
    genres: dict[str, list[str]] = {}
    if "title" in table.column_names:
        title = {i: t for i, t in zip(ids, _strings(table["title"], "title", path).to_pylist(), strict=True) if t}
    if "genres" in table.column_names:
        for id_, found in zip(ids, table["genres"].to_pylist(), strict=True):
            genres[id_] = found.split("|") if isinstance(found, str) else list(found or ())
    return Items(title, genres)


def _numbered(column: pa.Array | pa.ChunkedArray, order: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[str]]:
    """Number the strings of `column`, taken in `order`, by first appearance: (int[n], the strings)."""
    encoded = pa.chunked_array([column.take(pa.array(order))] if isinstance(column, pa.Array) else
                               column.take(pa.array(order)).chunks, pa.string()).combine_chunks().dictionary_encode()  # fmt: skip
    return encoded.indices.to_numpy(), encoded.dictionary.to_pylist()


def _strings(column: pa.ChunkedArray, name: str, path: Path) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    try:
        return column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise path_error(path, f"column {name} is {column.type}, which cannot be read as text; write strings or numbers") from None


def _ids(column: pa.ChunkedArray, name: str, path: Path) -> pa.ChunkedArray:
    text = _strings(column, name, path)
    empty = pc.fill_null(pc.equal(text, ""), True).to_numpy()
    if empty.any():
        raise path_error(path, f"row {int(empty.argmax()) + 1}: {name} is empty; every event needs one")
    return text


def _numbers(table: pa.Table, name: str, path: Path) -> NDArray[np.float64]:
    try:
        return np.asarray(table[name].cast(pa.float64()).to_numpy())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise path_error(path, f"column {name} is {table[name].type}; it must hold numbers") from None


def _values(table: pa.Table, name: str, path: Path) -> NDArray[np.float32]:
    """A column of values: null and NaN mean absent."""
    values = _numbers(table, name, path).astype(np.float32)
    if np.isinf(values).any():
        raise path_error(path, f"row {int(np.isinf(values).argmax()) + 1}: {name} is not a finite number")
    return values


def _timestamps(column: pa.ChunkedArray, time_unit: str, path: Path) -> NDArray[np.int64]:
    """Event times in ms, int64[n]: none null, negative, or further than the year 5138."""
    if column.null_count:
        row = int(column.is_null().to_numpy().argmax()) + 1
        raise path_error(path, f"row {row}: timestamp is empty; every event needs one, or drop the column")
    if pa.types.is_temporal(column.type):
        try:
            column = column.cast(pa.timestamp("ms"), safe=False)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            raise path_error(path, f"column timestamp is {column.type}, which is no moment in time") from None
        times = column.cast(pa.int64()).to_numpy()
    else:
        times = _integer_times(column, time_unit, path)
    bad = (times < 0) | (times >= _LATEST_MS)
    if bad.any():
        row = int(bad.argmax())
        raise path_error(path, f"row {row + 1}: timestamp {column[row].as_py()} is not a time after 1970 in s or ms")
    return np.ascontiguousarray(times)


def _integer_times(column: pa.ChunkedArray, time_unit: str, path: Path) -> NDArray[np.int64]:
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise path_error(path, f"column timestamp is {column.type}; write integers in s or ms, or Arrow or ISO timestamps")
    numbers = column.to_numpy()
    if not np.isfinite(numbers).all():
        raise path_error(path, f"row {int((~np.isfinite(numbers)).argmax()) + 1}: timestamp is not a finite number")
    unit = time_unit
    if unit == "auto":
        unit = "s" if numbers.max() < MILLISECONDS_FROM else "ms"
    if numbers.max() >= _LATEST_MS:
        return numbers.clip(-1, _LATEST_MS).astype(np.int64)  # refused by the caller, which names the row
    return np.rint(numbers * _MS_PER_UNIT[unit]).astype(np.int64)
