"""Which parts are merged: small ones into larger ones, as in a log-structured merge tree (O'Neil et al.,
The log-structured merge-tree, Acta Informatica 1996).

Each merge makes the part that an event is in at least GROWTH times as large, so that an event is written
again a few times only: of 4,096 parts of equal size, four times each.
"""

from collections.abc import Sequence
from itertools import groupby

from eddy.models.logs.manifests import Part

PARTS = 8
"""No fewer parts than these become one."""

GROWTH = 4
"""A merge is worth its work when the new part is so many times as large as the largest old one."""

LARGEST_BYTES = 256 << 20
"""A part of this size is merged no more."""


def parts_to_merge(parts: Sequence[Part]) -> list[Part]:
    """Parts of one day to be merged next, consecutive in offset order; empty when there are none.

    parts: those of a bucket, by day and offset. For each size, from the smallest on, the parts at the end of
    a day that are no larger are merged if there are PARTS of them, which together are GROWTH times as large
    as the largest.
    """
    for _, group in groupby(parts, key=lambda part: part.day):
        of_day = list(group)
        for size in sorted({part.rows for part in of_day}):
            start = len(of_day)
            while start and of_day[start - 1].rows <= size and of_day[start - 1].bytes < LARGEST_BYTES:
                start -= 1
            run = of_day[start:]
            rows = [part.rows for part in run]
            if len(run) >= PARTS and sum(rows) >= GROWTH * max(rows):
                return run
    return []
