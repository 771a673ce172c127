"""Columns from files of users: Parquet, CSV, JSON lines or a JSON array, one file or a folder of them.

Guarantee: the same content gives the same columns in every format, whatever else is in the files and however
it is spread over them; what cannot be used is refused in one line that names the file, the row (counted from
1) and the column, and says what to do.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from eddy.models.logs.column_store import IN_MEMORY, ColumnStore, slices
from eddy.models.logs.formats import cells
from eddy.models.logs.formats.cells import Column, Kind, Times
from eddy.models.logs.formats.column_names import require_columns
from eddy.models.logs.formats.read import Records, read_blocks, read_records
from eddy.models.logs.formats.source import row_error
from eddy.models.logs.formats.tables import Block
from eddy.models.logs.log_files import LogFile, log_files
from eddy.models.logs.log_share import WHOLE_LOG, LogShare
from eddy.models.logs.names import GrowingNames, NameColumn
from eddy.models.storage import Location, Place

USER = "user_id"
"""The column by whose values rows are dealt among processes."""

_NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Part:
    """The rows of one file among those of a path."""

    file: Location
    rows: slice
    names: frozenset[str]
    """the wanted columns that the file has"""
    kept: slice
    """those of its rows that are in the columns, by their place there"""


def place_in(parts: Sequence[Part], row: int) -> tuple[Location, int]:
    """The file and the row in it, counted from 1, of a row among all."""
    part = next(part for part in parts if row < part.rows.stop)
    return part.file, row - part.rows.start + 1


@dataclass(frozen=True)
class Columns:
    """The wanted columns that at least one file has, over the n rows of all files, file after file."""

    path: Place
    parts: Sequence[Part]
    store: ColumnStore
    names: Mapping[str, NameColumn]
    texts: Mapping[str, pa.ChunkedArray]
    numbers: Mapping[str, NDArray[np.float64]]
    """float64[n] each, NaN = absent"""
    times: Mapping[str, Times]
    arrival: NDArray[np.int64] | None = None
    """int64[n]: each row's number among the rows of all files; None where all rows were kept"""

    def __len__(self) -> int:
        return int(self.parts[-1].kept.stop) if self.parts else 0

    def __contains__(self, name: str) -> bool:
        return any(name in columns for columns in (self.names, self.texts, self.numbers, self.times))

    def lengths(self, name: str) -> Callable[[slice], NDArray[np.int32]]:
        """Characters of a column of text, of the rows of a slice: int32[rows]; 0 where it is absent."""
        if name in self.names:
            column = self.names[name]
            of_names = np.append(_characters(column.names), np.int32(0))  # ABSENT is the last one's index
            return lambda rows: of_names[column.number[rows]]
        if name in self.texts:
            return lambda rows: _characters(self.texts[name][rows.start : rows.stop])
        return lambda rows: np.zeros(rows.stop - rows.start, np.int32)

    def refuse(self, bad: Callable[[slice], NDArray[np.bool_]], reason: Callable[[int], str]) -> None:
        """Errors: EddyError for the first row that is bad, of which `bad` tells by slices of rows; `reason`
        words it from the row's index.
        """
        row = self.first_row(bad)
        if row is not None:
            arrival = row if self.arrival is None else int(self.arrival[row])
            raise row_error(*place_in(self.parts, arrival), reason(row))

    def first_row(self, holds: Callable[[slice], NDArray[np.bool_]]) -> int | None:
        """The first row of which something holds, as `holds` tells by slices of rows; None without one."""
        for rows in slices(len(self)):
            of_rows = holds(rows)
            if of_rows.any():
                return int(rows.start + of_rows.argmax())
        return None


def _characters(texts: pa.Array | pa.ChunkedArray) -> NDArray[np.int32]:
    return np.asarray(pc.fill_null(pc.utf8_length(texts), 0).to_numpy(zero_copy_only=False), np.int32)


class _Growing:
    """One column while it is read."""

    def __init__(self, kind: Kind, store: ColumnStore) -> None:
        self._kind = kind
        self._names = GrowingNames(store)
        self._texts: list[pa.Array] = []
        self._numbers = store.growing(np.float64)
        self._dated = store.growing(np.bool_)

    def append(self, column: Column, kept: NDArray[np.bool_] | None = None) -> None:
        """Add a block's cells, as the column's kind wants them; only those that are kept[n]."""
        rows = slice(None) if kept is None else kept

        def filtered(texts: pa.Array) -> pa.Array:
            return texts if kept is None else texts.filter(pa.array(kept))

        if self._kind is Kind.NUMBER:
            self._numbers.append(cells.numbers(column)[rows])
        elif self._kind is Kind.TIME:
            times = cells.times(column)
            self._numbers.append(times.given[rows])
            self._dated.append(times.dated[rows])
        elif self._kind is Kind.NAME:
            self._names.append(filtered(cells.text(column)))
        else:
            self._texts.append(filtered(cells.text(column)))

    def finish(self) -> Any:
        """The whole column."""
        if self._kind is Kind.NUMBER:
            return self._numbers.finish()
        if self._kind is Kind.TIME:
            return Times(self._numbers.finish(), self._dated.finish())
        if self._kind is Kind.NAME:
            return self._names.finish()
        return pa.chunked_array(self._texts, pa.string())


