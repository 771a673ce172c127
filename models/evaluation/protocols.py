"""Evaluation protocols: which events are learned from, which are ranked, and among which candidates.

Every protocol becomes a `Trial`: one walk over events in which each judged event is ranked from what came
before it and then enters its user's history. Rankings are full (never against sampled negatives), in two
modes: "all", with nothing left out, and "unseen", without the items of the user's history. Lists of mode
"unseen" cannot hold an event that repeats one of its user's items, so it is not judged there. A target that
is no candidate (an item's first appearance) is a miss for every recommender.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from eddy.models.errors import EddyError
from eddy.models.logs.column_store import slices
from eddy.models.logs.events import Events
from eddy.models.logs.splits import boundary, leave_one_out
from eddy.models.rules import EVERY_EVENT, EventRules, Flags

Protocol = Literal["leave-one-out", "temporal", "prequential"]
Mode = Literal["all", "unseen"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True)
class Trial:
    """A log whose rows are in the order of the walk: [0, train) are learned from, [train, test) tune, [test,
    n) are reported.
    """

    protocol: Protocol
    events: Events
    flags: Flags
    train: int
    test: int
    learns: bool  # statistics learn from judged events too, after ranking them
    candidates: NDArray[np.int64]  # [n] at each row the items below this number are ranked

    @property
    def training_part(self) -> Events:
        """The events that a recommender may be trained on."""
        return self.events.take(slice(0, self.train))

    @property
    def judged(self) -> NDArray[np.int64]:
        """The rows that are ranked, in order."""
        return np.flatnonzero(self.flags.target[self.train :]) + self.train

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Which rows item statistics learn from: those that move a state and are not negative."""
        return self.flags.moves & ~self.flags.negative

    def in_mode(self, mode: Mode) -> NDArray[np.bool_]:
        """Which of the judged rows count in a mode: bool[m]. In "unseen" these are the ones whose item is new
        to its user.
        """
        judged = self.judged
        if mode == "all":
            return np.ones(len(judged), bool)
        events = self.events
        pair = events.user.astype(np.int64) * len(events.items) + events.item
        moving = np.flatnonzero(self.flags.moves)
        if not len(moving):
            return np.ones(len(judged), bool)
        pairs, first = np.unique(pair[moving], return_index=True)
        place = np.minimum(np.searchsorted(pairs, pair[judged]), len(pairs) - 1)
        had_before = (pairs[place] == pair[judged]) & (moving[first[place]] < judged)
        new: NDArray[np.bool_] = ~had_before
        return new

    @property
    def tuning(self) -> NDArray[np.bool_]:
        """Which of the judged rows are for tuning: bool[m]."""
        return self.judged < self.test


def require_mode(mode: str) -> None:
    """Errors: EddyError for an unknown mode."""
    if mode not in MODES:
        raise EddyError(f"mode {mode!r} is not known; use {' or '.join(MODES)}")


def require_reported(trial: Trial, mode: Mode) -> None:
    """Errors: EddyError when a mode leaves no event to report on."""
    if not np.any(trial.in_mode(mode) & ~trial.tuning):
        raise EddyError(
            f"{trial.events.source}: mode {mode} has no event to judge, as all items were their users' "
            "before; use --mode all"
        )


def make_trial(
    events: Events,
    protocol: Protocol,
    rules: EventRules = EVERY_EVENT,
    train: float = 0.8,
    validation: float = 0.1,
) -> Trial:
    """Set up a protocol on an event log.

    - "leave-one-out": each user's last event is judged, and the one before it tunes. Statistics come from the
      rest. Every item of the log is a candidate.
    - "temporal": the share `train` of the log is learned from, the share `validation` after it tunes, and the
      rest is judged. States follow the true history; statistics stay as at the end of the training part.
    - "prequential": the same parts, but statistics learn from every event once it has been ranked.

    Errors: EddyError for a log without a clock in a protocol that needs one, or with nothing to judge.
    """
    if protocol not in get_args(Protocol):
        raise EddyError(f"protocol {protocol!r} is not known; use {', '.join(get_args(Protocol))}")
    if protocol == "leave-one-out":
        split = leave_one_out(events)
        events = events.take(np.concatenate([split.train, split.validation, split.test]))
        start, test = len(split.train), len(split.train) + len(split.validation)
        candidates = np.full(len(events), len(events.items))
    else:
        if not events.clock:
            raise EddyError(
                f"{events.source}: no timestamp column, and {protocol} evaluation needs event times;"
                " use --protocol leave-one-out"
            )
        start, test = boundary(events, train), boundary(events, train + validation)
        candidates = known_before(events)
        if protocol == "temporal":
            candidates = np.minimum(candidates, candidates[start])
    trial = Trial(protocol, events, events.flags(rules), start, test, protocol == "prequential", candidates)
    if trial.tuning.all() or not trial.tuning.any():
        raise EddyError(f"{events.source}: no event to judge is left; give more events or other event rules")
    return trial


def known_before(events: Events) -> NDArray[np.int64]:
    """How many items had appeared before each event: items are numbered by first appearance."""
    known = events.store.empty(len(events), np.int64)
    newest = -1
    for part in slices(len(events)):
        newest_until = np.maximum.accumulate(np.concatenate([[newest], events.item[part]]))
        known[part] = newest_until[:-1] + 1
        newest = int(newest_until[-1])
    return known
