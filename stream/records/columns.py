"""Structs of arrays: dataclasses and NamedTuples whose fields are columns of equal length (arrays, tensors,
lists, or such structs). A field that is a number or bytes holds for all entries.
"""

from collections.abc import Sequence
from dataclasses import is_dataclass
from itertools import chain
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from eddy.models.kernels.compiled import Ints

Columns = TypeVar("Columns")
Number = TypeVar("Number", bound=np.generic)


def select_entries(columns: Columns, index: slice | Ints) -> Columns:
    """The chosen entries of every column; those of a slice of arrays share their memory."""
    chosen = {name: _entries(column, index) for name, column in _fields(columns).items()}
    return type(columns)(**chosen)


def join_columns(parts: Sequence[Columns]) -> Columns:
    """The entries of all parts (at least one), part after part; what holds for all entries is taken from the
    last part.
    """
    if len(parts) == 1:
        return parts[0]
    fields = [_fields(part) for part in parts]
    return type(parts[0])(**{name: _joined([field[name] for field in fields]) for name in fields[0]})


def _fields(columns: Any) -> dict[str, Any]:
    fields: dict[str, Any] = columns._asdict() if isinstance(columns, tuple) else vars(columns)  # type: ignore[attr-defined]
    return fields


def _is_struct(column: Any) -> bool:
    return is_dataclass(column) or isinstance(column, tuple)


def _entries(column: Any, index: slice | Ints) -> Any:
    if isinstance(column, int | bytes):
        return column
    if _is_struct(column):
        return select_entries(column, index)
    if isinstance(column, list) and not isinstance(index, slice):
        return [column[entry] for entry in index.tolist()]
    return column[index]


def _joined(columns: Sequence[Any]) -> Any:
    if isinstance(columns[0], int | bytes):
        return columns[-1]
    if _is_struct(columns[0]):
        return join_columns(columns)
    return list(chain.from_iterable(columns)) if isinstance(columns[0], list) else np.concatenate(columns)


def widened(table: NDArray[Number], width: int) -> NDArray[Number]:
    """table[n,k] with `width` columns, which are k or more; those that were missing are -1."""
    if table.shape[1] == width:
        return table
    wide = np.full((len(table), width), -1, table.dtype)
    wide[:, : table.shape[1]] = table
    return wide
