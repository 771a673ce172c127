"""From questions to answers: lists and rankings, scored at the moment of the question.

A plain question is answered by the scorer's exact top-k alone. Filters, boosts and rules are columns that the
scorer adds (`eddy.serving.catalogue.adjustments`). What needs more than one pass over a list (explored items,
diversity, caps, pins, rankings) is composed from the scores of all items (`eddy.serving.lists.compose`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray

from eddy.models.hashing import item_hashes
from eddy.models.kernels.topk import topk
from eddy.models.scoring.backend import Adjust, Exclude
from eddy.serving.catalogue.adjustments import Adjustment
from eddy.serving.catalogue.filters import unknown_names
from eddy.serving.lists.answers import Answer, Recommended
from eddy.serving.lists.questions import Question
from eddy.serving.view import MaterialisedView, RowAt, VersionAt
from eddy.stream.engine.ranker import Ranker, decayed_popularity

MAX_FLOATS = 1 << 25
"""Questions are answered together as long as their scores, or their columns, have at most so many numbers."""


@dataclass(frozen=True)
class Moment:
    """The moment as of which questions are answered together."""

    view: MaterialisedView
    now: int
    """the stream's, ms"""
    wall: int
    """ms, by which items and rules begin and end"""

    def adjustment(self, question: Question) -> Adjustment:
        """What the question and the rules ask of items."""
        return Adjustment(question.where, question.boosts)

    def columns(self, questions: Sequence[Question], items: int) -> Adjust | None:
        """What is added to the scores of N = `items` items for each question."""
        number: dict[Adjustment, int] = {}
        columns: list[NDArray[np.float32]] = []
        column_of = np.full(len(questions), -1)
        for i, question in enumerate(questions):
            adjustment = self.adjustment(question)
            if adjustment not in number:
                column = self.view.adjustments.column(adjustment, items, self.wall)
                number[adjustment] = -1 if column is None else len(columns)
                columns += [] if column is None else [column]
            column_of[i] = number[adjustment]
        if not columns:
            return None
        added = columns[0][None] if len(columns) == 1 else np.stack(columns)
        return Adjust(torch.from_numpy(column_of), torch.from_numpy(added))


def answer(view: MaterialisedView, questions: Sequence[Question]) -> list[Answer]:
    """An answer to each question, all as of one moment.

    1. Users without a row get what is popular now.
    2. The others are scored together, version by version.
    """
    moment = Moment(view, view.now(), view.wall())
    rows = [view.find_row(question.user_id) for question in questions]
    answers: dict[int, Answer] = {}
    # 1. Users without a row, or everybody before the first model.
    popular: NDArray[np.float64] | None = None
    for i, (question, row) in enumerate(zip(questions, rows, strict=True)):
        if row is None or view.newest is None:
            if popular is None:
                popular = _popular(view, moment.now)
            answers[i] = _unknown(moment, question, popular)
    # 2. The others.
    with_rows = [(i, row) for i, row in enumerate(rows) if row is not None and i not in answers]
    with_rows.sort(key=lambda numbered: numbered[1].at)
    for at, group in groupby(with_rows, key=lambda numbered: numbered[1].at):
        for numbers, of_version in _in_parts(moment, list(group)):
            scored = _known(moment, at, [questions[i] for i in numbers], of_version)
            answers.update(zip(numbers, scored, strict=True))
    return [answers[i] for i in range(len(questions))]


def _in_parts(
    moment: Moment, group: Sequence[tuple[int, RowAt]]
) -> Iterator[tuple[tuple[int, ...], tuple[RowAt, ...]]]:
    """The questions of a version in parts that are small enough to be answered together."""
    most = max(1, MAX_FLOATS // max(len(moment.view.catalogue), 1))
    for start in range(0, len(group), most):
        numbers, rows = zip(*group[start : start + most], strict=True)
        yield numbers, rows


def _known(
    moment: Moment, at: VersionAt, questions: Sequence[Question], rows: Sequence[RowAt]
) -> list[Answer]:
    """Answers to questions of users whose rows are of one version."""
    view, now = moment.view, moment.now
    slab, slots = view.slabs[at], np.array([row.slot for row in rows], np.int64)
    ranker, state = view.rankers.get(at), None
    if ranker is None:  # its files cannot be read (yet): the newest version that can reads the window instead
        assert view.newest is not None
        ranker = view.newest
        state = _encoded_anew(view, ranker, at, slots)
    ranker.update_statistics(now, moment.wall)
    row_views = ranker.latest(slab, slots, state)
    topk = ranker.start_topk(
        row_views,
        now,
        max(question.k for question in questions),
        np.array([question.exclude_seen for question in questions]),
        _excluded(view, questions),
        adjust=moment.columns(questions, ranker.scorer.items),
    )()
    item, score = topk.item.numpy(), topk.score.numpy()
    age = np.maximum(now - row_views.last_time, 0).tolist()
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
            state_age_ms=age[i],
            hints=_hints(view, question),
        )
        for i, question in enumerate(questions)
    ]


def _hints(view: MaterialisedView, question: Question) -> list[str]:
    conditions = question.where + tuple(each for boost in question.boosts for each in boost.where)
    return unknown_names(conditions, view.attributes)


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


def _unknown(moment: Moment, question: Question, popular: NDArray[np.float64]) -> Answer:
    view = moment.view
    excluded = view.catalogue.find(item_hashes(question.exclude))
    counts = popular.astype(np.float32)
    counts[excluded[excluded >= 0]] = 0.0
    added = view.adjustments.column(moment.adjustment(question), len(counts), moment.wall)
    if added is not None:
        counts *= np.exp(added)
    best, score = topk(torch.from_numpy(counts)[None], question.k)
    index = np.where(score[0].numpy() > 0, best[0].numpy(), -1)
    items = _items(view, index, score[0].numpy())
    return Answer(question.user_id, False, items, moment.now, hints=_hints(view, question))


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
