"""What training gives, and what a registry publishes."""

from dataclasses import dataclass, field
from typing import Any

from eddy.models.logs.item_features import ItemFeatures
from eddy.models.network.recommender import Recommender
from eddy.models.rules import EventRules
from eddy.models.vocabulary import Vocabulary


@dataclass
class Trained:
    """What training gives: a recommender in evaluation mode, its vocabulary, and what was measured on the
    way.
    """

    recommender: Recommender
    vocabulary: Vocabulary
    rules: EventRules
    metrics: dict[str, Any] = field(default_factory=dict)
    features: ItemFeatures = field(default_factory=ItemFeatures)
