"""Items that are like an item: near it by their vectors, or often next after it.

    similarity = max(cosine of the item vectors, 0) / 2 + share of transitions / largest such share / 2

The cosine is of what the model has learned (for an item that is new, of what its metadata say); the shares
are of what followed the item lately, divided by the root of how popular the other one is, so that what
follows everything is no more like it than others. An item that nothing has followed is compared by its vector
alone, and its similarities are at most 0.5.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from eddy.serving.catalogue.adjustments import Boost, factors_of
from eddy.serving.catalogue.filters import Filter
from eddy.serving.lists.answers import Recommended
from eddy.serving.lists.entries import items_with_most
from eddy.serving.lists.moment import Moment
from eddy.serving.lists.questions import Question
from eddy.serving.view import MaterialisedView
from eddy.stream.engine.ranker import Ranker


@dataclass(frozen=True, slots=True)
class Similar:
    """Items that are like an item, the most alike first."""

    item_id: str
    known: bool
    """whether any record has named the item, and there is a model"""
    items: list[Recommended]
    epoch: int | None = None
    version: str | None = None
    hints: list[str] = field(default_factory=list)


def similar(
    view: MaterialisedView, item_id: str, k: int, where: Filter, boosts: tuple[Boost, ...]
) -> Similar:
    """The k items most like an item, which itself may be withdrawn."""
    moment, ranker = Moment.of(view), view.newest
    index = int(moment.find_items([item_id])[0])
    if ranker is None or index < 0:
        return Similar(item_id, False, [])
    ranker.update_statistics(moment.now, moment.wall)
    # 1. Similarities of all items.
    likeness = _cosines(ranker, index).clip(min=0) / 2
    follower, share = _followers(ranker, index, moment.now)
    likeness[follower] += share / 2
    # 2. Which of them may be listed.
    question = Question("", k, where=where, boosts=boosts)
    column = moment.column(question, len(likeness))
    if column is not None:
        likeness *= factors_of(column)
    likeness[view.names.unlisted()] = 0.0
    likeness[index] = 0.0
    items = items_with_most(view, likeness, k)
    return Similar(item_id, True, items, ranker.live.epoch, ranker.live.version.id, moment.hints(question))


@torch.inference_mode()
def _cosines(ranker: Ranker, index: int) -> NDArray[np.float32]:
    """Cosines between the vectors of all items and that of an item: float32[N]."""
    vectors = ranker.scorer.item_vectors(slice(None))
    lengths = torch.linalg.vector_norm(vectors, dim=1) * torch.linalg.vector_norm(vectors[index])
    cosines = vectors @ vectors[index] / lengths.clamp(min=1e-12)
    return cosines.cpu().numpy()  # type: ignore[no-any-return]


def _followers(ranker: Ranker, index: int, now: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Items that have followed an item, and their damped shares as parts of the largest."""
    statistics = ranker.scorer.statistics
    follower, share = (part[0] for part in statistics.successors_of(np.array([index]), float(now)))
    used = (follower >= 0) & (follower < ranker.scorer.items) & (share > 0)
    follower, share = follower[used].astype(np.int64), share[used]
    if not len(follower):
        return follower, share
    if statistics.half_lives_ms:
        longest = max(statistics.half_lives_ms)
        share = share / np.sqrt(statistics.popularity_of(follower, float(now), [longest])[0] + 1)
    return follower, (share / share.max()).astype(np.float32)
