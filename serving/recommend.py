"""Questions and answers: a user and filters give a list, which is scored at the moment of the question."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray

from eddy.models.hashing import item_hashes
from eddy.models.kernels.topk import topk
from eddy.models.scoring.backend import Exclude
from eddy.serving.view import MaterialisedView, RowAt, VersionAt
from eddy.stream.engine.ranker import Ranker, decayed_popularity

MAX_K = 1000


@dataclass(frozen=True)
class Question:
    """What a caller wants to know."""

    user_id: str
    k: int = 20
    exclude_seen: bool = False
    """leave out the items of the user's recent window and their older items"""
    exclude: tuple[str, ...] = ()
    """item ids to leave out; ids of unknown items are ignored"""


@dataclass(frozen=True, slots=True)
class Recommended:
    """An item of a list."""

    item_id: str
    score: float
    title: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A list, best first. If `known` is false, there is no row of the user: the items are those that are
    popular now, scored by their decayed counts, and the fields that name a row or a model are null.
    """

    user_id: str
    known: bool
    items: list[Recommended]
    stream_time: int
    """the stream's now, ms, as of which popularity decays and idle time counts; -1 before the first event"""
    epoch: int | None = None
    version: str | None = None
    partition: int | None = None
    offset: int | None = None
    """with `partition`: the last record of `events` that the user's row includes"""
    includes: bool | None = None
    """whether the record that `wait_for` names is included; null without it"""


def answer(view: MaterialisedView, questions: Sequence[Question]) -> list[Answer]:
    """An answer to each question, all as of one moment.

    1. Users without a row get what is popular now.
    2. The others are scored together, version by version.
    """
    now = view.now()
    rows = [view.find_row(question.user_id) for question in questions]
    answers: dict[int, Answer] = {}
    # 1. Users without a row, or everybody before the first model.
    popular: NDArray[np.float64] | None = None
    for i, (question, row) in enumerate(zip(questions, rows, strict=True)):
        if row is None or view.newest is None:
            if popular is None:
                popular = _popular(view, now)
            answers[i] = _unknown(view, question, popular, now)
    # 2. The others.
    with_rows = [(i, row) for i, row in enumerate(rows) if row is not None and i not in answers]
    with_rows.sort(key=lambda numbered: numbered[1].at)
    for at, group in groupby(with_rows, key=lambda numbered: numbered[1].at):
        numbers, of_version = zip(*group, strict=True)
        scored = _known(view, at, [questions[i] for i in numbers], of_version, now)
        answers.update(zip(numbers, scored, strict=True))
    return [answers[i] for i in range(len(questions))]


def _known(
    view: MaterialisedView, at: VersionAt, questions: Sequence[Question], rows: Sequence[RowAt], now: int
) -> list[Answer]:
    """Answers to questions of users whose rows are of one version."""
    slab, slots = view.slabs[at], np.array([row.slot for row in rows], np.int64)
    ranker, state = view.rankers.get(at), None
    if ranker is None:  # its files cannot be read (yet): the newest version that can reads the window instead
        assert view.newest is not None
        ranker = view.newest
        state = _encoded_anew(view, ranker, at, slots)
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


# A version whose model is not here: another version's states for the recent windows, without their anchors.
@torch.inference_mode()
def _encoded_anew(
    view: MaterialisedView, ranker: Ranker, at: VersionAt, slots: NDArray[np.int64]
) -> torch.Tensor:
    slab, live = view.slabs[at], ranker.live
    begin, length = np.zeros(len(slots), np.int64), slab.length[slots].astype(np.int64)
    return live.recompute(slab, slots, begin, length, live.recommender.initial(len(slots)))


def _excluded(view: MaterialisedView, questions: Sequence[Question]) -> Exclude | None:
    rows = [i for i, question in enumerate(questions) for _ in question.exclude]
    if not rows:
        return None
    item = view.catalogue.find(item_hashes([id_ for question in questions for id_ in question.exclude]))
    known = item >= 0
    return Exclude(torch.tensor(rows)[torch.from_numpy(known)], torch.from_numpy(item[known]))


def _popular(view: MaterialisedView, now: int) -> NDArray[np.float64]:
    items, counts = len(view.catalogue), np.zeros(len(view.catalogue))
    if view.newest is not None:
        statistics, half_lives_ms = view.newest.scorer.statistics, view.newest.half_lives_ms
        counts = decayed_popularity(statistics, items, float(now), half_lives_ms)
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
