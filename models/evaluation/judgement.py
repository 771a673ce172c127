"""Whether a new version may take the live one's place: both rank the same events, which neither has seen.

The events are the last ones of the log, the window. Each is ranked prequentially: from the state and the item
statistics as they were just before it, which come from the same events for everybody, and then it is learned
from. The differences have intervals (eddy.models.evaluation.bootstrap), by which `decide` decides.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np

from eddy.models.descriptions import until_of
from eddy.models.errors import EddyError, UnfitModel
from eddy.models.evaluation.baselines import baselines, decayed_popularity
from eddy.models.evaluation.bootstrap import Interval, interval
from eddy.models.evaluation.evaluate import DEFAULT_BATCH
from eddy.models.evaluation.metrics import Metrics, gains, metrics
from eddy.models.evaluation.protocols import Mode, Trial, known_before
from eddy.models.evaluation.ranks import counting, recommender_ranks
from eddy.models.logs.events import Events
from eddy.models.registry import Version
from eddy.models.rules import EventRules

Rule = Literal["not-worse", "better"]
METRIC = "mrr@20"
"""What versions are judged by, unless the user says otherwise."""

POPULARITY = "decayed_popularity"

LEAST_TARGETS = 200
"""A window with fewer events to rank decides nothing."""


@dataclass(frozen=True)
class Window:
    """Rows of a log, [tuning, start) and [start, n): the counting rules are tuned on the former, and the
    latter are judged.
    """

    tuning: int
    start: int


@dataclass(frozen=True)
class Judgement:
    """What was measured in a window, and what the candidate gains over each of the others."""

    since_ms: int
    until_ms: int
    targets: int
    users: int
    mode: Mode
    metric: str
    """by which the gate decides"""
    metrics: dict[str, Metrics]
    """of "candidate", "live" where there is a live version, and of counting rules by their names"""
    gains: dict[str, Interval]
    """mean of the candidate's `metric` minus the other's on the same events, by the other's name"""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "window": {"since_ms": self.since_ms, "until_ms": self.until_ms},
            "targets": self.targets,
            "users": self.users,
            "mode": self.mode,
            "metric": self.metric,
            "metrics": self.metrics,
            "gains": {name: gain.to_dict() for name, gain in self.gains.items()},
        }


@dataclass(frozen=True)
class Verdict:
    """What a gate decided, and one sentence that says why."""

    passed: bool
    reason: str


def judge_candidate(
    events: Events,
    window: Window,
    candidate: Version,
    live: Version | None,
    rules: EventRules,
    mode: Mode,
    progress: Callable[[int, int], None] = lambda done, of: None,
    metric: str = METRIC,
) -> Judgement:
    """Rank the window's events by both versions and by decayed popularity; without a live version by all
    counting rules.

    rules: which of the events are targets; each version counts with its own.
    progress: called with the number of events that were ranked, and the number of all.

    Errors: EddyError when a version has seen events of the window, or the window has too few targets.
    """
    # 1. Neither version may have seen what it is judged on. A log may have lost all of it meanwhile.
    if window.start >= len(events):
        raise EddyError(f"{events.source}: no event is left to judge on; it takes {LEAST_TARGETS}")
    since_ms = int(events.timestamp[window.start])
    for version in filter(None, (candidate, live)):
        require_unseen(version, since_ms)
    trial = window_trial(events, window, rules)
    in_mode = trial.in_mode(mode)
    judged = trial.judged[in_mode]
    if len(judged) < LEAST_TARGETS:
        raise EddyError(
            f"{events.source}: {len(judged)} events are too few to judge on; it takes {LEAST_TARGETS}"
        )
    # 2. The ranks of the versions.
    versions = {"candidate": candidate} | ({"live": live} if live else {})
    ranked = counting(progress, len(in_mode) * len(versions))
    ranks = {
        name: recommender_ranks(
            trial, version.recommender, version.vocabulary, version.rules, DEFAULT_BATCH, ranked,
            version.features,
        ).of(mode)[in_mode]
        for name, version in versions.items()
    }  # fmt: skip
    # 3. The ranks of the counting rules, tuned on the events before the window.
    with_tuning = window_trial(events, window, rules, tuning=True)
    for rule in [decayed_popularity(with_tuning)] if live else baselines(with_tuning):
        ranks[rule.name] = rule.ranks[mode]
    # 4. The differences.
    user = events.user[judged]
    gain = {name: gains(ranks_of)[metric] for name, ranks_of in ranks.items()}
    return Judgement(
        since_ms=since_ms,
        until_ms=int(events.timestamp[-1]),
        targets=len(judged),
        users=len(np.unique(user)),
        mode=mode,
        metric=metric,
        metrics={name: metrics(ranks_of) for name, ranks_of in ranks.items()},
        gains={name: interval(gain["candidate"] - gain[name], user) for name in ranks if name != "candidate"},
    )


def window_trial(events: Events, window: Window, rules: EventRules, tuning: bool = False) -> Trial:
    """The trial in which the window's events are judged, with or without a part before them that tunes."""
    train = window.tuning if tuning else window.start
    return Trial("prequential", events, events.flags(rules), train, window.start, True, known_before(events))


def require_unseen(version: Version, since_ms: int) -> None:
    """Errors: UnfitModel when the version has, or may have, seen events from this moment (ms) on: it would
    look better than it is.
    """
    until = until_of(version.metrics)
    if until is None:
        raise UnfitModel(
            f"{version.id}: it is not known which events it was trained on, so nothing can be judged on them"
        )
    if until >= since_ms:
        raise UnfitModel(
            f"{version.id} was trained on events that it would be judged on (until {_moment(until)}; "
            f"the window begins at {_moment(since_ms)}), which is a leak; judge it on later events"
        )


def decide(judgement: Judgement, rule: Rule) -> Verdict:
    """Whether the candidate may go live.

    It has to be better than decayed popularity beyond noise. With the rule "not-worse" it must not be worse
    beyond noise than the live version or, where there is none, than any counting rule; with "better" it must
    be better than these beyond noise.
    """

    def reason(relation: str, name: str, gain: Interval) -> str:
        other = "the live version" if name == "live" else name
        return f"{judgement.metric} {relation} that of {other} beyond noise: {gain}"

    popularity = judgement.gains[POPULARITY]
    if popularity.low <= 0:
        return Verdict(False, reason("is not above", POPULARITY, popularity))
    others = {name: gain for name, gain in judgement.gains.items() if name != POPULARITY}
    rival, gain = min(others.items(), key=lambda item: item[1].mean)
    for name, other in others.items():
        if other.high < 0:
            return Verdict(False, reason("is below", name, other))
        if rule == "better" and other.low <= 0:
            return Verdict(False, reason("is not above", name, other))
    return Verdict(True, reason("is above" if gain.low > 0 else "is not below", rival, gain))


def _moment(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")
