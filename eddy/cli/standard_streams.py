"""Standard input, output and error of a process that was started without some of them."""

import os
import sys

_STREAMS = {0: ("stdin", "r"), 1: ("stdout", "w"), 2: ("stderr", "w")}


def open_missing_streams() -> None:
    """Give each closed standard stream the null device. Otherwise the next file that is opened gets its
    number, and what a library writes to standard error goes into that file; and Python prints to standard
    output what is meant for a standard error that is not there.
    """
    for number, (name, mode) in _STREAMS.items():
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
