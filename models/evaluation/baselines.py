"""Baselines of the evaluation: rules that count, each tuned on the validation part of the trial.

A baseline is a counting rule and a way to treat the user's own items: as they score, never, or first (the
most recent one before the others). The walk ranks each judged event by every rule before the rules learn from
it.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from eddy.models.evaluation.counts import CountRules, Transitions
from eddy.models.evaluation.metrics import MISS, Metrics, metrics
from eddy.models.evaluation.protocols import MODES, Mode, Trial

TUNED_BY = "mrr@20"
"""Metric by which a baseline's settings are chosen."""

_DAY_MS = 86_400_000.0
HALF_LIVES_DAYS = (1 / 24, 1 / 6, 0.5, 1, 3, 7, 14, 30, 90, 365)
HALF_LIVES_EVENTS = (30, 300, 1_000, 3_000, 10_000, 30_000)
"""Half-lives counted in events of the whole log, for streams whose pace changes."""

LAGS = 20
"""A user's last items from which transitions count."""

DAMPING = 0.5
"""Power of the popularity of the item that a transition leads to, by which it is divided."""

Treatment = Literal["as scored", "never", "first"]
PLAIN: tuple[Treatment, ...] = ("as scored", "never")
REPEATS: tuple[Treatment, ...] = ("first", "never")


@dataclass(frozen=True)
class Decay:
    """A half-life, and the clock by which it is measured."""

    name: str
    half_life: float
    clock: NDArray[np.float64]  # [n] the time of each event


Group = tuple[CountRules, Sequence[Decay]]
"""Rules that share their transitions, and the decay of the popularity behind each."""


@dataclass(frozen=True)
class Ranks:
    """Strict ranks of m judged events by one rule, int64[m] each."""

    all: NDArray[np.int64]  # among all candidates
    unseen: NDArray[np.int64]  # among the candidates that are new to the user; of no meaning for a repeat

    def of(self, mode: Mode) -> NDArray[np.int64]:
        """The ranks in a mode."""
        return self.unseen if mode == "unseen" else self.all


@dataclass(frozen=True)
class History:
    """The candidates that the user had before each of m judged events."""

    count: NDArray[np.int64]  # [m] distinct items
    recency: NDArray[np.int64]  # [m] the target's place among them, 1 = most recent; 0 = new to the user

    @property
    def new(self) -> NDArray[np.bool_]:
        """Which targets are new to their user: what mode "unseen" judges."""
        return np.equal(self.recency, 0)


@dataclass(frozen=True)
class Baseline:
    """A baseline as tuned for each mode, and its metrics on the reported part."""

    name: str
    settings: dict[Mode, dict[str, str]]
    metrics: dict[Mode, Metrics]
    ranks: dict[Mode, NDArray[np.int64]]
    """of the reported events that count in the mode"""


def rule_group(
    trial: Trial, decays: Sequence[Decay], lags: int = 0, damping: float = 0.0, frozen: bool = False
) -> Group:
    """Rules that rank by transitions over `lags` items (0 = none), then by popularity with each of the
    decays.

    frozen: whether they learn from the training part only.
    """
    items = len(trial.events.items)
    transitions = Transitions(items, lags) if lags else None
    return CountRules(items, [decay.half_life for decay in decays], transitions, damping, frozen), decays


def rank_by_rules(trial: Trial, groups: Sequence[Group]) -> tuple[History, list[list[Ranks]]]:
    """Rank every judged event of the trial by each rule of each group, before the rules learn from it.

    1. Learn the popularities of the training part. 2. Walk the log: rank what is judged, then learn.
    """
    # 1. The training part.
    judged, counted = trial.judged, trial.counted
    learned = np.flatnonzero(counted[: trial.train])
    for rules, decays in groups:
        rules.begin(trial.events.item[learned], [decay.clock[learned] for decay in decays])
    ranks = [np.full((2, len(decays), len(judged)), MISS) for _, decays in groups]
    count, recency = np.zeros((2, len(judged)), np.int64)
    # 2. The walk; `position` is the next judged event's among all judged events.
    position = 0
    for row, item, own_items, recent in histories(trial):
        if position < len(judged) and row == judged[position]:
            candidates = int(trial.candidates[row])
            own = np.fromiter(own_items, np.int64, len(own_items))
            own = own[(own < candidates) | (own == item)]
            count[position] = len(own)
            if item in own_items:
                recency[position] = len(own) - int(np.flatnonzero(own == item)[0])
            if item < candidates:
                others = own[own != item]
                for (rules, _), ranks_of_group in zip(groups, ranks, strict=True):
                    for index, not_below in enumerate(rules.not_below(recent, item, candidates)):
                        rank = np.count_nonzero(not_below)
                        ranks_of_group[:, index, position] = rank, rank - np.count_nonzero(not_below[others])
            position += 1
        if counted[row]:
            for rules, decays in groups:
                if row < trial.train:
                    rules.learn_transitions(recent, item)
                elif trial.learns and not rules.frozen:
                    rules.learn_transitions(recent, item)
                    rules.learn_popularity(item, [float(decay.clock[row]) for decay in decays])
    return History(count, recency), [
        [Ranks(*both) for both in zip(*ranks_of_group, strict=True)] for ranks_of_group in ranks
    ]


