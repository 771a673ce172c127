"""Training that begins from a version's weights instead of random ones, on a log that has grown.

What is kept row by row (items, event types, features) is copied by name, so the new vocabulary may have other
entries in another order; all other weights are copied as they are. An item that the parent does not know
begins with the vector and the bias by which the parent scores new items, so that before the first step the
child ranks as the parent did.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eddy.models.config import ModelConfig
from eddy.models.descriptions import until_of
from eddy.models.errors import EddyError
from eddy.models.hashing import type_hashes
from eddy.models.logs.events import Events
from eddy.models.logs.item_features import Bags, ItemFeatures, bags
from eddy.models.network.recommender import Recommender
from eddy.models.registry import Version
from eddy.models.trained import Trained
from eddy.models.training.feature_phase import FEATURE_WEIGHT
from eddy.models.vocabulary import Vocabulary

UNSEEN_HELD_OUT = 0.5
"""At most this share of the events that the parent has not seen is held out, so that the network learns from
the others before its gates are fitted.
"""

_BY_TYPE = ("type_vectors", "mixture.kind", "mixture.last_kind")
"""Weights with a row per event type, and a last one for unknown types."""

_BY_NAME = ("item_vectors", "item_bias", "feature_vectors", *_BY_TYPE)


def may_begin_from(parent: ModelConfig, config: ModelConfig) -> bool:
    """Whether a model of this config can take over the parent's weights: whether all settings are the same,
    but for the dropout and for the number of features.
    """
    return replace(parent, dropout=0.0, features=0) == replace(config, dropout=0.0, features=0)


def unseen_row(events: Events, parent: Trained | Version) -> int:
    """The first row of a log that the parent was not trained on; the number of rows when there is none.

    Errors: EddyError when that cannot be known, without a clock or in a parent of such a log.
    """
    until = until_of(parent.metrics)
    if not events.clock or until is None:
        raise EddyError(
            f"{events.source}: it cannot be known which events the live version was trained on, without "
            "timestamps in both logs; train from scratch, by `eddy train --announce` on a log with timestamps"
        )
    return int(np.searchsorted(events.timestamp, until, side="right"))


@torch.no_grad()
def grown(
    parent: Trained | Version, vocabulary: Vocabulary, config: ModelConfig, features: ItemFeatures
) -> Recommender:
    """The parent's recommender with a vocabulary of its own.

    Errors: EddyError when the config does not allow it (see `may_begin_from`).
    """
    if not may_begin_from(parent.recommender.config, config):
        raise EddyError("these settings do not fit the version to begin from; train from scratch")
    child = Recommender(config, len(vocabulary), len(vocabulary.types))
    of_parent = parent.recommender.state_dict()
    # 1. What has no rows by name.
    weights = child.state_dict()
    weights |= {name: weight.clone() for name, weight in of_parent.items() if name not in _BY_NAME}
    # 2. Items, and the buckets for items outside the vocabulary.
    index = torch.from_numpy(parent.vocabulary.input_index(vocabulary.hashes))
    columns = parent.recommender.item_columns(
        index, parent.recommender.of_features(_bags_for(parent, vocabulary.hashes, features))
    )
    buckets = of_parent["item_vectors"][len(parent.vocabulary) :]
    weights["item_vectors"] = torch.cat([columns[:, :-1], buckets])
    weights["item_bias"] = columns[:, -1].clone()
    # 3. Event types; one that is new begins as an unknown one.
    types = torch.from_numpy(parent.vocabulary.type_index(type_hashes(vocabulary.types)))
    with_unknown = torch.cat([types, torch.tensor([len(parent.vocabulary.types)])])
    for name in _BY_TYPE:
        if name in of_parent:
            weights[name] = of_parent[name][with_unknown]
    # 4. Features, as they were before training centred and weighed them.
    if config.features:
        weights["feature_vectors"] = _feature_vectors(parent, vocabulary, weights["feature_vectors"])
        weights["feature_centre"] = torch.zeros(config.dim + 1)
    child.load_state_dict(weights)
    return child


def _bags_for(parent: Trained | Version, hashes: NDArray[np.uint64], features: ItemFeatures) -> Bags:
    """The features of items that the parent knows, from the newer metadata where there is any."""
    known = features if len(features) else parent.features
    return bags(known.of(hashes), parent.vocabulary.features)


def _feature_vectors(parent: Trained | Version, vocabulary: Vocabulary, vectors: Tensor) -> Tensor:
    """Vectors [features, D + 1] by feature; one that the parent does not have keeps that of `vectors`."""
    numbers = parent.vocabulary.features
    both = [(new, numbers[feature]) for feature, new in vocabulary.features.items() if feature in numbers]
    if both:
        new, old = map(list, zip(*both, strict=True))
        vectors[new] = parent.recommender.feature_vectors[old] / FEATURE_WEIGHT
    return vectors
