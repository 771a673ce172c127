"""The times of events from what files give: dates as they are, numbers in a unit.

The rule for numbers under the unit "auto": all of them are seconds from 1990 to 2100, or all are milliseconds
from 1990 to 2100, or all are smaller than either, and then they are seconds of a clock that starts at zero. A
file or folder that mixes these is refused, since no guess is right for all of it.
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
    columns.refuse(np.isnan(given), lambda _: "timestamp is empty; every event needs a time")
    numbers = np.flatnonzero(~dated)
    if len(numbers):
        unit = _unit(columns, given, numbers, unit)
    ms = np.where(dated, given, np.rint(given * _MS_PER_UNIT.get(unit, 1)))
    columns.refuse(
        (ms < 0) | (ms >= LATEST_MS),
        lambda row: (
            f"timestamp {given[row]:.15g} is no time between 1970 and 5138"
            f"{'' if dated[row] else f' in {unit}'}; correct it"
        ),
    )
    return ms.astype(np.int64)


def _unit(columns: Columns, given: NDArray[np.float64], numbers: NDArray[np.int64], unit: str) -> str:
    """The unit of the times that are `numbers` (rows): the one given or, of "auto", the one that all agree
    on.

    Errors: EddyError for a number that has no unit, and for one in another unit than the others.
    """
    ranges = np.digitize(given, (_FROM_S, _FROM_S * 1000))
    differs = np.zeros(len(given), np.bool_)
    first = int(numbers[0])
    if unit == "auto":
        until = np.array([_FROM_S, _UNTIL_S, _UNTIL_S * 1000])[ranges[numbers]]
        impossible = np.zeros(len(given), np.bool_)
        impossible[numbers] = (given[numbers] < 0) | (given[numbers] >= until)
        columns.refuse(
            impossible,
            lambda row: (
                f"timestamp {given[row]:.15g} is no time from 1990 to 2100, neither in s nor in ms; "
                "correct it, or give the unit (--time-unit)"
            ),
        )
        differs[numbers] = ranges[numbers] != ranges[first]
        unit = "ms" if ranges[first] == _MILLISECONDS else "s"
    elif unit == "ms" and (ranges[numbers] == _MILLISECONDS).any():
        first = int(numbers[np.argmax(ranges[numbers] == _MILLISECONDS)])
        differs[numbers] = ranges[numbers] == _SECONDS

    def reason(row: int) -> str:
        file, first_row = place_in(columns.parts, first)
        return (
            f"timestamp {given[row]:.15g} is {_RANGE_NAMES[ranges[row]]}, where row {first_row} of "
            f"{file.name} has {given[first]:.15g}, {_RANGE_NAMES[ranges[first]]}; use one unit throughout, "
            "or dates"
        )

    columns.refuse(differs, reason)
    return unit
