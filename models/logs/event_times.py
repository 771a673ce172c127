"""The times of events from what files give: dates as they are, numbers in a unit.

The rule for numbers under the unit "auto": all of them are seconds from 1990 to 2100, or all are milliseconds
from 1990 to 2100, or all are smaller than either, and then they are seconds of a clock that starts at zero. A
file or folder that mixes these is refused, since no guess is right for all of it, and so is one in which all
numbers read as days (20241231), which would be seconds of 1970.
"""

import numpy as np
from numpy.typing import NDArray

from eddy.models.errors import EddyError
from eddy.models.event_limits import EARLIEST_MS, LATEST_MS
from eddy.models.logs.columns import Columns, place_in

_MS_PER_UNIT = {"s": 1000, "ms": 1}
_FROM_S, _UNTIL_S = EARLIEST_MS // 1000, 4_102_444_800
"""1990 and 2100 in s. In ms 1990 is a far greater number than 2100 in s."""

_FROM_ZERO, _SECONDS, _MILLISECONDS = range(3)
_RANGE_NAMES = ("before 1990", "in s", "in ms")


def event_times(columns: Columns, unit: str) -> NDArray[np.int64]:
    """The column timestamp as int64[n] ms; numbers are in `unit` ("auto", "s" or "ms").

    Errors: EddyError for a time that is absent or impossible, with its row, and for mixed units.
    """
    if unit != "auto" and unit not in _MS_PER_UNIT:
        raise EddyError(f"time unit {unit!r} is not known; use auto, s or ms")
    given, dated = columns.times["timestamp"]
    columns.refuse(
        lambda rows: np.isnan(given[rows]), lambda _: "timestamp is empty; every event needs a time"
    )
    first = columns.first_row(lambda rows: ~dated[rows])
    if first is not None:
        unit = _unit(columns, first, unit)

    def ms(rows: slice) -> NDArray[np.float64]:
        times = given[rows]
        return np.where(dated[rows], times, np.rint(times * _MS_PER_UNIT.get(unit, 1)))

    def impossible(rows: slice) -> NDArray[np.bool_]:
        times = ms(rows)
        return (times < 0) | (times >= LATEST_MS)

    columns.refuse(
        impossible,
        lambda row: (
            f"timestamp {given[row]:.15g} is no time between 1970 and 5138"
            f"{'' if dated[row] else f' in {unit}'}; correct it"
        ),
    )
    return columns.store.filled(len(columns), np.int64, ms)


def _unit(columns: Columns, first: int, unit: str) -> str:
    """The unit of the times that are numbers, of which row `first` has the first: the one given or, of
    "auto", the one that all agree on.

    Errors: EddyError for a number that has no unit, and for one in another unit than the others.
    """
    given, dated = columns.times["timestamp"]

    def ranges(rows: slice) -> NDArray[np.int64]:
        return np.digitize(given[rows], (_FROM_S, _FROM_S * 1000))

    of_first = int(ranges(slice(first, first + 1))[0])
    if unit == "auto":
        until = np.array([_FROM_S, _UNTIL_S, _UNTIL_S * 1000])
        columns.refuse(
            lambda rows: ~dated[rows] & ((given[rows] < 0) | (given[rows] >= until[ranges(rows)])),
            lambda row: (
                f"timestamp {given[row]:.15g} is no time from 1990 to 2100, neither in s nor in ms; "
                "correct it, or give the unit (--time-unit)"
            ),
        )
        columns.refuse(
            lambda rows: ~dated[rows] & (ranges(rows) != of_first),
            lambda row: _other_unit(columns, row, first),
        )
        if columns.first_row(lambda rows: ~dated[rows] & ~_is_calendar_day(given[rows])) is None:
            columns.refuse(
                lambda rows: ~dated[rows],
                lambda row: (
                    f"timestamp {given[row]:.15g} reads as a day of the calendar, as do all others; write it "
                    "as 2024-12-31, or give the unit (--time-unit s)"
                ),
            )
        return "ms" if of_first == _MILLISECONDS else "s"
    if unit == "ms":
        in_ms = columns.first_row(lambda rows: ~dated[rows] & (ranges(rows) == _MILLISECONDS))
        if in_ms is not None:
            columns.refuse(
                lambda rows: ~dated[rows] & (ranges(rows) == _SECONDS),
                lambda row: _other_unit(columns, row, in_ms),
            )
    return unit


def _is_calendar_day(numbers: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which numbers write a day of 1990 to 2099 as YYYYMMDD: bool[n]."""
    year, month, day = numbers // 10_000, numbers // 100 % 100, numbers % 100
    in_calendar = (year >= 1990) & (year < 2100) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
    return np.asarray(in_calendar & (numbers == np.rint(numbers)))


def _other_unit(columns: Columns, row: int, other: int) -> str:
    """Why the times of two rows cannot be in one log."""
    given = columns.times["timestamp"].given
    of_row, of_other = np.digitize(given[[row, other]], (_FROM_S, _FROM_S * 1000)).tolist()
    file, row_in_file = place_in(columns.parts, other)
    return (
        f"timestamp {given[row]:.15g} is {_RANGE_NAMES[of_row]}, where row {row_in_file} of "
        f"{file.name} has {given[other]:.15g}, {_RANGE_NAMES[of_other]}; use one unit throughout, "
        "or dates"
    )
