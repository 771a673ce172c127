"""Which parts are merged: as in a log-structured merge tree, parts of one size into one of the next.

O'Neil et al., The log-structured merge-tree, Acta Informatica 1996. Each event is written again once per
level, and a day of a bucket keeps fewer than PARTS files of each level.
"""

from collections.abc import Sequence
from itertools import groupby

from eddy.models.logs.manifests import Part

PARTS = 8
"""So many parts of one level become one."""

LARGEST_BYTES = 256 << 20
"""A part of this size is merged no more."""


def parts_to_merge(parts: Sequence[Part]) -> list[Part]:
    """Parts of one day to be merged next, consecutive in offset order; empty when there are none.

    parts: those of a bucket, by day and offset. The parts at the end of a day are merged when there are PARTS
    of the same level or below: those before them are larger, so that the order of the events stays.
    """
    for _, group in groupby(parts, key=lambda part: part.day):
        of_day = list(group)
        for level in sorted({_level(part) for part in of_day}):
            run = len(of_day)
            while run and _level(of_day[run - 1]) <= level and of_day[run - 1].bytes < LARGEST_BYTES:
                run -= 1
            if len(of_day) - run >= PARTS:
                return of_day[run:]
    return []


def _level(part: Part) -> int:
    """The number of its rows' digits to the base PARTS, so that PARTS parts of a level make one of the
    next.
    """
    level, rows = 0, part.rows
    while rows >= PARTS:
        level, rows = level + 1, rows // PARTS
    return level
