"""Which events a refresh learns from, and which it judges on."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from eddy.models.descriptions import until_of
from eddy.models.errors import EddyError
from eddy.models.evaluation.judgement import LEAST_TARGETS, Window, window_trial
from eddy.models.evaluation.protocols import Mode
from eddy.models.logs.events import Events
from eddy.models.registry import Version
from eddy.models.rules import EventRules
from eddy.models.training.warm_start import unseen_row
from eddy.stream.records.clock import DAY_MS, wall_ms

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


class NotYet(EddyError):
    """There is nothing to refresh or to compare with: too few new events."""


def unseen_by_all(events: Events, versions: Sequence[Version]) -> int:
    """The first row of a log that none of the versions was trained on.

    Errors: EddyError when it is not known.
    """
    return max((unseen_row(events, version) for version in versions), default=0)


def names_of(versions: Sequence[Version]) -> str:
    """The versions in a sentence about events since they were trained. Of one that knows an event of the
    future it says so, as no event will be new to it until then.
    """
    return " and ".join(map(_name_of, versions)) or "the beginning"


def _name_of(version: Version) -> str:
    until = until_of(version.metrics)
    if until is None or until <= wall_ms() + DAY_MS:
        return version.id
    day = datetime.fromtimestamp(until / 1000, UTC).date()
    return f"{version.id} (trained on an event of {day}, a wrong time: train without it, or roll back)"


def times_to_judge(
    events: Events, seen_by: Sequence[Version], share: float, rules: EventRules, mode: Mode
) -> Times:
    """The window at the end of a log, on a share of the events that none of the versions has seen: see
    `times_of`.

    Errors: NotYet when it has too few targets.
    """
    unseen, targets = unseen_by_all(events, seen_by), 0
    if unseen < len(events):
        times = times_of(events, unseen, share)
        window = window_at(events, times)
        targets = int(window_trial(events, window, rules).in_mode(mode).sum())
    if targets < LEAST_TARGETS:
        raise NotYet(
            f"{targets:,} events since {names_of(seen_by)} can be judged on; it takes {LEAST_TARGETS}"
        )
    return times


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


def window_at(events: Events, times: Times) -> Window:
    """The rows of a window in a log that has grown since its times were chosen, or not."""
    tuning, start = np.searchsorted(events.timestamp, [times.tuning_ms, times.since_ms], side="left")
    return Window(int(tuning), int(start))


def until(events: Events, until_ms: int) -> Events:
    """The events up to this time, which is one of them."""
    return events.take(slice(0, int(np.searchsorted(events.timestamp, until_ms, side="right"))))


def before(events: Events, row: int) -> Events:
    """The events before a row."""
    return events.take(slice(0, row))
