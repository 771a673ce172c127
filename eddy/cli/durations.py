"""Durations as a person writes them."""

import re

from eddy.models.errors import EddyError

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_FORM = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd])", re.ASCII)


def read_duration(text: str, option: str) -> float:
    """Seconds from a number and a unit, such as 90s, 30m, 2h or 1d. Errors: EddyError naming the option."""
    match = _FORM.fullmatch(text.strip())
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if seconds <= 0:
        raise EddyError(f"{option} {text!r}: give a number above zero and a unit, such as 90s, 30m, 2h or 1d")
    return seconds
