"""Popularity as the score has it: columns of the item matrix that are made of decayed counts, now and then
all of them anew. With a million items that takes a while, so it can be done beside the thread that scores.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eddy.models.kernels.popularity_columns import TrendLayers, fill_popularity_columns
from eddy.models.kernels.topk import BLOCK
from eddy.models.network.recommender import TREND_UNIT, Recommender
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.tensors import all_finite

POPULARITY_FLOOR = 0.01
"""Added to decayed counts before the logarithm, so that it is finite for an item that nobody touched lately:
such an item counts as much as a hundredth of an event that happens now.
"""


class PopularityUpdate(NamedTuple):
    """The popularity of N items at a moment, by F half-lives."""

    now: float
    """ms of the stream clock"""
    items: int
    """N"""
    columns: Tensor | None = None
    """float32[F + TREND, N or more], zeros beyond N; None for a version without popularity"""
    finite: bool = True
    """whether all numbers in `columns` are finite"""
    counted: Tensor = torch.zeros(0)
    """float32[F,1] sums over all items of the decayed counts, floors included"""
    common: Tensor | None = None
    """float32[N] the log shares by which transitions are weighed; None where they are not"""


def popularity_update(
    recommender: Recommender, statistics: Statistics, items: int, now: float
) -> Callable[[], PopularityUpdate]:
    """Begin the popularity of the first `items` items at `now`, ms of the stream clock. What is returned may
    be called on another thread, while the statistics go on counting: it counts some of the events that come
    meanwhile.
    """
    lives, damping = recommender.config.half_lives_ms, recommender.config.damping
    if not lives:
        return lambda: PopularityUpdate(now, items)
    counts_at = statistics.begin_popularity(items, now, lives)

    @torch.inference_mode()  # every thread has to be told
    def update() -> PopularityUpdate:
        counts = counts_at()
        counted = torch.from_numpy(counts.sum(axis=1, keepdims=True) + items * POPULARITY_FLOOR).float()
        on_cpu = recommender.item_bias.device.type == "cpu"
        if on_cpu and all_finite(counted, *recommender.trend.parameters()):  # loops do not expect NaN
            columns = _compiled_columns(recommender, counts, counted)
        else:
            popularity = torch.log(floored(counts) / counted).T.to(recommender.item_bias.device)
            columns = recommender.popularity_columns(popularity).T.contiguous()
        common = None if damping is None else columns[damping, :items]
        return PopularityUpdate(now, items, columns, all_finite(columns), counted, common)

    return update


def _compiled_columns(recommender: Recommender, counts: NDArray[np.float64], counted: Tensor) -> Tensor:
    """The columns of counts[F,N], whose sums are counted[F,1]: float32[F + TREND, N rounded up]."""
    trend = {name: weights.detach().numpy() for name, weights in recommender.trend.named_parameters()}
    hidden = np.divide(trend["0.weight"], TREND_UNIT, dtype=np.float32)
    layers = TrendLayers(hidden, trend["0.bias"], trend["2.weight"], trend["2.bias"])
    columns = np.empty((recommender.columns, -(-counts.shape[1] // BLOCK) * BLOCK), np.float32)
    fill_popularity_columns(counts, np.float32(POPULARITY_FLOOR), counted[:, 0].numpy(), layers, columns)
    return torch.from_numpy(columns)


def floored(counts: NDArray[np.float64]) -> Tensor:
    """Decayed counts with POPULARITY_FLOOR added: float32, of any shape."""
    return torch.from_numpy(counts).float() + POPULARITY_FLOOR


def log_shares(decayed: NDArray[np.float64]) -> Tensor:
    """log((count + floor) / sum of them) of decayed counts [F, items]: float32[items, F]."""
    counts = floored(decayed)
    return torch.log(counts / counts.sum(dim=1, keepdim=True)).T