def histories(trial: Trial) -> Iterator[tuple[int, int, dict[int, None], deque[int]]]:
    """Yield for each row: (row, item, the user's own items, oldest first, the recent ones, newest first), as
    they were before it.
    """
    users = len(trial.events.users)
    own_items: list[dict[int, None]] = [{} for _ in range(users)]
    recent: list[deque[int]] = [deque(maxlen=LAGS) for _ in range(users)]
    columns = (trial.events.user, trial.events.item, trial.flags.moves)
    for row, (user, item, moves) in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        yield row, item, own_items[user], recent[user]
        if moves:
            own_items[user].pop(item, None)
            own_items[user][item] = None
            recent[user].appendleft(item)


def treat_own(ranks: Ranks, history: History, treatment: Treatment, mode: Mode) -> NDArray[np.int64]:
    """The ranks of the judged events under a treatment of the user's own items: int64[m]."""
    if mode == "unseen":
        return ranks.unseen
    if treatment == "as scored":
        return ranks.all
    if treatment == "never":
        return np.where(history.new, ranks.unseen, MISS)
    missed = ranks.all == MISS
    behind_own = np.where(missed, 0, ranks.unseen) + history.count
    return np.where(missed, MISS, np.where(history.new, behind_own, history.recency))


def decayed_popularity(trial: Trial) -> Baseline:
    """The baseline of this name alone, which takes a small part of the time of all."""
    decays = _decays(trial)
    history, (moving,) = rank_by_rules(trial, [rule_group(trial, decays)])
    return _tuned(trial, history, "decayed_popularity", decays, moving, PLAIN)


def baselines(trial: Trial) -> list[Baseline]:
    """All baselines on the trial, each tuned by TUNED_BY on the tuning part, separately for each mode."""
    decays = _decays(trial)
    history, (frozen, moving) = rank_by_rules(
        trial, [rule_group(trial, decays[:1], frozen=True), rule_group(trial, decays)]
    )
    by_popularity = [
        _tuned(trial, history, "popularity", decays, frozen, PLAIN),
        _tuned(trial, history, "popularity_online", decays, moving[:1], PLAIN),
        _tuned(trial, history, "decayed_popularity", decays, moving, PLAIN),
        _tuned(trial, history, "repeats_then_popularity", decays, moving, REPEATS),
    ]
    tuned = {baseline.settings[mode]["half-life"] for baseline in by_popularity for mode in MODES}
    behind = [decay for decay in decays if decay.name in tuned]
    _, (last, last_20) = rank_by_rules(
        trial, [rule_group(trial, behind, 1), rule_group(trial, behind, LAGS, DAMPING)]
    )
    return [
        *by_popularity,
        _tuned(trial, history, "markov_last", behind, last, PLAIN),
        _tuned(trial, history, "markov_last_20", behind, last_20, PLAIN),
        _tuned(trial, history, "repeats_then_markov", behind, last, REPEATS),
    ]


def _decays(trial: Trial) -> list[Decay]:
    """The decays of popularity that are tried: first plain counts, then half-lives where there is a clock for
    them.
    """
    by_time = trial.events.timestamp.astype(np.float64)
    by_order = np.arange(len(trial.events), dtype=np.float64)
    decays = [Decay("none", math.inf, by_time)]
    if trial.events.clock:
        decays += [Decay(f"{days:.2g} d", days * _DAY_MS, by_time) for days in HALF_LIVES_DAYS]
    if trial.learns:
        decays += [Decay(f"{events} events", float(events), by_order) for events in HALF_LIVES_EVENTS]
    return decays


def _tuned(
    trial: Trial,
    history: History,
    name: str,
    decays: Sequence[Decay],
    ranks: Sequence[Ranks],
    treatments: Sequence[Treatment],
) -> Baseline:
    """The settings that are best on the tuning part, by mode, with their metrics on the reported part."""
    settings: dict[Mode, dict[str, str]] = {}
    ranks_of: dict[Mode, NDArray[np.int64]] = {}
    for mode in MODES:
        in_mode = history.new if mode == "unseen" else np.ones_like(history.new)
        best = -math.inf
        for decay, by_rule in zip(decays, ranks, strict=False):
            for treatment in treatments:
                treated = treat_own(by_rule, history, treatment, mode)
                score = metrics(treated[trial.tuning & in_mode])[TUNED_BY]
                if score > best or mode not in settings:
                    best, settings[mode] = score, {"half-life": decay.name, "own items": treatment}
                    ranks_of[mode] = treated[~trial.tuning & in_mode]
    return Baseline(name, settings, {mode: metrics(ranks_of[mode]) for mode in MODES}, ranks_of)
