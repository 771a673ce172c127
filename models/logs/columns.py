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

from eddy.models.logs.formats import cells
from eddy.models.logs.formats.cells import Column, Kind, Times
from eddy.models.logs.formats.read import Records, read_blocks, read_records
from eddy.models.logs.formats.source import path_error, row_error
from eddy.models.logs.formats.tables import Block
from eddy.models.logs.log_files import LogFile, log_files
from eddy.models.storage import Location, Place

_NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_NAMES = pa.dictionary(pa.int32(), pa.string())


@dataclass(frozen=True)
class Part:
    """The rows of one file among those of a path."""

    file: Location
    rows: slice
    names: frozenset[str]
    """the wanted columns that the file has"""


def place_in(parts: Sequence[Part], row: int) -> tuple[Location, int]:
    """The file and the row in it, counted from 1, of a row among all."""
    part = next(part for part in parts if row < part.rows.stop)
    return part.file, row - part.rows.start + 1


@dataclass(frozen=True)
class Columns:
    """The wanted columns that at least one file has, over the n rows of all files, file after file."""

    path: Place
    parts: Sequence[Part]
    names: Mapping[str, pa.DictionaryArray]
    texts: Mapping[str, pa.ChunkedArray]
    numbers: Mapping[str, NDArray[np.float64]]
    """float64[n] each, NaN = absent"""
    times: Mapping[str, Times]

    def __len__(self) -> int:
        return int(self.parts[-1].rows.stop)

    def __contains__(self, name: str) -> bool:
        return any(name in columns for columns in (self.names, self.texts, self.numbers, self.times))

    def lengths(self, name: str) -> NDArray[np.int32]:
        """Characters of a column of text, int32[n]; 0 where it is absent."""
        if name in self.names:
            column = self.names[name]
            length = pc.utf8_length(column.dictionary).take(column.indices)
        else:
            length = pc.utf8_length(self.texts.get(name, pa.nulls(len(self), pa.string())))
        return np.asarray(pc.fill_null(length, 0).to_numpy(zero_copy_only=False), np.int32)

    def refuse(self, bad: NDArray[np.bool_], reason: Callable[[int], str]) -> None:
        """Errors: EddyError for the first row that is bad[n]; `reason` words it from the row's index."""
        if bad.any():
            index = int(bad.argmax())
            raise row_error(*place_in(self.parts, index), reason(index))


def read_columns(path: Place, wanted: Mapping[str, Kind], required: Sequence[str]) -> Columns:
    """Read the wanted columns of a file or folder. The rows of a file that lacks an optional column have
    absent cells there. Folders named column=value (Hive) are columns of text.

    Errors: EddyError when the path is missing, unreadable, in no known format, lacks a required column, or
    has cells that are not of their kind.
    """
    parts: list[Part] = []
    read: dict[str, list[Any]] = {name: [] for name in wanted}
    rows = 0
    for log_file in log_files(path):
        file = log_file.location
        start, names, column_names = rows, set[str](), list[str]()
        for block in _blocks(log_file, wanted, required):
            for name, kind in wanted.items():
                read[name].append(_canonical(file, block, name, kind))
            names |= block.columns.keys()
            column_names = list(block.names)
            rows += block.rows
        missing = [name for name in required if name not in names]
        if missing:
            has = f"; it has {', '.join(column_names) or 'none'}" if column_names else ""
            raise path_error(file, f"no column {' and no '.join(missing)}{has}")
        parts.append(Part(file, slice(start, rows), frozenset(names)))
    present = frozenset[str]().union(*(part.names for part in parts))

    def of(kind: Kind) -> dict[str, list[Any]]:
        return {name: read[name] for name in wanted if name in present and wanted[name] is kind}

    return Columns(
        path, parts,
        {name: joined_names(chunks) for name, chunks in of(Kind.NAME).items()},
        {name: pa.chunked_array(chunks, pa.string()) for name, chunks in of(Kind.TEXT).items()},
        {name: np.concatenate(chunks) for name, chunks in of(Kind.NUMBER).items()},
        {
            name: Times(*(np.concatenate(chunk_columns) for chunk_columns in zip(*chunks, strict=True)))
            for name, chunks in of(Kind.TIME).items()
        },
    )  # fmt: skip


def _canonical(file: Location, block: Block, name: str, kind: Kind) -> Any:
    """A block's column as its kind wants it; all absent where the file lacks it."""
    column = Column(file, block.first, name, block.columns.get(name, pa.nulls(block.rows)))
    if kind is Kind.NUMBER:
        return cells.numbers(column)
    if kind is Kind.TIME:
        return cells.times(column)
    return cells.text(column).dictionary_encode() if kind is Kind.NAME else cells.text(column)


def joined_names(chunks: Sequence[pa.DictionaryArray]) -> pa.DictionaryArray:
    """Columns of names, one after the other, as one."""
    return pa.chunked_array(chunks, _NAMES).unify_dictionaries().combine_chunks()


def _blocks(file: LogFile, wanted: Mapping[str, Kind], expected: Sequence[str]) -> Iterator[Block]:
    """The wanted columns of one file, with those of its folders' names."""
    folders = _partitions(file.folders)
    for block in read_blocks(file.location, wanted, expected):
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
