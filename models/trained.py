"""The result of training, which a registry publishes."""

from dataclasses import dataclass, field
from typing import Any

from eddy.models.logs.item_features import ItemFeatures
from eddy.models.network.recommender import Recommender
from eddy.models.rules import EventRules
from eddy.models.vocabulary import Vocabulary


@dataclass
class Trained:
    """A recommender in evaluation mode, with its vocabulary, its rules, metadata of items, and what was
    measured during training.
    """

    recommender: Recommender
    vocabulary: Vocabulary
    rules: EventRules
    metrics: dict[str, Any] = field(default_factory=dict)
    features: ItemFeatures = field(default_factory=ItemFeatures)
