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

import numpy as np
import torch

from eddy.models.config import ModelConfig, TrainConfig
from eddy.models.descriptions import UNTIL
from eddy.models.errors import EddyError
from eddy.models.hashing import item_hashes
from eddy.models.logs.events import Events
from eddy.models.logs.item_features import MIN_ITEMS, Bags, ItemFeatures, bags, worth_knowing
from eddy.models.logs.splits import long_users
from eddy.models.network.recommender import Recommender
from eddy.models.rules import EventRules
from eddy.models.trained import Trained
from eddy.models.training.distributed import ALONE, Group
from eddy.models.training.gate_fitting import fit_gates
from eddy.models.training.gradients import gradients
from eddy.models.training.objective import Objective
from eddy.models.training.popularity_prior import prior_of
from eddy.models.training.sequences import sequences
from eddy.models.training.trainer import ProgressCallback, Trainer
from eddy.models.vocabulary import MAX_VOCABULARY_TYPES, Vocabulary

FEATURE_WEIGHT = 0.5
"""Weight of a new item's features, where 1 counts them like a trained vector. On movietweetings, MRR@20 of
new items and of all: .404, .1242 at 0; .409, .1238 at 0.25; .413, .1230 at 0.5. What new items gain, known
ones lose.
"""


def train(
    events: Events, config: ModelConfig, settings: TrainConfig, rules: EventRules,
    progress: ProgressCallback | None = None, checkpoint: Path | None = None, group: Group = ALONE,
    features: ItemFeatures | None = None,
) -> Trained:  # fmt: skip
    """Train a version on a log, in the phases that the module names.

    checkpoint: a file in which every epoch is saved, and from which a killed run goes on.
    group: in a group of processes each calls this with the same arguments and gets the same weights; only the
    first gets all metrics.
    features: metadata of items, by which items that the log does not have are scored.

    Errors: EddyError for settings that do not fit each other, for a log without targets or with a single
    item, and when the loss stops being a number.
    """
    settings = replace(settings, device=group.device or settings.device)
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    if settings.ridge:
        _require_ridge_possible(config, features)
    vocabulary, moved = vocabulary_of(events, config, rules, features)
    config = replace(config, features=len(vocabulary.features))
    torch.manual_seed(settings.seed)
    recommender = Recommender(config, len(vocabulary), len(vocabulary.types)).to(settings.device)
    events, first = _held_out(events, settings.validation)
    data = sequences(events, vocabulary, rules)
    if not len(data.target):
        raise EddyError(f"{events.source}: no event is a target under the rules; change the 'target' rule")
    held_out = data.row >= first
    features = features or ItemFeatures()
    feature_bags = bags(features.of(vocabulary.hashes), vocabulary.features)
    objective = Objective(
        recommender, data, settings, prior_of(events, vocabulary, config, rules), feature_bags
    )
    trainer = Trainer(objective, progress or (lambda _: None), checkpoint, group)
    # 1. The network, without the held-out part.
    metrics = trainer.fit_ridge(held_out) if settings.ridge else trainer.fit_network(held_out)
    # 2. The gates: one process fits them, in the order of time, on the CPU, as a log is replayed there.
    if held_out.any() and settings.gate_epochs:
        if group.first:
            on_cpu = copy.deepcopy(recommender).cpu()
            metrics["gates"] = fit_gates(on_cpu, vocabulary, events, first, rules, settings)
            recommender.load_state_dict(on_cpu.state_dict())
        group.copy_weights_of_first(recommender)
    # 3. The whole log.
    if held_out.any() and settings.whole:
        trainer.fit_whole(metrics)
    # 4. The metadata.
    if vocabulary.features:
        trainer.fit_features()
        _centre(recommender, vocabulary, features, events, first)
        _weigh_features(recommender)
    recommender.cpu().eval()
    if config.cell != "esn" and group.first:  # nothing is learned through its recurrence
        metrics["gradients"] = gradients(
            recommender, events, vocabulary, rules, settings.bptt_steps, settings.clip
        )
    if events.clock:
        metrics[UNTIL] = int(events.timestamp[-1])
    metrics.update(events=len(events), items=len(vocabulary), users=len(events.users), moved=moved)
    return Trained(recommender, vocabulary, rules, metrics, features)


