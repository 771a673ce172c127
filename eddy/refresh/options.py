"""What a user may choose for a refresh, and the settings of the model that follow from it."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast, get_args

from eddy.models.config import ModelConfig, TrainConfig, configs
from eddy.models.errors import EddyError, WrongOption
from eddy.models.evaluation.judgement import METRIC, Rule
from eddy.models.evaluation.metrics import NAMES
from eddy.models.logs.events import Events
from eddy.models.logs.item_features import ItemFeatures
from eddy.models.registry import Version
from eddy.models.rules import EventRules
from eddy.models.trained import Trained
from eddy.models.training.train import train
from eddy.models.training.trainer import ProgressCallback
from eddy.models.training.warm_start import may_begin_from

log = logging.getLogger("eddy.refresh")

WARM_EPOCHS = 3
"""Epochs of a training that begins from the live version's weights, at most."""


@dataclass(frozen=True)
class RefreshOptions:
    """Options of `eddy refresh`."""

    events: Path | str | None = None
    """a log that another tool writes; None: Eddy's own, which is brought up to date first"""
    time_unit: str = "auto"
    items: Path | str | None = None
    cell: str | None = None
    assignments: Sequence[str] = ()
    """NAME=VALUE of the model or its training"""
    from_scratch: bool = False
    gate: Rule = "not-worse"
    metric: str = METRIC
    """by which versions are judged"""
    candidate: str | None = None
    """id of a version in the registry that is judged instead of training one"""
    canary_percent: int | None = None
    """so many of the users try the new version before all have it; None: it goes live for all at once"""
    canary_s: float = 7_200.0
    """how long they try it at most"""
    least_events: int = 1_000
    """fewer new events than these are left for a later refresh"""

    @property
    def identity(self) -> str:
        """Text that differs between options that lead to different versions."""
        return repr(sorted(asdict(self).items()))


def gate_rule(name: str) -> Rule:
    """The rule of this name. Errors: EddyError."""
    if name not in get_args(Rule):
        raise EddyError(f"--gate {name}: not a rule; use {' or '.join(get_args(Rule))}")
    return cast(Rule, name)


def metric_of(name: str) -> str:
    """The name, if there is such a metric. Errors: EddyError."""
    if name not in NAMES:
        raise EddyError(f"--metric {name}: not a metric; use {', '.join(NAMES)}")
    return name


@dataclass(frozen=True)
class Recipe:
    """How a candidate is trained."""

    config: ModelConfig
    training: TrainConfig
    """as it is written into the version, and as the next refresh begins with"""
    warm: bool
    """whether training begins from the live version's weights"""

    @property
    def of_this_run(self) -> TrainConfig:
        """The settings of this training: a warm one needs few epochs."""
        if not self.warm:
            return self.training
        return replace(self.training, epochs=min(self.training.epochs, WARM_EPOCHS))

    def train(
        self, events: Events, rules: EventRules, live: Version | None,
        progress: ProgressCallback | None = None, checkpoint: Path | None = None,
        features: ItemFeatures | None = None,
    ) -> Trained:  # fmt: skip
        """A candidate of these events. Errors: as `eddy.models.training.train.train`."""
        return train(
            events, self.config, self.of_this_run, rules, progress, checkpoint, features=features,
            parent=live if self.warm else None,
        )  # fmt: skip


def recipe_of(options: RefreshOptions, live: Version | None) -> Recipe:
    """The settings of the live version, changed by the options; the defaults where there is none, or where
    the options name a cell.

    Errors: WrongOption.
    """
    like_live = live is not None and options.cell in (None, live.recommender.config.cell)
    base = None
    if live is not None and like_live:
        base = live.recommender.config, _training_of(live)
    cell = options.cell or (live.recommender.config.cell if live else "gru")
    try:
        config, training = configs(cell, options.assignments, base)
    except EddyError as error:
        raise WrongOption(str(error)) from None
    warm = (
        live is not None
        and not options.from_scratch
        and not training.ridge
        and may_begin_from(live.recommender.config, config)
    )
    return Recipe(config, training, warm)


def _training_of(version: Version) -> TrainConfig:
    """The settings with which a version was trained, by its lineage; the defaults if that does not tell."""
    stored = version.lineage.get("training")
    if not isinstance(stored, dict):
        return TrainConfig()
    try:
        return TrainConfig.from_dict(stored)
    except (EddyError, TypeError) as error:  # written by a release with other settings
        log.warning("%s: its settings cannot be used (%s); training goes by the defaults", version.id, error)
        return TrainConfig()
