"""Rows from CSV and Parquet as Arrow columns, block by block. The cells of a CSV are text as it is written,
and null where they are blank; the columns of a Parquet file have their types. Only the wanted columns are
parsed.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from eddy.models.logs.formats.column_names import require_columns
from eddy.models.logs.formats.source import BYTE_ORDER_MARK, HEAD_BYTES, Source, path_error, row_error

_BLOCK_BYTES = 16 << 20
"""Bytes of a CSV file that are parsed at a time; no row may be longer."""

_BLOCK_ROWS = 1 << 17
_SEPARATORS = (",", "\t", ";", "|")
_FIELD_TYPE = re.compile(r":(token|float)(_seq)?$")
"""What the atomic files of RecBole add to the names of their columns."""


@dataclass(frozen=True)
class Block:
    """Consecutive rows of a file."""

    first: int
    """the first row's number in the file, counted from 1"""
    rows: int
    """how many there are"""
    columns: dict[str, pa.Array]
    """[rows] each: the wanted columns that the file has"""
    names: Sequence[str]
    """all columns of the file"""


def _wanted(
    source: Source, names: Sequence[str], wanted: Sequence[str] | None, required: Sequence[str]
) -> list[str]:
    """The wanted columns that the file has; one without a name is never wanted.

    Errors: EddyError as `require_columns`, and for a wanted column that is there more than once.
    """
    require_columns(source.path, names, required, wanted or ())
    present = [name for name in names if (name if wanted is None else name in wanted)]
    for name in present:
        if present.count(name) > 1:
            raise path_error(source.path, f"column {name} is there more than once; rename or remove one")
    return present


def parquet_blocks(source: Source, wanted: Sequence[str] | None, required: Sequence[str]) -> Iterator[Block]:
    """The wanted columns (None: all) of a Parquet file, which has the required ones."""
    with source.path.opened() as opened, pq.ParquetFile(opened, pre_buffer=source.path.is_remote) as file:
        names = file.schema_arrow.names
        present = _wanted(source, names, wanted, required)
        first = 1
        for batch in file.iter_batches(_BLOCK_ROWS, columns=present):
            yield Block(first, batch.num_rows, dict(zip(present, batch.select(present), strict=True)), names)
            first += batch.num_rows
        if first == 1:
            columns = {name: pa.nulls(0, file.schema_arrow.field(name).type) for name in present}
            yield Block(first, 0, columns, names)


def csv_blocks(source: Source, wanted: Sequence[str] | None, required: Sequence[str]) -> Iterator[Block]:
    """The wanted columns (None: all) of a CSV file with a header, as bytes. The separator is the one that
    gives the most of the required columns.
    """
    separator, header = _header(source, required)
    names = [_FIELD_TYPE.sub("", name) for name in header]
    present = _wanted(source, names, wanted, required)
    # Where folders' names say all that is wanted, the first column tells how many rows there are.
    written = [header[names.index(name)] for name in present] or header[:1]
    ragged: list[pa.csv.InvalidRow] = []

    def refuse(row: pa.csv.InvalidRow) -> str:
        ragged.append(row)
        return "error"

    first = 1
    with _with_line_ends(source) as stream:
        try:
            reader = pa.csv.open_csv(
                stream,
                # Threads lose the numbers of rows.
                pa.csv.ReadOptions(use_threads=False, block_size=_BLOCK_BYTES),
                pa.csv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=refuse),
                pa.csv.ConvertOptions(
                    check_utf8=False, include_columns=written, null_values=[""], strings_can_be_null=True,
                    column_types=dict.fromkeys(written, pa.binary()),
                ),
            )  # fmt: skip
            for batch in reader:
                yield Block(first, batch.num_rows, dict(zip(present, batch, strict=False)), names)
                first += batch.num_rows
        except pa.ArrowInvalid:
            if not ragged:
                raise
            row = ragged[0]
            raise row_error(
                source.path, row.number - 1,
                f"has {row.actual_columns} cells where the header has {row.expected_columns}; correct it",
            ) from None  # fmt: skip
    if first == 1:
        yield Block(first, 0, {name: pa.nulls(0, pa.binary()) for name in present}, names)


@contextmanager
def _with_line_ends(source: Source) -> Iterator[pa.NativeFile]:
    """The bytes of the file; a header alone gets the end of line without which Arrow refuses it."""
    text = source.head.removeprefix(BYTE_ORDER_MARK).strip()
    if len(source.head) < HEAD_BYTES and re.search(rb"[\r\n]", text) is None:
        yield pa.BufferReader(text + b"\n")
        return
    with source.opened() as stream:
        yield stream


def _header(source: Source, required: Sequence[str]) -> tuple[str, list[str]]:
    """(separator, names of the columns)"""
    lines = source.head.decode("utf-8-sig", "ignore").lstrip("\r\n").splitlines(keepends=True)
    headers, reason = dict[str, list[str]](), ""
    for separator in _SEPARATORS:
        try:
            headers[separator] = next(csv.reader(lines, delimiter=separator))
        except csv.Error as error:  # such as a whole line that is one very long cell
            reason = str(error)
    if not headers:
        raise path_error(source.path, f"its first line is no CSV header ({reason}); correct it")

    def fit(separator: str) -> tuple[int, int]:
        names = {_FIELD_TYPE.sub("", name) for name in headers[separator]}
        return len(names.intersection(required)), len(names)

    best = max(headers, key=fit)
    return best, headers[best]