def read_columns(
    path: Place, wanted: Mapping[str, Kind], required: Sequence[str], store: ColumnStore = IN_MEMORY,
    share: LogShare = WHOLE_LOG,
) -> Columns:  # fmt: skip
    """Read the wanted columns of a file or folder into arrays of a store, block by block. The rows of a file
    that lacks an optional column have absent cells there. Folders named column=value (Hive) are columns of
    text.

    share: which rows are kept, by their users.

    Errors: EddyError when the path is missing, unreadable, in no known format, lacks a required column, or
    has cells that are not of their kind.
    """
    parts: list[Part] = []
    growing: dict[str, _Growing] = {}
    arrival = store.growing(np.int64)
    rows = kept_rows = 0
    files = log_files(path)
    buckets = share.buckets(files)
    for log_file in files:
        if buckets is not None and log_file.bucket not in buckets:
            rows += log_file.rows or 0
            continue
        file = log_file.location
        start, kept_start, names, column_names = rows, kept_rows, set[str](), list[str]()
        for block in _blocks(log_file, wanted, required):
            # A column begins with the first block that has it; the rows before are absent.
            for name in block.columns.keys() - growing.keys():
                growing[name] = _Growing(wanted[name], store)
                for part in slices(kept_rows):
                    growing[name].append(Column(file, 0, name, pa.nulls(part.stop - part.start)))
            columns = {
                name: Column(file, block.first, name, block.columns.get(name, pa.nulls(block.rows)))
                for name in growing
            }
            kept = None
            if buckets is None and not share.is_whole and USER in columns:
                kept = share.own_users(cells.text(columns[USER]))
            for name, column in columns.items():
                growing[name].append(column, kept)
            if not share.is_whole:
                of_block = np.arange(rows, rows + block.rows)
                arrival.append(of_block if kept is None else of_block[kept])
            names |= block.columns.keys()
            column_names = list(block.names)
            rows += block.rows
            kept_rows += block.rows if kept is None else int(kept.sum())
        require_columns(file, column_names, [name for name in required if name not in names])
        parts.append(Part(file, slice(start, rows), frozenset(names), slice(kept_start, kept_rows)))

    def of(kind: Kind) -> dict[str, Any]:
        return {name: column.finish() for name, column in growing.items() if wanted[name] is kind}

    return Columns(
        path, parts, store, of(Kind.NAME), of(Kind.TEXT), of(Kind.NUMBER), of(Kind.TIME),
        None if share.is_whole else arrival.finish(),
    )  # fmt: skip


def _blocks(file: LogFile, wanted: Mapping[str, Kind], required: Sequence[str]) -> Iterator[Block]:
    """The wanted columns of one file, with those of its folders' names."""
    folders = _partitions(file.folders)
    for block in read_blocks(file.location, wanted, [name for name in required if name not in folders]):
        columns = {
            name: pa.repeat(pa.scalar(value, pa.string()), block.rows)
            for name, value in folders.items()
            if name in wanted
        }
        yield replace(block, columns=columns | block.columns, names=[*block.names, *folders])


def _partitions(folders: Sequence[str]) -> dict[str, str | None]:
    """Columns by the names of folders: column=value."""
    pairs = (folder.partition("=") for folder in folders)
    return {
        unquote(name): None if value == _NO_PARTITION else unquote(value)
        for name, equals, value in pairs
        if equals
    }


def records(path: Place, key: str) -> Iterator[Records]:
    """Read all fields of the rows of a file or folder, with those of folders' names; `key` is the field that
    tells rows apart.

    Errors: EddyError as `read_columns`, and for a row without the key.
    """
    for file in log_files(path):
        folders = _partitions(file.folders)
        for block in read_records(file.location, key):
            for fields in block.fields if folders else []:
                fields.update({name: value for name, value in folders.items() if name not in fields})
            absent = block.key.is_null().to_numpy(zero_copy_only=False)
            if absent.any():
                row = block.first + int(absent.argmax())
                raise row_error(file.location, row, f"{key} is empty; every row needs one")
            yield block
