"""Which events a refresh learns from, and which it judges on."""

from dataclasses import dataclass

import numpy as np

from eddy.models.evaluation.judgement import Window
from eddy.models.logs.events import Events

JUDGED_OF_NEW, JUDGED_OF_ALL = 0.25, 0.1
"""Share of the events that the live version has not seen on which versions are judged; of all events where
there is no live version.
"""

MOST_JUDGED = 20_000
"""Events of a window, at most: an interval that is narrow enough takes no more."""


@dataclass(frozen=True)
class Times:
    """Event times, ms: counting rules are tuned on [tuning, since), versions are judged on [since, until]."""

    tuning_ms: int
    since_ms: int
    until_ms: int


def times_of(events: Events, unseen: int, share: float) -> Times:
    """The window at the end of a log: this share of the events from row `unseen` on, at most MOST_JUDGED. A
    part of the same size before it is for tuning.

    An event at the very time of the window's first one is in the window, too, so that a time alone tells what
    was seen.
    """
    size = max(1, min(int((len(events) - unseen) * share), MOST_JUDGED))
    start = int(np.searchsorted(events.timestamp, events.timestamp[len(events) - size], side="left"))
    tuning = max(0, start - size)
    return Times(*(int(events.timestamp[row]) for row in (tuning, start, len(events) - 1)))


def window_at(events: Events, tuning_ms: int, since_ms: int) -> Window:
    """The rows of a window whose times are known."""
    tuning, start = np.searchsorted(events.timestamp, [tuning_ms, since_ms], side="left")
    return Window(int(tuning), int(start))


def until(events: Events, until_ms: int) -> Events:
    """The events up to this time, which is one of them."""
    return events.take(slice(0, int(np.searchsorted(events.timestamp, until_ms, side="right"))))


def before(events: Events, row: int) -> Events:
    """The events before a row."""
    return events.take(slice(0, row))
