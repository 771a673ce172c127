"""Ranking metrics from strict ranks: HR@k, Recall@k, MRR@k, NDCG@k.

A rank is 1 + the number of other candidates whose score is greater than or equal to the target's. Ties count
against the recommender, so a constant score earns nothing. Every event has one target, hence Recall@k = HR@k;
both names are in use, and both are reported.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MISS = np.iinfo(np.int64).max
"""The rank of a target that was no candidate: an item's first appearance, or an item that a rule left out."""

CUTOFFS = (10, 20)

NAMES = tuple(f"{name}@{k}" for k in CUTOFFS for name in ("hr", "recall", "mrr", "ndcg"))

Metrics = dict[str, float]


def gains(ranks: NDArray[np.int64], cutoffs: Sequence[int] = CUTOFFS) -> dict[str, NDArray[np.float64]]:
    """What each event with these ranks, int64[m], adds to each metric: float64[m] by the metric's name."""
    of_metric: dict[str, NDArray[np.float64]] = {}
    for k in cutoffs:
        hit = ranks <= k
        rank = np.where(hit, ranks, 1)
        for name, gain in (
            ("hr", hit),
            ("recall", hit),
            ("mrr", hit / rank),
            ("ndcg", hit / np.log2(rank + 1)),
        ):
            of_metric[f"{name}@{k}"] = gain.astype(np.float64)
    return of_metric


def metrics(ranks: NDArray[np.int64], cutoffs: Sequence[int] = CUTOFFS) -> Metrics:
    """The means of all metrics over events with these ranks, int64[m]; NaN where there is no event."""
    return {
        name: float(np.mean(gain)) if len(ranks) else float("nan")
        for name, gain in gains(ranks, cutoffs).items()
    }
