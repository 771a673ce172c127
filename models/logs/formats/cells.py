"""What a column's cells mean, whatever their type: text, numbers, times.

The same content means the same in every format. As text, whole numbers are their digits (7, 7.0 and decimal
7.00 are "7", while the text "7.0" or "007" stays as it is) and UUIDs their 36 characters. Text is read as a
number or a time where such a column is wanted. Blank text is absent.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from eddy.models.errors import EddyError
from eddy.models.logs.formats.source import path_error, row_error
from eddy.models.storage import Location

_UUID_BYTES = 16
_ABSENT_NUMBERS = pa.array(pa.csv.ConvertOptions().null_values)
"""How CSV files spell that there is no number: "", NaN, NULL, N/A and the like."""

_EXACT_TO = {16: 1 << 11, 32: 1 << 24, 64: 1 << 53}
"""The greatest whole number up to which a float of so many bits has lost no digit."""

_TIME_BITS = 64
"""A float needs so many for a time: of today's seconds one with 32 bits keeps only every 128th."""

_DATED = r"^\d{4}-\d\d-\d\d"
_ZONED = r":.*\d(Z|[+-]\d\d(:?\d\d)?)$"


class Kind(Enum):
    """What a column is read as."""

    NAME = "text that recurs"
    TEXT = "text"
    NUMBER = "numbers"
    TIME = "times"


@dataclass(frozen=True)
class Column:
    """A block's cells of one column, and their origin."""

    file: Location
    first: int
    """the row of the first cell in the file, counted from 1"""
    name: str
    cells: pa.Array

    def refuse(self, bad: NDArray[np.bool_], reason: Callable[[object], str]) -> None:
        """Errors: EddyError for the first cell that is bad[n]; `reason` words it from the cell's value."""
        if bad.any():
            index = int(bad.argmax())
            cell = reason(self.cells[index].as_py())
            raise row_error(self.file, self.first + index, f"{self.name} {cell}")

    def impossible(self, needed: str) -> EddyError:
        """The error for a column of whose type no cell can be used."""
        return path_error(self.file, f"column {self.name} is {self.cells.type}; it must hold {needed}")


class Times(NamedTuple):
    """Event times of n rows."""

    given: NDArray[np.float64]
    """ms since 1970 where dated, otherwise a number whose unit is not known yet; NaN where absent"""
    dated: NDArray[np.bool_]


def text(column: Column) -> pa.StringArray:
    """The cells as text; null where there is none."""
    column = _stored(column)
    cells, type_ = column.cells, column.cells.type
    if pa.types.is_floating(type_):
        cells = _whole_numbers(column)
    elif pa.types.is_decimal(type_):
        cells = _plain_decimals(cells)
    elif pa.types.is_fixed_size_binary(type_) and type_.byte_width == _UUID_BYTES:
        cells = _uuids(cells)
    elif pa.types.is_nested(type_) or pa.types.is_fixed_size_binary(type_) or pa.types.is_duration(type_):
        raise column.impossible("text or numbers")
    else:
        cells = _cast(column, pa.string(), lambda _: "is not UTF-8; correct it")
    return pc.if_else(pc.equal(cells, ""), pa.scalar(None, pa.string()), cells)


def numbers(column: Column) -> NDArray[np.float64]:
    """The cells as numbers, float64[n]; NaN where there is none."""
    column = _stored(column)
    type_ = column.cells.type
    if _is_text(type_):
        column = _number_texts(column)
    elif not (
        pa.types.is_integer(type_)
        or pa.types.is_floating(type_)
        or pa.types.is_decimal(type_)
        or pa.types.is_null(type_)
    ):
        raise column.impossible("numbers")
    cells = _cast(column, pa.float64(), lambda cell: f"is {_short(cell)}, which is no number; correct it")
    return _array(cells)


def times(column: Column) -> Times:
    """The cells as times: from dates, text by ISO 8601 (UTC where it names no zone) and numbers."""
    column = _stored(column)
    type_ = column.cells.type
    if _is_text(type_):
        return _times_of_text(column)
    if pa.types.is_timestamp(type_) or pa.types.is_date(type_):
        return Times(_array(_ms(column.cells)), np.ones(len(column.cells), np.bool_))
    if pa.types.is_temporal(type_):
        raise column.impossible("numbers in s or ms, or timestamps")
    if pa.types.is_floating(type_) and type_.bit_width < _TIME_BITS:
        exact_to = _EXACT_TO[type_.bit_width]
        column.refuse(
            np.abs(numbers(column)) > exact_to,
            lambda cell: (
                f"is {cell:.15g} in {type_.bit_width} bits, which tell no seconds apart; write whole numbers"
            ),
        )
    return Times(numbers(column), np.zeros(len(column.cells), np.bool_))


def is_plain(type_: pa.DataType) -> bool:
    """Whether `plain` knows what to do with a column of this type."""
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        type_ = type_.value_type
        if pa.types.is_nested(type_) or pa.types.is_temporal(type_) or pa.types.is_decimal(type_):
            return False
    if isinstance(type_, pa.BaseExtensionType):
        type_ = type_.storage_type
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if pa.types.is_fixed_size_binary(type_):
        return bool(type_.byte_width == _UUID_BYTES)
    return not (pa.types.is_nested(type_) or pa.types.is_duration(type_))


