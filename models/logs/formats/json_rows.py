"""Rows from JSON lines or a JSON array. Fields that are not wanted are skipped, whatever they hold. Of lines
one block is in memory at a time; an array is read whole.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from operator import attrgetter
from typing import Any, TypeVar

import msgspec
import pyarrow as pa

from eddy.models.logs.formats.cells import Kind
from eddy.models.logs.formats.source import Source, path_error, row_error
from eddy.models.untrusted import Unreadable, decoded

_NUMBER_OR_TEXT = float | str | None | msgspec.UnsetType

_BLOCK_BYTES = 8 << 20
_ROW_OF_ARRAY = re.compile(r"(?<=`\$)\[(\d+)\]")

_MAX_EXPONENT = 400
"""Beyond it every float64 is 0 or infinite, and a number's digits could fill the memory."""

Row = TypeVar("Row")


def json_rows(source: Source, decoder: "msgspec.json.Decoder[Row]") -> Iterator[tuple[int, list[Row]]]:
    """Yield the rows block by block, each with the row number of its first, counted from 1.

    Errors: EddyError naming the first row that cannot be decoded.
    """
    with source.opened() as stream:
        if source.kind == "json array":
            yield 1, _array(source, stream.read(), decoder)
            return
        first, rest = 1, b""
        while block := stream.read(_BLOCK_BYTES):
            end = block.rfind(b"\n") + 1
            if end:
                rows = _lines(source, rest + block[:end], decoder, first)
                yield first, rows
                first += len(rows)
            rest = block[end:] if end else rest + block
        if rest.strip():
            yield first, _lines(source, rest, decoder, first)


def _lines(source: Source, lines: bytes, decoder: "msgspec.json.Decoder[Row]", first: int) -> list[Row]:
    try:
        return decoded(decoder.decode_lines, lines)
    except Unreadable:  # now line by line, to know which
        rows = []
        for line in filter(bytes.strip, lines.split(b"\n")):
            try:
                rows.append(decoded(decoder.decode, line))
            except Unreadable as error:
                reason = f"{error}; write one JSON object on each line, or an array of them"
                raise row_error(source.path, first + len(rows), reason) from None
        return rows


def _array(source: Source, text: bytes, decoder: "msgspec.json.Decoder[Row]") -> list[Row]:
    whole = msgspec.json.Decoder(list[decoder.type], float_hook=decoder.float_hook)  # type: ignore[name-defined]
    try:
        return list(decoded(whole.decode, text))
    except Unreadable as error:
        if index := _ROW_OF_ARRAY.search(str(error)):
            reason = _ROW_OF_ARRAY.sub("", str(error))
            raise row_error(source.path, int(index[1]) + 1, reason) from None
        raise path_error(source.path, f"no JSON array of objects ({error}); correct it") from None


def first_fields(source: Source) -> list[str]:
    """The names of the first row's fields; none where it is no object, or goes beyond the source's head."""
    text = source.head.decode("utf-8-sig", "ignore").lstrip().removeprefix("[").lstrip()
    try:
        row, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return []
    return list(row) if isinstance(row, dict) else []


def fields_decoder(wanted: Mapping[str, Kind]) -> "msgspec.json.Decoder[Any]":
    """A decoder of these fields of an object, for `columns_of`."""
    types = {kind: _NUMBER_OR_TEXT if kind in (Kind.NUMBER, Kind.TIME) else Any for kind in Kind}
    fields = [(name, types[kind], msgspec.UNSET) for name, kind in wanted.items()]
    return msgspec.json.Decoder(msgspec.defstruct("Row", fields, gc=False), float_hook=_number_text)


def columns_of(
    source: Source, first: int, wanted: Mapping[str, Kind], rows: list[Any]
) -> dict[str, pa.Array]:
    """The wanted fields that at least one of the rows has, as text or numbers; rows from a `fields_decoder`.

    Errors: EddyError naming the row of an object or a list.
    """
    columns = {}
    for name, kind in wanted.items():
        values: list[Any] = list(map(attrgetter(name), rows))
        expected = pa.float64() if kind in (Kind.NUMBER, Kind.TIME) else pa.string()
        try:
            columns[name] = pa.array(values, expected)
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # absent in some rows, or of different types
            if any(value is not msgspec.UNSET for value in values):
                columns[name] = texts(source, first, name, values)
    return columns


def _number_text(literal: str) -> str:
    """A number with a fraction or an exponent as text: 7.0 and 7e0 are "7", like the whole number."""
    number = Decimal(literal).normalize()
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or abs(exponent) > _MAX_EXPONENT:
        return literal
    return format(number, "f")


def texts(source: Source, first: int, name: str, values: Iterable[Any]) -> pa.Array:
    """Decoded values as text: a number's digits, exactly; null where there is none.

    Errors: EddyError naming the row of an object or a list.
    """
    written: list[str | None] = []
    for row, value in enumerate(values, first):
        if isinstance(value, str):
            written.append(value)
        elif value is None or value is msgspec.UNSET:
            written.append(None)
        elif isinstance(value, bool):
            written.append(str(value).lower())
        elif isinstance(value, int | float):
            written.append(str(value))
        else:
            nesting = "an object" if isinstance(value, dict) else "a list"
            raise row_error(source.path, row, f"{name} is {nesting}; it must be text or a number")
    return pa.array(written, pa.string())
