"""What the fields of an item's metadata hold: values to filter by, a number, a date."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime

MAX_VALUES_OF_ITEM = 16
MAX_TEXT = 256
"""Characters of a value; a longer text is a description, by which nobody filters."""

_LATEST_MS = float(1 << 53)

_SHORT, _FEW = 64, 8
"""Characters of a text, and texts of a list, that are remembered."""


def remembered_by(value: object) -> object:
    """What a short field can be remembered by; None for others. True, 1 and 1.0 are different fields."""
    if isinstance(value, str):
        return value if len(value) <= _SHORT else None
    if isinstance(value, bool | int | float):
        return type(value), value
    are_short = isinstance(value, list) and len(value) <= _FEW and all(map(_is_short, value))
    return tuple(value) if are_short else None  # type: ignore[arg-type]


def _is_short(part: object) -> bool:
    return isinstance(part, str) and len(part) <= _SHORT


def texts_of(value: object) -> Iterator[str]:
    """The values of a field, in small letters."""
    if isinstance(value, bool):
        yield "true" if value else "false"
    elif isinstance(value, str):
        yield from (part for part in map(str.strip, value.casefold().split("|")) if 0 < len(part) <= MAX_TEXT)
    elif isinstance(value, int | float):
        number = number_of_field(value)
        if number is not None:
            yield f"{number:.15g}"
    elif isinstance(value, list):
        for part in value[:MAX_VALUES_OF_ITEM]:
            if not isinstance(part, list):
                yield from texts_of(part)


def number_of_field(value: object) -> float | None:
    """The finite number that a field holds, if it does."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def milliseconds_of(value: object) -> float:
    """A date (ISO 8601, UTC unless it says otherwise; or ms since 1970) as ms; NaN where it is none."""
    if isinstance(value, str):
        try:
            date = datetime.fromisoformat(value)
        except ValueError:
            return math.nan
        try:
            return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() * 1000
        except (OverflowError, ValueError):
            return math.nan
    number = None if isinstance(value, str) else number_of_field(value)
    return math.nan if number is None or abs(number) > _LATEST_MS else number
