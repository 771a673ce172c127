"""The rows of a file of any format, as blocks of the wanted columns or as records with all fields."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from eddy.models.logs.formats import cells
from eddy.models.logs.formats.cells import Kind
from eddy.models.logs.formats.column_names import require_columns
from eddy.models.logs.formats.json_rows import columns_of, fields_decoder, first_fields, json_rows, texts
from eddy.models.logs.formats.source import READABLE, path_error, source_of
from eddy.models.logs.formats.tables import Block, csv_blocks, parquet_blocks
from eddy.models.storage import Location


def read_blocks(path: Location, wanted: Mapping[str, Kind], required: Sequence[str]) -> Iterator[Block]:
    """Yield the wanted columns, block by block; required are those without which no row can be used.

    Errors: EddyError for what cannot be read, with the row where there is one. JSON may lack a required
    column: only its last row tells that no row has it.
    """
    with _readable(path):
        source = source_of(path)
        if source.kind == "parquet":
            yield from parquet_blocks(source, list(wanted), required)
        elif source.kind == "csv":
            yield from csv_blocks(source, list(wanted), required)
        else:
            names = first_fields(source)
            require_columns(path, names, (), wanted)
            for first, rows in json_rows(source, fields_decoder(wanted)):
                yield Block(first, len(rows), columns_of(source, first, wanted, rows), names)


class Records(NamedTuple):
    """Rows of a file, one after the other, with all their fields."""

    first: int
    """the first row's number in the file, counted from 1"""
    key: pa.StringArray
    """[n] the text of the field that tells records apart, null where it is absent"""
    fields: list[dict[str, Any]]
    """the other fields: Python's texts, numbers and lists of them"""
    left_out: dict[str, str]
    """fields of other types, with the names of these"""


def read_records(path: Location, key: str) -> Iterator[Records]:
    """Yield all fields, block by block; `key` is the field that tells records apart.

    Errors: EddyError as `read_blocks`, and for a file without the key.
    """
    with _readable(path):
        source = source_of(path)
        if source.kind.startswith("json"):
            for first, rows in json_rows(source, msgspec.json.Decoder(dict[str, Any])):
                keys = texts(source, first, key, [fields.pop(key, None) for fields in rows])
                yield Records(first, keys, rows, _without_objects(rows))
            return
        read = parquet_blocks if source.kind == "parquet" else csv_blocks
        for block in read(source, None, [key]):
            columns = {
                name: cells.Column(path, block.first, name, column) for name, column in block.columns.items()
            }
            of_key = cells.text(columns.pop(key))
            left_out = {
                name: str(column.cells.type)
                for name, column in columns.items()
                if not cells.is_plain(column.cells.type)
            }
            plain = {name: cells.plain(column) for name, column in columns.items() if name not in left_out}
            fields = [dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)]
            yield Records(block.first, of_key, fields or [{} for _ in range(block.rows)], left_out)


def _without_objects(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Remove nested objects from the rows; returns the fields that were such objects."""
    nested = {}
    for fields in rows:
        for name in [name for name, value in fields.items() if isinstance(value, dict)]:
            del fields[name]
            nested[name] = "an object"
    return nested


@contextmanager
def _readable(path: Location) -> Iterator[None]:
    """Turn what reading a damaged file can raise into an EddyError about it."""
    try:
        yield
    except FileNotFoundError:
        raise path_error(
            path, "was there and is gone: the log was rewritten meanwhile; run it again"
        ) from None
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise path_error(path, f"cannot be read ({reason}); give undamaged {READABLE}") from None
