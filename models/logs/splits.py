"""Splits of an event log: always by time, never at random."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eddy.models.errors import EddyError
from eddy.models.logs.events import Events
from eddy.models.logs.order import Rows, order_by_number

MIN_EVENTS = 3
"""Leave-one-out tests users with at least this many events: one each to train, to validate and to test."""


def boundary(events: Events, fraction: float) -> int:
    """The row at which the first `fraction` of the log, by time, ends.

    Errors: EddyError when a side would be empty.
    """
    row = int(len(events) * fraction)
    if not 0 < row < len(events):
        raise EddyError(
            f"{events.source}: {len(events)} events cannot be split at {fraction:.0%}; more are needed"
        )
    return row


def long_users(events: Events) -> tuple[Rows, NDArray[np.int64]]:
    """The rows user after user, each user's in order, and where in that order the last event of each user
    with at least MIN_EVENTS events stands: [n], int64[m].
    """
    by_user, start = order_by_number(events.user, len(events.users), events.store)
    return by_user, start[1:][np.diff(start) >= MIN_EVENTS] - 1


@dataclass(frozen=True)
class LeaveOneOut:
    """Rows of a log: every user's last event is the test target, the one before it the validation target."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def leave_one_out(events: Events) -> LeaveOneOut:
    """Split every user's sequence; users with fewer than three events are training data only.

    Errors: EddyError when no user has three events.
    """
    by_user, last = long_users(events)
    if not len(last):
        raise EddyError(
            f"{events.source}: leave-one-out needs users with at least three events; no user has them"
        )
    held_out = np.zeros(len(events), bool)
    validation, test = by_user[last - 1], by_user[last]
    held_out[validation] = held_out[test] = True
    return LeaveOneOut(np.flatnonzero(~held_out), np.sort(validation), np.sort(test))
