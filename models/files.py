"""Columns from files of users: Parquet, CSV or JSON lines, told apart by their first bytes.

Guarantee: what cannot be used (unreadable, missing, empty, null, NaN, impossible) is refused in one line that
names the file, the column or the row (counted from 1), and what to do. Integer times: with the unit "auto",
values below `MILLISECONDS_FROM` throughout the file are seconds, otherwise milliseconds.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset
import pyarrow.json
from numpy.typing import NDArray

from models.errors import EddyError

MILLISECONDS_FROM = 10**11
"""1973 counted in ms, 5138 counted in s."""

_MS_PER_UNIT = {"s": 1000, "ms": 1}
_LATEST_MS = 10**14
_ID_COLUMNS = ("user_id", "item_id", "event_id")


def path_error(path: Path, message: str) -> EddyError:
    """An EddyError about this file."""
    return EddyError(f"{path}: {message}")


def read_columns(path: Path, required: Sequence[str], optional: Sequence[str] | None = None) -> pa.Table:
    """The required columns, and those of the optional ones (None: any) that the file or folder has, in the
    file's row order.

    Errors: EddyError when the path is missing, unreadable, in no known format, or lacks a required column.
    """
    try:
        table = _table(path, None if optional is None else [*required, *optional])
    except FileNotFoundError:
        raise path_error(path, "no such file; check the path") from None
    except (OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise path_error(
            path, f"cannot be read ({reason}); give an undamaged Parquet, CSV or JSON-lines file"
        ) from None
    missing = [name for name in required if name not in table.column_names]
    if missing:
        raise path_error(
            path, f"no column {' and no '.join(missing)}; it has {', '.join(table.column_names) or 'none'}"
        )
    if optional is None:
        return table
    return table.select([name for name in [*required, *optional] if name in table.column_names])


def _table(path: Path, wanted: Sequence[str] | None) -> pa.Table:
    if path.is_dir():
        dataset = pa.dataset.dataset(path, format="parquet", partitioning="hive")
        if not dataset.files:
            raise path_error(path, "no Parquet file in this folder")
        return dataset.to_table(columns=_present(dataset.schema.names, wanted))
    with path.open("rb") as file:
        start = file.read(256).lstrip()
    if not start:
        raise path_error(path, "the file is empty")
    if start.startswith(b"PAR1") or path.suffix in (".parquet", ".pq"):
        dataset = pa.dataset.dataset(path, format="parquet")
        return dataset.to_table(columns=_present(dataset.schema.names, wanted))
    if start.startswith(b"{") or ".jsonl" in path.suffixes:
        return pa.json.read_json(path)
    as_text = {name: pa.string() for name in _ID_COLUMNS}  # "007" stays "007"
    return pa.csv.read_csv(path, convert_options=pa.csv.ConvertOptions(column_types=as_text))


def _present(names: Sequence[str], wanted: Sequence[str] | None) -> list[str] | None:
    """The wanted columns that there are; None, all of them, where that is asked for or there are none."""
    return None if wanted is None else [name for name in names if name in wanted] or None


def strings(column: pa.ChunkedArray, path: Path, name: str) -> pa.ChunkedArray:
    """Any scalar column as text; nulls stay."""
    try:
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        return column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise path_error(path, f"column {name} is {column.type}; it must hold strings or numbers") from None


def ids(column: pa.ChunkedArray, path: Path, name: str) -> pa.ChunkedArray:
    """A column of ids as text, none of them empty."""
    text = strings(column, path, name)
    _refuse(pc.fill_null(pc.equal(text, ""), True).to_numpy(), path, f"{name} is empty; every row needs one")
    return text


def numbers(column: pa.ChunkedArray, path: Path, name: str) -> NDArray[np.float64]:
    """A column of numbers, float64[n]; null is NaN."""
    try:
        return np.asarray(column.cast(pa.float64()).to_numpy())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise path_error(path, f"column {name} is {column.type}; it must hold numbers") from None


def values(column: pa.ChunkedArray, path: Path, name: str) -> NDArray[np.float32]:
    """A column of values, float32[n]; null and NaN mean absent, infinity is refused."""
    found = numbers(column, path, name).astype(np.float32)
    _refuse(np.isinf(found), path, f"{name} is not a finite number; correct it or leave it empty")
    return found


def times(column: pa.ChunkedArray, path: Path, unit: str) -> NDArray[np.int64]:
    """Event times as int64[n] ms, from Arrow timestamps or from numbers in `unit` ("auto", "s" or "ms")."""
    if unit != "auto" and unit not in _MS_PER_UNIT:
        raise EddyError(f"time unit {unit!r} is not known; use auto, s or ms")
    _refuse(column.is_null(nan_is_null=True).to_numpy(), path, "timestamp is empty; every event needs a time")
    if pa.types.is_temporal(column.type) and not pa.types.is_time(column.type):
        found = column.cast(pa.timestamp("ms"), safe=False).cast(pa.int64()).to_numpy()
    elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        given = column.to_numpy()
        if unit == "auto":
            unit = "s" if given.max() < MILLISECONDS_FROM else "ms"
        in_ms = np.rint(given.astype(np.float64) * _MS_PER_UNIT[unit])
        found = in_ms.clip(-1, _LATEST_MS).astype(np.int64)
    else:
        raise path_error(path, f"column timestamp is {column.type}; write numbers in s or ms, or timestamps")
    bad = (found < 0) | (found >= _LATEST_MS)
    _refuse(bad, path, "timestamp is no time between 1970 and 5138 in s or ms; correct it or give the unit")
    return np.ascontiguousarray(found)


def _refuse(bad: NDArray[np.bool_], path: Path, reason: str) -> None:
    if bad.any():
        raise path_error(path, f"row {int(bad.argmax()) + 1}: {reason}")
