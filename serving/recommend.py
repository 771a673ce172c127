"""Questions and answers: from a user and filters to a list, scored at the moment of asking."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from eddy.models.hashing import item_hashes
from eddy.models.kernels.topk import topk
from eddy.models.scoring.backend import Exclude
from eddy.serving.view import MaterialisedView, Place
from eddy.stream.engine.ranker import Ranker, decayed_popularity

MAX_K = 1000


@dataclass(frozen=True)
class Question:
    """What a caller wants to know."""

    user_id: str
    k: int = 20
    exclude_seen: bool = False
    """leave out the items of the user's recent window"""
    exclude: tuple[str, ...] = ()
    """item ids to leave out; unknown ones leave out nothing"""


class Recommended(msgspec.Struct, omit_defaults=True, gc=False):
    """One place of a list."""

    item_id: str
    score: float
    title: str | None = None


class Answer(msgspec.Struct, gc=False):
    """A list, best first. Where `known` is false, nothing is known of the user: the items are those that are
    popular now, scored by their decayed counts, and what names a row or a model is null.
    """

    user_id: str
    known: bool
    items: list[Recommended]
    stream_time: int
    """the stream's now, ms, at which decays and idle time were taken; -1 before the first event"""
    epoch: int | None = None
    version: str | None = None
    partition: int | None = None
    offset: int | None = None
    """with partition: the last record of `events` that the user's row includes"""


def answer(view: MaterialisedView, questions: Sequence[Question]) -> list[Answer]:
    """An answer for each question, all at one moment; users of one epoch are scored together."""
    now = view.now()
    found = [view.find(question.user_id) for question in questions]
    answers: dict[int, Answer] = {}
    popular: NDArray[np.float64] | None = None
    for i, (question, place) in enumerate(zip(questions, found, strict=True)):
        if place is None or view.newest is None:
            if popular is None:
                popular = _popular(view, now)
            answers[i] = _unknown(view, question, popular, now)
    placed = [(i, place) for i, place in enumerate(found) if place is not None and i not in answers]
    placed.sort(key=lambda one: one[1].epoch)
    for epoch, group in groupby(placed, key=lambda one: one[1].epoch):
        numbers, places = zip(*group, strict=True)
        here = _known(view, epoch, [questions[i] for i in numbers], places, now)
        answers.update(zip(numbers, here, strict=True))
    return [answers[i] for i in range(len(questions))]


def _known(
    view: MaterialisedView, epoch: int, questions: Sequence[Question], places: Sequence[Place], now: int
) -> list[Answer]:
    slab, slots = view.slabs[epoch], np.array([place.slot for place in places], np.int64)
    ranker, state = view.rankers.get(epoch), None
    if ranker is None:  # its files cannot be read (yet): what the newest readable version makes of the window
        assert view.newest is not None
        ranker = view.newest
        state = _encoded_anew(view, ranker, epoch, slots)
    ranker.update_statistics(now, view.wall())
    topk = ranker.start_topk(
        ranker.latest(slab, slots, state),
        now,
        max(question.k for question in questions),
        np.array([question.exclude_seen for question in questions]),
        _excluded(view, questions),
    )()
    item, score = topk.item.numpy(), topk.score.numpy()
    return [
        Answer(
            user_id=question.user_id,
            known=True,
            items=_items(view, item[i, : question.k], score[i, : question.k]),
            stream_time=now,
            epoch=ranker.live.epoch,
            version=ranker.live.version.id,
            partition=int(slab.partition[slots[i]]),
            offset=int(slab.offset[slots[i]]),
        )
        for i, question in enumerate(questions)
    ]


@torch.inference_mode()
def _encoded_anew(
    view: MaterialisedView, ranker: Ranker, epoch: int, slots: NDArray[np.int64]
) -> torch.Tensor:
    slab, encoder = view.slabs[epoch], ranker.live
    begin, length = np.zeros(len(slots), np.int64), slab.length[slots].astype(np.int64)
    return encoder.recompute(slab, slots, begin, length, encoder.recommender.initial(len(slots)))


def _excluded(view: MaterialisedView, questions: Sequence[Question]) -> Exclude | None:
    rows = [i for i, question in enumerate(questions) for _ in question.exclude]
    if not rows:
        return None
    item = view.catalogue.find(item_hashes([one for question in questions for one in question.exclude]))
    known = item >= 0
    return Exclude(torch.tensor(rows)[torch.from_numpy(known)], torch.from_numpy(item[known]))


def _popular(view: MaterialisedView, now: int) -> NDArray[np.float64]:
    items = len(view.catalogue)
    counts = decayed_popularity(view.statistics, items, float(now)) if view.statistics else np.zeros(items)
    counts[view.names.unlisted()] = 0.0
    return counts


def _unknown(view: MaterialisedView, question: Question, popular: NDArray[np.float64], now: int) -> Answer:
    excluded = view.catalogue.find(item_hashes(question.exclude))
    counts = popular.copy()
    counts[excluded[excluded >= 0]] = 0.0
    best, score = topk(torch.from_numpy(counts.astype(np.float32))[None], question.k)
    index = np.where(score[0].numpy() > 0, best[0].numpy(), -1)
    return Answer(question.user_id, False, _items(view, index, score[0].numpy()), now)


def _items(
    view: MaterialisedView, index: NDArray[np.int64], score: NDArray[np.floating]
) -> list[Recommended]:
    ids, metadata = view.names.ids, view.metadata
    items = []
    for item, value in zip(index.tolist(), np.round(score.astype(np.float64), 4).tolist(), strict=True):
        name = ids[item] if item >= 0 else None
        if name is not None:
            described = metadata.get(name)
            items.append(Recommended(name, value, described.title if described else None))
    return items
