"""Durations and shares as a person writes them."""

import re

from eddy.models.errors import EddyError

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_FORM = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd])", re.ASCII)
_PERCENT = re.compile(r"([1-9][0-9]?) ?%?", re.ASCII)


def read_duration(text: str, option: str) -> float:
    """Seconds from a number and a unit, such as 90s, 30m, 2h or 1d. Errors: EddyError naming the option."""
    match = _FORM.fullmatch(text.strip())
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if seconds <= 0:
        raise EddyError(f"{option} {text!r}: give a number above zero and a unit, such as 90s, 30m, 2h or 1d")
    return seconds


def read_percent(text: str, option: str) -> int:
    """A whole percent of 1 to 99, with its sign or without. Errors: EddyError naming the option."""
    match = _PERCENT.fullmatch(text.strip())
    if match is None:
        raise EddyError(f"{option} {text!r}: give a whole percent of 1 to 99, such as 10%")
    return int(match[1])
