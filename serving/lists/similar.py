"""Items that are like an item: near it by their vectors, or often next after it.

    similarity = max(cosine of the item vectors, 0) / 2 + share of transitions / largest such share / 2

The cosine is of what the model has learned (for an item that is new, of what its metadata say); the shares
are of what followed the item lately, divided by the root of how popular the other one is, so that what
follows everything is no more like it than others. An item that nothing has followed is compared by its vector
alone, and its similarities are at most 0.5.
"""

from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eddy.serving.catalogue.adjustments import factors_of
from eddy.serving.lists.answers import Recommended
from eddy.serving.lists.entries import items_of, with_most
from eddy.serving.lists.moment import Moment
from eddy.serving.lists.questions import Question
from eddy.serving.threads import Threads
from eddy.serving.view import MaterialisedView
from eddy.stream.engine.live_version import LiveVersion
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


@dataclass(frozen=True)
class _Begun:
    """What the similarities of all items are computed from, as of one moment."""

    numbering: int
    """of the catalogue, as which the items are numbered"""
    index: int
    live: LiveVersion
    vectors: Tensor
    """float32[N,D], which later items do not change"""
    follower: NDArray[np.int64]
    share: NDArray[np.float32]
    column: NDArray[np.float32] | None
    """what filters, boosts and rules add to the logarithm of each"""
    unlisted: NDArray[np.int64]
    hints: list[str]


async def similar_items(threads: Threads, item_id: str, question: Question) -> Similar:
    """The items most like an item, which itself may be withdrawn, as the question filters and boosts them.

    All items are compared beside the view's thread: with a million of them that takes a tenth of a second,
    for which no list could wait.
    """
    while True:
        begun = await threads.look_up(lambda view: _begin(view, item_id, question))
        if begun is None:
            return Similar(item_id, False, [])
        most = await threads.beside(partial(_most_alike, begun, question.k))
        told = await threads.look_up(partial(_told, item_id=item_id, begun=begun, most=most))
        if told is not None:
            return told


def _begin(view: MaterialisedView, item_id: str, question: Question) -> _Begun | None:
    """None where no record has named the item, or there is no model."""
    moment, ranker = Moment.of(view), view.newest
    index = int(moment.find_items([item_id])[0])
    if ranker is None or index < 0:
        return None
    ranker.update_statistics(moment.now, moment.wall)
    vectors, column = ranker.scorer.item_vectors(slice(None)), moment.column(question, ranker.scorer.items)
    follower, share = _followers(ranker, index, moment.now)
    unlisted, hints = view.names.unlisted(), moment.hints(question)
    numbering = view.catalogue.renumbered
    return _Begun(numbering, index, ranker.live, vectors, follower, share, column, unlisted, hints)


def _most_alike(begun: _Begun, k: int) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
    """The k items most alike, -1 = none, and their similarities."""
    # 1. Similarities of all items.
    likeness = _cosines(begun.vectors, begun.index).clip(min=0) / 2
    likeness[begun.follower] += begun.share / 2
    # 2. Which of them may be listed.
    if begun.column is not None:
        likeness *= factors_of(begun.column)
    likeness[begun.unlisted] = 0.0
    likeness[begun.index] = 0.0
    return with_most(likeness, k)


def _told(
    view: MaterialisedView, item_id: str, begun: _Begun, most: tuple[NDArray[np.int64], NDArray[np.floating]]
) -> Similar | None:
    """The answer; None when items have got other numbers meanwhile."""
    if begun.numbering != view.catalogue.renumbered:
        return None
    live = begun.live
    return Similar(item_id, True, items_of(view, *most), live.epoch, live.version.id, begun.hints)


@torch.inference_mode()
def _cosines(vectors: Tensor, index: int) -> NDArray[np.float32]:
    """Cosines between vectors[N,D] and one of them: float32[N]."""
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