def plain(column: Column) -> list[object]:
    """The cells as Python's texts, numbers and lists of them: dates and decimals are text."""
    column = _stored(column)
    type_ = column.cells.type
    if pa.types.is_timestamp(type_):
        column = replace(column, cells=column.cells.cast(pa.timestamp("s"), safe=False))
    elif not (
        _is_text(type_)
        or pa.types.is_temporal(type_)
        or pa.types.is_decimal(type_)
        or pa.types.is_fixed_size_binary(type_)
    ):
        return list(column.cells.to_pylist())
    return list(text(column).to_pylist())


def _is_text(type_: pa.DataType) -> bool:
    text_types = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(is_type(type_) for is_type in text_types)


def _stored(column: Column) -> Column:
    """The column without dictionary and extension type."""
    cells = column.cells
    while isinstance(cells, pa.ExtensionArray | pa.DictionaryArray):
        cells = cells.storage if isinstance(cells, pa.ExtensionArray) else cells.dictionary_decode()
    if pa.types.is_string_view(cells.type) or pa.types.is_binary_view(cells.type):
        cells = cells.cast(pa.large_binary())
    return replace(column, cells=cells)


def _cast(column: Column, type_: pa.DataType, reason: Callable[[object], str]) -> pa.Array:
    """The cells as another type. Errors: EddyError for the first cell that cannot be of that type."""
    exact = not pa.types.is_floating(type_)
    try:
        return column.cells.cast(type_, safe=exact)
    except pa.ArrowInvalid:
        low, high = 0, len(column.cells)  # the first failing cell is in [low, high)
        while high - low > 1:
            middle = (low + high) // 2
            try:
                column.cells.slice(low, middle - low).cast(type_, safe=exact)
                low = middle
            except pa.ArrowInvalid:
                high = middle
        message = reason(column.cells[low].as_py())
        raise row_error(column.file, column.first + low, f"{column.name} {message}") from None
    except pa.ArrowNotImplementedError:
        raise column.impossible("text or numbers") from None


def _whole_numbers(column: Column) -> pa.Array:
    """Floats as text, in which whole numbers have no point; NaN is null."""
    exact_to = _EXACT_TO[column.cells.type.bit_width]
    numbers = column.cells.cast(pa.float64())
    value = _array(numbers)
    column.refuse(
        np.abs(value) > exact_to,
        lambda cell: f"is {cell:g}, a float that may have lost digits; write text or whole numbers",
    )
    whole = pa.array(value == np.rint(value))
    digits = pc.if_else(whole, numbers, pa.scalar(0.0)).cast(pa.int64()).cast(pa.string())
    return pc.if_else(
        pa.array(np.isnan(value)), pa.scalar(None, pa.string()),
        pc.if_else(whole, digits, column.cells.cast(pa.string())),
    )  # fmt: skip


def _plain_decimals(cells: pa.Array) -> pa.Array:
    digits = cells.cast(pa.string())
    return pc.replace_substring_regex(
        pc.replace_substring_regex(digits, r"^(-?\d+\.\d*?)0+$", r"\1"), r"\.$", ""
    )


def _uuids(cells: pa.Array) -> pa.Array:
    encoded = cells.dictionary_encode()
    texts = [
        None if value is None else str(uuid.UUID(bytes=value)) for value in encoded.dictionary.to_pylist()
    ]
    return pa.array(texts, pa.string()).take(encoded.indices)


def _number_texts(column: Column) -> Column:
    """Text of numbers without the spaces around them; null where the text says that there is no number."""
    cells = _cast(column, pa.string(), lambda _: "is not UTF-8; correct it")
    cells = pc.utf8_trim_whitespace(cells)
    absent = pc.is_in(cells, value_set=_ABSENT_NUMBERS)
    return replace(column, cells=pc.if_else(absent, pa.scalar(None, pa.string()), cells))


def _times_of_text(column: Column) -> Times:
    column = _number_texts(column)
    cells, nothing = pc.replace_substring_regex(column.cells, " UTC$", "Z"), pa.scalar(None, pa.string())
    dated = pc.fill_null(pc.match_substring_regex(cells, _DATED), False)
    zoned = pc.fill_null(pc.match_substring_regex(cells, _ZONED), False)

    def cast(rows: pa.Array, type_: pa.DataType) -> pa.Array:
        return _cast(
            replace(column, cells=pc.if_else(rows, cells, nothing)), type_,
            lambda cell: f"is {_short(cell)}, which is no time; write ISO 8601 or a number in s or ms",
        )  # fmt: skip

    given = cast(pc.invert(dated), pa.float64())
    if pc.any(dated).as_py():
        local = cast(pc.and_not(dated, zoned), pa.timestamp("ns"))
        world = cast(pc.and_(dated, zoned), pa.timestamp("ns", "UTC"))
        given = pc.coalesce(given, _ms(local), _ms(world))
    return Times(_array(given), dated.to_numpy(zero_copy_only=False))


def _ms(cells: pa.Array) -> pa.Array:
    """Dates as ms since 1970, float64[n]."""
    type_ = pa.timestamp("ms", getattr(cells.type, "tz", None))
    return cells.cast(type_, safe=False).cast(pa.int64()).cast(pa.float64(), safe=False)


def _array(cells: pa.Array) -> NDArray[np.float64]:
    """float64[n], NaN for null."""
    return np.array(pc.fill_null(cells, np.nan).to_numpy(zero_copy_only=False))


def _short(cell: object) -> str:
    written = cell.decode("utf-8", "replace") if isinstance(cell, bytes) else str(cell)
    return repr(written if len(written) <= 40 else written[:40] + "…")
