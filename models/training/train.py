"""Training by truncated backpropagation through time (Werbos 1990; Williams & Peng 1990).

1. The network learns from the log without its last part, on whose loss early stopping decides.
2. The gates that weigh network, moving popularity, pointer and transitions are fitted on the held-out part as
   the stream would have seen it (eddy.models.training.gate_fitting).
3. The network goes on over the whole log, so that the version knows the newest items.
4. With metadata, its features learn to stand in for items; nothing else is changed by them.
"""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eddy.models.config import ModelConfig, TrainConfig
from eddy.models.descriptions import UNTIL
from eddy.models.errors import EddyError
from eddy.models.hashing import item_hashes
from eddy.models.logs.column_store import slices
from eddy.models.logs.events import Events, items_in
from eddy.models.logs.item_features import MIN_ITEMS, ItemFeatures, bags, worth_knowing
from eddy.models.logs.order import count_numbers, row_type
from eddy.models.logs.splits import long_users
from eddy.models.network.recommender import Recommender
from eddy.models.registry import Version
from eddy.models.rules import EventRules
from eddy.models.trained import Trained
from eddy.models.training.distributed import ALONE, Group, require_device
from eddy.models.training.feature_phase import fit_features
from eddy.models.training.gate_fitting import fit_gates
from eddy.models.training.gate_log import gate_log
from eddy.models.training.gradients import gradients
from eddy.models.training.group_log import GroupLog, with_common_numbers
from eddy.models.training.objective import Objective
from eddy.models.training.popularity_prior import prior_of
from eddy.models.training.sequences import sequences
from eddy.models.training.trainer import ProgressCallback, Trainer
from eddy.models.training.warm_start import UNSEEN_HELD_OUT, grown, unseen_row
from eddy.models.vocabulary import MAX_VOCABULARY_TYPES, Vocabulary


def train(
    events: Events, config: ModelConfig, settings: TrainConfig, rules: EventRules,
    progress: ProgressCallback | None = None, checkpoint: Path | None = None, group: Group = ALONE,
    features: ItemFeatures | None = None, parent: Trained | Version | None = None,
) -> Trained:  # fmt: skip
    """Train a version on a log, in the phases that the module names.

    checkpoint: a file in which every epoch is saved, and from which a killed run goes on.
    group: in a group of processes each calls this with the events of its own users (see
    eddy.models.logs.log_share), and otherwise with the same arguments. Each gets the same weights; only the
    first gets all metrics.
    features: metadata of items, by which items that the log does not have are scored.
    parent: whose weights to begin from, instead of random ones. Only what it was not trained on is held out.

    Errors: EddyError for settings that do not fit each other or the parent, for a log without targets or with
    a single item, and when the loss stops being a number.
    """
    settings = replace(settings, device=group.device or settings.device)
    require_device(settings.device)
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    if settings.ridge:
        _require_ridge_possible(config, features)
    features = features or ItemFeatures()
    events = with_common_numbers(events, group)
    vocabulary, moved = vocabulary_of(events, config, rules, features, group)
    config = replace(config, features=len(vocabulary.features))
    torch.manual_seed(settings.seed)
    recommender = (
        grown(parent, vocabulary, config, features)
        if parent
        else Recommender(config, len(vocabulary), len(vocabulary.types))
    )
    unseen = unseen_row(events, parent) if parent else None
    log, first = _held_out(GroupLog(events, group), settings.validation, unseen)
    events = log.events
    trainer = _trainer(recommender, vocabulary, log, rules, settings, features, progress, checkpoint)
    holds_out = trainer.count(range(first, len(events))) > 0
    # 1. The network, without the held-out part.
    metrics = trainer.fit_ridge(first) if settings.ridge else trainer.fit_network(first)
    # 2. The gates: one process fits them, in the order of time, on the CPU, as a log is replayed there.
    if holds_out and settings.gate_epochs:
        of_gates = gate_log(log, first, settings.gate_events, vocabulary, config, rules)
        if of_gates is not None:
            on_cpu = copy.deepcopy(recommender).cpu()
            metrics["gates"] = fit_gates(on_cpu, vocabulary, of_gates, rules, settings)
            recommender.load_state_dict(on_cpu.state_dict())
        group.copy_weights_of_first(recommender)
    # 3. The whole log.
    if holds_out and settings.whole:
        trainer.fit_whole(metrics)
    # 4. The metadata.
    if vocabulary.features:
        fit_features(trainer, vocabulary, features, events, first)
    _measure(metrics, trainer, vocabulary, log)
    metrics["moved"] = moved
    return Trained(recommender, vocabulary, rules, metrics, features)


def extend(
    parent: Trained | Version, events: Events, settings: TrainConfig,
    progress: ProgressCallback | None = None, features: ItemFeatures | None = None,
) -> Trained:  # fmt: skip
    """The parent after one more pass over a log that has grown: the last two phases that the module names.
    Its gates stay.

    Errors: EddyError as `train`.
    """
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    features, rules, config = features or ItemFeatures(), parent.rules, parent.recommender.config
    vocabulary, moved = vocabulary_of(events, config, rules, features)
    config = replace(config, features=len(vocabulary.features))
    torch.manual_seed(settings.seed)
    recommender = grown(parent, vocabulary, config, features)
    log = GroupLog(events, ALONE)
    trainer = _trainer(recommender, vocabulary, log, rules, settings, features, progress)
    metrics = dict(parent.metrics)
    if settings.whole:
        trainer.fit_whole(metrics)
    if vocabulary.features:
        fit_features(trainer, vocabulary, features, events, unseen_row(events, parent))
    _measure(metrics, trainer, vocabulary, log)
    metrics["moved"] = moved
    return Trained(recommender, vocabulary, rules, metrics, features)


