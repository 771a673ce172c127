"""`evaluate`: a report of one recommender and all baselines on one log under one protocol.

All are judged on the same events, among the same candidates and in both ranking modes, and they learn at the
same moments. The recommender's weights never move (see eddy.models.evaluation.protocols for what each
protocol learns from).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from eddy.models.config import ModelConfig, TrainConfig
from eddy.models.descriptions import until_of
from eddy.models.errors import EddyError
from eddy.models.evaluation.baselines import Baseline, baselines
from eddy.models.evaluation.metrics import Metrics, metrics
from eddy.models.evaluation.protocols import (
    MODES,
    Mode,
    Protocol,
    Trial,
    make_trial,
    require_mode,
    require_reported,
)
from eddy.models.evaluation.ranks import counting, recommender_ranks
from eddy.models.logs.events import Events
from eddy.models.logs.item_features import ItemFeatures
from eddy.models.registry import Version
from eddy.models.rules import EVERY_EVENT, EventRules
from eddy.models.trained import Trained
from eddy.models.training.train import train
from eddy.models.training.trainer import ProgressCallback

DEFAULT_BATCH = 8
"""Events of a micro-batch. Measured on movietweetings: MRR@20 .1142 at 1, .1144 at 8, .1141 at 32, .1108 at
256; 8 takes a twelfth of the time of 1.
"""
TABLE = ("mrr@20", "recall@20", "hr@10", "ndcg@10")
"""Metrics of the printed table; the first one orders it."""


@dataclass(frozen=True)
class ModelMetrics:
    """A recommender's metrics in a trial, by mode."""

    reported: dict[Mode, Metrics]
    tuning: dict[Mode, Metrics]
    events: dict[Mode, int]  # how many events are reported on


@dataclass(frozen=True)
class Report:
    """The metrics of the model and of every baseline, which are tuned on the tuning part."""

    trial: Trial
    mode: Mode
    judged: ModelMetrics
    baselines: list[Baseline]
    about: dict[str, Any]
    warning: str | None

    def best_baseline(self, mode: Mode, metric: str = "mrr@20") -> Baseline:
        """The baseline with the highest value of a metric."""
        return max(self.baselines, key=lambda baseline: baseline.metrics[mode][metric])

    def table(self) -> str:
        """Plain text: the model and every baseline, best first, in the report's mode, then in the other."""
        other_mode: Mode = "unseen" if self.mode == "all" else "all"
        return "\n\n".join(self._table(mode) for mode in (self.mode, other_mode))

    def _table(self, mode: Mode) -> str:
        title = f"{self.trial.protocol}, mode {mode}: {self.judged.events[mode]:,} events judged"
        if not self.judged.events[mode]:
            return title
        rows = [
            (baseline.name, baseline.metrics[mode], ", ".join(baseline.settings[mode].values()))
            for baseline in self.baselines
        ]
        rows.append((f"EDDY ({self.about['config']['cell']})", self.judged.reported[mode], ""))
        rows.sort(key=lambda row: row[1][TABLE[0]], reverse=True)
        width = max(len(name) for name, _, _ in rows)
        lines = [
            title,
            " ".join(["".ljust(width), *(name.rjust(9) for name in TABLE), "  half-life, own items"]),
        ]
        for name, values, tuned in rows:
            lines.append(
                " ".join([name.ljust(width), *(f"{values[m]:9.4f}" for m in TABLE), f"  {tuned}"]).rstrip()
            )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; a metric over no events is null."""
        by_mode = {
            mode: {
                "judged": self.judged.events[mode],
                "model": _plain(self.judged.reported[mode]),
                "baselines": {baseline.name: _plain(baseline.metrics[mode]) for baseline in self.baselines},
                "baseline_settings": {baseline.name: baseline.settings[mode] for baseline in self.baselines},
                "tuning": _plain(self.judged.tuning[mode]),
            }
            for mode in MODES
        }
        return {
            "protocol": self.trial.protocol,
            "mode": self.mode,
            **by_mode[self.mode],
            "modes": by_mode,
            "events": {
                "source": self.trial.events.source,
                "all": len(self.trial.events),
                "train": self.trial.train,
                "users": len(self.trial.events.users),
                "items": len(self.trial.events.items),
            },
            **self.about,
            "warning": self.warning,
        }


def judge(
    trial: Trial,
    model: Trained | Version,
    rules: EventRules,
    batch: int = DEFAULT_BATCH,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> ModelMetrics:
    """Rank the trial's events with a recommender.

    progress: called with the number of events that are ranked, and with the number of all.
    """
    ranks = recommender_ranks(
        trial, model.recommender, model.vocabulary, rules, batch, counting(progress, len(trial.judged)),
        model.features,
    )  # fmt: skip
    in_mode = {mode: trial.in_mode(mode) for mode in MODES}
    return ModelMetrics(
        reported={mode: metrics(ranks.of(mode)[in_mode[mode] & ~trial.tuning]) for mode in MODES},
        tuning={mode: metrics(ranks.of(mode)[in_mode[mode] & trial.tuning]) for mode in MODES},
        events={mode: int((in_mode[mode] & ~trial.tuning).sum()) for mode in MODES},
    )


def evaluate(
    events: Events,
    protocol: Protocol,
    mode: Mode = "all",
    version: Version | None = None,
    config: ModelConfig | None = None,
    settings: TrainConfig | None = None,
    rules: EventRules | None = None,
    batch: int = DEFAULT_BATCH,
    training: ProgressCallback | None = None,
    ranking: Callable[[int, int], None] = lambda done, of: None,
    features: ItemFeatures | None = None,
) -> Report:
    """Evaluate a version or, without one, a recommender that is first trained on the protocol's training
    part.

    config, settings: of the recommender that is trained here.
    rules: by default those that the version was trained with; a new recommender has every event as a target.
    batch: events of a micro-batch; with 1 everything is exact.
    training, ranking: report the progress of these.
    features: metadata of items for a recommender that is trained here; a version has its own.

    Errors: EddyError for events that the protocol cannot use, and for training that fails.
    """
    require_mode(mode)
    if batch < 1:
        raise EddyError(f"a micro-batch of {batch} events is not possible; use 1 or more")
    rules = rules or (version.rules if version else EVERY_EVENT)
    trial = make_trial(events, protocol, rules)
    require_reported(trial, mode)
    model: Trained | Version = version or train(
        trial.training_part, config or ModelConfig(), settings or TrainConfig(), rules, training,
        features=features,
    )  # fmt: skip
    judged = judge(trial, model, rules, batch, ranking)
    return Report(
        trial=trial,
        mode=mode,
        judged=judged,
        baselines=baselines(trial),
        about={
            "version": version.id if version else None,
            "config": model.recommender.config.to_dict(),
            "parameters": sum(weight.numel() for weight in model.recommender.parameters()),
            "state_bytes": 4 * model.recommender.state_size,
            "training": model.metrics,
            "rules": rules.to_dict(),
            "batch": batch,
        },
        warning=_leak(trial, version),
    )


def _leak(trial: Trial, version: Version | None) -> str | None:
    """A warning where a version was trained on events that it is judged on: it looks better than it is."""
    if version is None:
        return None
    until = until_of(version.metrics)
    first = int(trial.events.timestamp[trial.train])
    if not trial.events.clock or until is None:
        return f"{version.id}: it is not known whether it was trained on the events it is judged on here"
    if until < first:
        return None
    share = float(np.mean(trial.events.timestamp[trial.train :] <= until))
    return (
        f"{version.id} was trained on {share:.0%} of the events it is judged on; use --cell for a fair figure"
    )


def _plain(values: Metrics) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in values.items()}
