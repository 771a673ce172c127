"""The last phase of training, with metadata: features learn to stand in for items, and are then weighed."""

import numpy as np
import torch

from eddy.models.hashing import item_hashes
from eddy.models.logs.events import Events, items_in
from eddy.models.logs.item_features import Bags, ItemFeatures, bags
from eddy.models.network.recommender import Recommender
from eddy.models.training.distributed import Group
from eddy.models.training.trainer import Trainer
from eddy.models.vocabulary import Vocabulary

FEATURE_WEIGHT = 0.5
"""Weight of a new item's features, where 1 counts them like a trained vector. On movietweetings, MRR@20 of
new items and of all: .404, .1242 at 0; .409, .1238 at 0.25; .413, .1230 at 0.5. What new items gain, known
ones lose.
"""


def fit_features(
    trainer: Trainer, vocabulary: Vocabulary, features: ItemFeatures, events: Events, first: int
) -> None:
    """Let features learn to stand in for items; nothing else is changed by them.

    first: the row of the first held-out event; on the items that are new from there on they are centred.
    """
    recommender = trainer.recommender
    trainer.fit_features()
    _centre(recommender, vocabulary, features, events, first, trainer.group)
    with torch.no_grad():
        recommender.feature_vectors.mul_(FEATURE_WEIGHT)
        recommender.feature_centre.mul_(FEATURE_WEIGHT)


@torch.no_grad()
def _centre(
    recommender: Recommender, vocabulary: Vocabulary, features: ItemFeatures, events: Events, first: int,
    group: Group,
) -> None:  # fmt: skip
    """Centre the features on the items that were new in the held-out part, so that features say how a new
    item differs from those. What those have in common is in the vector that all new items share
    (eddy.models.training.gate_fitting).
    """
    before, after = (
        group.total(items_in(events, rows).astype(np.int64)) > 0
        for rows in (slice(0, first), slice(first, len(events)))
    )
    new = np.flatnonzero(after & ~before)
    hashes = item_hashes([events.items[item] for item in new]) if len(new) else vocabulary.hashes
    new_bags = bags(features.of(hashes), vocabulary.features)
    if new_bags.has_any.any():
        of_features = recommender.of_features(
            Bags(*(part.to(recommender.item_bias.device) for part in new_bags))
        )
        # Added, as what features give is counted from the centre that there is.
        recommender.feature_centre.add_(of_features.sum(dim=0) / new_bags.has_any.sum())