def _trainer(
    recommender: Recommender, vocabulary: Vocabulary, log: GroupLog, rules: EventRules,
    settings: TrainConfig, features: ItemFeatures, progress: ProgressCallback | None,
    checkpoint: Path | None = None,
) -> Trainer:  # fmt: skip
    """A trainer of this recommender, which it moves to the settings' device.

    Errors: EddyError for a log without targets.
    """
    recommender.to(settings.device)
    data = sequences(log.events, vocabulary, rules)
    if not log.total(len(data.target)):
        raise EddyError(f"{data.source}: no event is a target under the rules; change the 'target' rule")
    feature_bags = bags(features.of(vocabulary.hashes), vocabulary.features)
    prior = prior_of(log, vocabulary, recommender.config, rules)
    objective = Objective(recommender, data, settings, prior, feature_bags, log.group)
    return Trainer(objective, progress or (lambda _: None), checkpoint, log.group)


def _measure(metrics: dict[str, Any], trainer: Trainer, vocabulary: Vocabulary, log: GroupLog) -> None:
    """Move the trained recommender to the CPU, and add what is known of it and of its log to the metrics."""
    recommender, settings = trainer.recommender.cpu().eval(), trainer.settings
    # In an echo-state network nothing is learned through the recurrence.
    if recommender.config.cell != "esn" and log.group.first:
        metrics["gradients"] = gradients(recommender, trainer.data, settings.bptt_steps, settings.clip)
    if log.events.clock:
        metrics[UNTIL] = log.until_ms()
    metrics.update(events=log.rows, items=len(vocabulary), users=len(log.events.users))


def _require_ridge_possible(config: ModelConfig, features: ItemFeatures | None) -> None:
    """Errors: EddyError for a cell or metadata that is learned by gradient only."""
    if config.cell != "esn":
        raise EddyError(
            f"ridge is the readout of cell esn; a {config.cell} learns by gradient: leave it at 0"
        )
    if features:
        raise EddyError("metadata is learned by gradient: leave ridge at 0, or give no items")


def vocabulary_of(
    events: Events, config: ModelConfig, rules: EventRules, features: ItemFeatures | None = None,
    group: Group = ALONE,
) -> tuple[Vocabulary, int]:  # fmt: skip
    """The vocabulary of a log, and how many of its events move states. The vocabulary has all items of the
    log, its event types (the most frequent ones where they are too many), and the features that its items
    share.

    Errors: EddyError when there is too little to learn from.
    """
    items = np.flatnonzero(group.total(items_in(events, slice(0, len(events))).astype(np.int64)))
    if len(items) < 2:
        raise EddyError(f"{events.source}: {len(items)} items; a ranking needs at least two")
    moves = (events.flags_of(part, rules).moves for part in slices(len(events)))
    moved = int(group.total(np.array([sum(int(of_part.sum()) for of_part in moves)]))[0])
    if not moved:
        raise EddyError(f"{events.source}: no event moves a state under the rules; change the 'state' rule")
    count = group.total(count_numbers(lambda part: events.type[part], len(events), len(events.types)))
    types = np.flatnonzero(count)
    if len(types) > MAX_VOCABULARY_TYPES:  # the others are one unknown type to the version
        types = np.sort(types[np.argsort(-count[types], kind="stable")[:MAX_VOCABULARY_TYPES]])
    names = [events.items[i] for i in items]
    feature_hashes = worth_knowing(features.of(item_hashes(names))) if features else []
    if features and not feature_hashes:
        raise EddyError(
            f"{events.source}: no {MIN_ITEMS} of its items share anything in the items file; does item_id "
            "there name them?"
        )
    return Vocabulary(names, [events.types[i] for i in types], config.item_buckets, feature_hashes), moved


def _held_out(log: GroupLog, share: float, unseen: int | None = None) -> tuple[GroupLog, int]:
    """The log with the held-out events at its end, and the first row of these, of those of this process.

    They are the last share of the log by time; where training begins from weights that know the events before
    row `unseen`, at most UNSEEN_HELD_OUT of the others. In a log without a clock they are the last event of
    every user with three events or more, which are moved to its end, so that there, too, gates are fitted on
    events that nothing was trained on.
    """
    events = log.events
    if not share:
        return log, len(events)
    if events.clock:
        first = int(log.rows * (1 - share))
        if unseen is not None:
            first = max(first, log.rows - int((log.rows - log.total(unseen)) * UNSEEN_HELD_OUT))
        return log, int(log.own_rows(np.array([first]))[0][0])
    by_user, last = long_users(events)
    held_out = np.sort(by_user[last])
    is_held_out = events.store.filled(
        len(events), np.bool_, lambda part: np.zeros(part.stop - part.start, bool)
    )
    is_held_out[held_out] = True
    first = len(events) - len(held_out)
    rows = events.store.empty(len(events), row_type(len(events)))
    rows[first:] = held_out
    at = 0
    for part in slices(len(events)):
        rest = np.flatnonzero(~is_held_out[part]) + part.start
        rows[at : at + len(rest)] = rest
        at += len(rest)
    return GroupLog(events.take(rows), log.group), first
