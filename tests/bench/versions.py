"""Model versions for the benchmark: weights are random, shapes and parts of the score are those of a trained
one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from eddy.models.config import ModelConfig
from eddy.models.network.recommender import Recommender
from eddy.models.registry import Version, publish
from eddy.models.rules import EventRules
from eddy.models.trained import Trained
from eddy.models.vocabulary import Vocabulary
from tests.support.engines import item_id

Score = Literal["cell", "whole"]

ALONE: dict[str, Any] = {"pointer": False, "transition_lags": 0, "half_lives_ms": ()}
"""The cell alone: hidden state · item vector and a bias, as the peers score."""


def make_version(registry: Path, score: Score, items: int, hidden: int = 128) -> Version:
    """A published version: `whole` is the default config, `cell` has no other part in its score.

    Scores spread like a trained model's: item vectors and queries of the order of 1, popularity of the last
    day and two weeks weighed in.
    """
    torch.manual_seed(0)
    config = ModelConfig(hidden=hidden, **(ALONE if score == "cell" else {}))
    recommender = Recommender(config, items, 1)
    with torch.no_grad():
        for vectors in (recommender.item_vectors, recommender.item_bias, recommender.new_vector):
            vectors.copy_(torch.randn_like(vectors) * 0.3)
        for tables in (recommender.type_vectors, recommender.gap_vectors, recommender.idle_vectors):
            tables.copy_(torch.randn_like(tables) * 0.05)
        if recommender.columns:
            recommender.gate_state.bias[2:4] = 0.5
    vocabulary = Vocabulary([item_id(i) for i in range(items)], ("view",), config.item_buckets)
    return publish(registry, Trained(recommender.eval(), vocabulary, EventRules()), {})
