"""Event logs as columns: the dataclass `Events` and `read_events`, which makes one from a file.

Guarantees: events are in (timestamp, arrival) order, where arrival is the order in the file; users and items
are numbered by first appearance in that order, so the items known before event t are exactly those below some
number.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.errors import EddyError
from models.files import ids, numbers, read_columns, strings, times, values
from models.rules import EventRules, Flags

DEFAULT_TYPE = "view"
"""The type of an event that names none; in a log with `rating` instead of `value` it is "rating"."""

_OPTIONAL = ("timestamp", "position", "event_type", "value", "rating", "event_id")


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

    Takes Parquet (a file, or a folder of them, hive-partitioned or not), CSV with a header, and JSON lines;
    ids of any scalar type become strings. `timestamp` is an Arrow/ISO timestamp, or a number in `time_unit`:
    "s", "ms" or "auto" (see models.files). A file without `timestamp` has no clock: `position` orders it, or
    else its rows do.

    Errors: EddyError for a file that is missing, unreadable, empty, lacks a column, or holds a null, NaN,
    negative or impossible value, with the row (counted from 1).
    """
    path = Path(path)
    table = read_columns(path, required=("user_id", "item_id"), optional=_OPTIONAL)
    if table.num_rows == 0:
        raise EddyError(f"{path}: no events in it; give a file with at least one row")
    clock = "timestamp" in table.column_names
    timestamp = times(table["timestamp"], path, time_unit) if clock else np.zeros(table.num_rows, np.int64)
    order_by = (
        timestamp
        if clock or "position" not in table.column_names
        else numbers(table["position"], path, "position")
    )
    order = np.argsort(order_by, kind="stable")

    value, default_type = np.full(table.num_rows, np.nan, np.float32), DEFAULT_TYPE
    if "value" in table.column_names:
        value = values(table["value"], path, "value")
    elif "rating" in table.column_names:
        value, default_type = values(table["rating"], path, "rating"), "rating"
    type_column = pa.repeat(default_type, table.num_rows)
    if "event_type" in table.column_names:
        type_column = pc.fill_null(strings(table["event_type"], path, "event_type"), default_type)
    user, users = _numbered(ids(table["user_id"], path, "user_id"), order)
    item, items = _numbered(ids(table["item_id"], path, "item_id"), order)
    type_, types = _numbered(type_column, order)
    event_id = None
    if "event_id" in table.column_names:
        event_id = (
            pc.fill_null(strings(table["event_id"], path, "event_id"), "").take(pa.array(order)).to_pylist()
        )
    return Events(
        user=user.astype(np.int32), item=item.astype(np.int32), timestamp=timestamp[order],
        type=type_.astype(np.int32), value=value[order], users=users, items=items, types=types,
        event_id=event_id, clock=clock, source=str(path),
    )  # fmt: skip


def concat(parts: Sequence[Events]) -> Events:
    """Several logs as one, merged by time (ties: the earlier part first), users and items numbered anew.

    Errors: EddyError when only some of the parts have a clock.
    """
    if len({part.clock for part in parts}) != 1:
        raise EddyError(
            f"{parts[0].source} and others: cannot merge a log that has a clock with one that has none"
        )
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
        timestamp=np.concatenate([part.timestamp for part in parts])[order], type=type_.astype(np.int32),
        value=np.concatenate([part.value for part in parts])[order], users=users, items=items, types=types,
        event_id=event_id, clock=parts[0].clock, source=parts[0].source,
    )  # fmt: skip


@dataclass(frozen=True)
class Items:
    """What is known about items: titles and genres by item id."""

    title: dict[str, str]
    genres: dict[str, list[str]]


def read_items(path: str | Path) -> Items:
    """Read item_id and, where present, title and genres ("Action|Drama" or a list), from a file as above."""
    path = Path(path)
    table = read_columns(path, required=("item_id",), optional=("title", "genres"))
    item_ids = ids(table["item_id"], path, "item_id").to_pylist()
    title: dict[str, str] = {}
    genres: dict[str, list[str]] = {}
    if "title" in table.column_names:
        title = dict(zip(item_ids, strings(table["title"], path, "title").to_pylist(), strict=True))
    if "genres" in table.column_names:
        for item_id, found in zip(item_ids, table["genres"].to_pylist(), strict=True):
            genres[item_id] = found.split("|") if isinstance(found, str) else list(found or ())
    return Items({item_id: text for item_id, text in title.items() if text}, genres)


def _numbered(
    column: pa.Array | pa.ChunkedArray, order: NDArray[np.int64]
) -> tuple[NDArray[np.int64], list[str]]:
    """Number the strings of `column`, taken in `order`, by first appearance: (int[n], the strings)."""
    encoded = column.take(pa.array(order)).dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return encoded.indices.to_numpy(), encoded.dictionary.to_pylist()
