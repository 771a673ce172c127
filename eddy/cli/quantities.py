"""Durations and shares as a person writes them."""

import re

from eddy.models.errors import EddyError

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_LONGEST_S = 100 * 366 * 86_400  # what waits for longer than some centuries overflows
_FORM = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd])", re.ASCII)
_SHARE = re.compile(r"([1-9][0-9]{0,4})/([1-9][0-9]{0,4})", re.ASCII)
_PERCENT = re.compile(r"([1-9][0-9]?) ?%?", re.ASCII)


def read_duration(text: str, option: str) -> float:
    """Seconds from a number and a unit, such as 90s, 30m, 2h or 1d. Errors: EddyError naming the option."""
    match = _FORM.fullmatch(text.strip())
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not 0 < seconds <= _LONGEST_S:
        raise EddyError(
            f"{option} {text!r}: give a number above zero and a unit, such as 90s, 30m, 2h or 1d, at most a "
            "century"
        )
    return seconds


def read_percent(text: str, option: str) -> int:
    """A whole percent of 1 to 99, with its sign or without. Errors: EddyError naming the option."""
    match = _PERCENT.fullmatch(text.strip())
    if match is None:
        raise EddyError(f"{option} {text!r}: give a whole percent of 1 to 99, such as 10%")
    return int(match[1])


def read_share(text: str, option: str) -> tuple[int, int]:
    """A share of equal ones, such as 2/4: the second of four. Errors: EddyError naming the option."""
    match = _SHARE.fullmatch(text.strip())
    index, of = (int(match[1]), int(match[2])) if match else (1, 0)
    if index > of:
        raise EddyError(
            f"{option} {text!r}: give the number of this process and how many there are, such as 2/4"
        )
    return index, of