@torch.no_grad()
def _weigh_features(recommender: Recommender) -> None:
    """Let the features of new items count FEATURE_WEIGHT times as much as a trained vector."""
    recommender.feature_vectors.mul_(FEATURE_WEIGHT)
    recommender.feature_centre.mul_(FEATURE_WEIGHT)


def _require_ridge_possible(config: ModelConfig, features: ItemFeatures | None) -> None:
    """Errors: EddyError for a cell or metadata that is learned by gradient only."""
    if config.cell != "esn":
        raise EddyError(
            f"ridge is the readout of cell esn; a {config.cell} learns by gradient: leave it at 0"
        )
    if features:
        raise EddyError("metadata is learned by gradient: leave ridge at 0, or give no items")


@torch.no_grad()
def _centre(
    recommender: Recommender, vocabulary: Vocabulary, features: ItemFeatures, events: Events, first: int
) -> None:
    """Centre the features on the items that were new in the held-out part, so that features say how a new
    item differs from those. What those have in common is in the vector that all new items share
    (eddy.models.training.gate_fitting).
    """
    new = np.setdiff1d(events.item[first:], events.item[:first])
    hashes = item_hashes([events.items[item] for item in new]) if len(new) else vocabulary.hashes
    new_bags = bags(features.of(hashes), vocabulary.features)
    if new_bags.has_any.any():
        of_features = recommender.of_features(
            Bags(*(part.to(recommender.item_bias.device) for part in new_bags))
        )
        recommender.feature_centre.copy_(of_features.sum(dim=0) / new_bags.has_any.sum())


def vocabulary_of(
    events: Events, config: ModelConfig, rules: EventRules, features: ItemFeatures | None = None
) -> tuple[Vocabulary, int]:
    """The vocabulary of a log, and how many of its events move states. The vocabulary has all items of the
    log, its event types (the most frequent ones where they are too many), and the features that its items
    share.

    Errors: EddyError when there is too little to learn from.
    """
    items = np.unique(events.item)
    if len(items) < 2:
        raise EddyError(f"{events.source}: {len(items)} items; a ranking needs at least two")
    moved = int(events.flags(rules).moves.sum())
    if not moved:
        raise EddyError(f"{events.source}: no event moves a state under the rules; change the 'state' rule")
    types, count = np.unique(events.type, return_counts=True)
    if len(types) > MAX_VOCABULARY_TYPES:  # the others are one unknown type to the version
        types = np.sort(types[np.argsort(-count, kind="stable")[:MAX_VOCABULARY_TYPES]])
    names = [events.items[i] for i in items]
    feature_hashes = worth_knowing(features.of(item_hashes(names))) if features else []
    if features and not feature_hashes:
        raise EddyError(
            f"{events.source}: no {MIN_ITEMS} of its items share anything in the items file; does item_id "
            "there name them?"
        )
    return Vocabulary(names, [events.types[i] for i in types], config.item_buckets, feature_hashes), moved


def _held_out(events: Events, share: float) -> tuple[Events, int]:
    """The log with the held-out events at its end, and the first row of these.

    They are the last share of the log by time. In a log without a clock they are the last event of every user
    with three events or more, which are moved to its end, so that there, too, gates are fitted on events that
    nothing was trained on.
    """
    if not share:
        return events, len(events)
    if events.clock:
        return events, int(len(events) * (1 - share))
    by_user, last = long_users(events)
    held_out = np.sort(by_user[last])
    rest = np.delete(np.arange(len(events)), held_out)
    return events.take(np.concatenate([rest, held_out])), len(rest)
