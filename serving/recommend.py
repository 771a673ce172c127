"""From questions to answers: lists and rankings, scored at the moment of the question.

A plain question is answered by the scorer's exact top-k alone. Filters, boosts and rules are columns that the
scorer adds (`eddy.serving.catalogue.adjustments`). What needs more than one look at a list (explored items,
diversity, caps, pins, rankings, explanations) is composed from the scores of all items
(`eddy.serving.lists.compose`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eddy.models.hashing import item_hashes
from eddy.models.scoring.backend import TopK
from eddy.models.scoring.popularity import POPULARITY_FLOOR
from eddy.serving.catalogue.adjustments import factors_of
from eddy.serving.lists.answers import Answer, Ranking
from eddy.serving.lists.compose import compose
from eddy.serving.lists.entries import explained_items, items_of, items_with_most, ranked_items
from eddy.serving.lists.explain import ExplainedRow
from eddy.serving.lists.moment import Moment
from eddy.serving.lists.popular import popular_counts
from eddy.serving.lists.questions import Question
from eddy.serving.lists.session import session_rows
from eddy.serving.view import MaterialisedView, VersionAt
from eddy.stream.engine.cell_windows import cell_window
from eddy.stream.engine.ranker import Ranker
from eddy.stream.engine.row_views import RowViews
from eddy.stream.state.slab import Slab

MAX_FLOATS = 1 << 25
"""Questions are answered together as long as their scores, or their columns, have at most so many numbers."""

COLD_EXPLORE = 0.1
"""The share of explored items in a list for somebody of whom nothing is known, unless the caller says so."""


@dataclass(frozen=True)
class Group:
    """Questions of rows that one version scores."""

    ranker: Ranker
    slab: Slab
    slots: NDArray[np.int64]
    state: torch.Tensor | None
    """[n,S] states that replace those of the slab"""
    numbers: NDArray[np.int64]
    """[n] of the questions"""

    def take(self, chosen: NDArray[np.int64]) -> "Group":
        """Some of the questions."""
        state = None if self.state is None else self.state[torch.from_numpy(chosen)]
        return replace(self, slots=self.slots[chosen], state=state, numbers=self.numbers[chosen])


def answer(view: MaterialisedView, questions: Sequence[Question]) -> list[Answer]:
    """An answer to each question, all as of one moment.

    1. Those that have a row, or a session, are scored together, version by version.
    2. The others get what is popular now.
    """
    moment = Moment.of(view)
    hints = [moment.hints(question) if question.where or question.boosts else [] for question in questions]
    answers: dict[int, Answer] = {}
    # 1. Rows and sessions, or nobody before the first model.
    if view.newest is not None:
        groups = list(_of_users(moment, questions))
        groups += _sessions(moment, view.newest, questions, hints)
        for group in groups:
            group.ranker.update_statistics(moment.now, moment.wall)
            for part, composed in _in_parts(moment, group, questions):
                scored = (_composed if composed else _plain)(moment, part, questions, hints)
                answers.update(zip(part.numbers.tolist(), scored, strict=True))
    # 2. The others.
    popular: NDArray[np.float64] | None = None
    for i, question in enumerate(questions):
        if i not in answers:
            if popular is None:
                popular = popular_counts(view, moment.now)
            answers[i] = _unknown(moment, question, popular, hints[i])
    return [answers[i] for i in range(len(questions))]


def groups_of_rows(moment: Moment, users: Sequence[str]) -> Iterator[Group]:
    """The users who have rows, by version; `numbers` are their places in `users`. The view must have a
    model.
    """
    view = moment.view
    for at, numbers, slots in view.find_rows(users):
        ranker, state = view.rankers.get(at), None
        if ranker is None:  # its files cannot be read (yet): the newest version that can reads the window
            assert view.newest is not None
            ranker = view.newest
            state = _encoded_anew(view, ranker, at, slots)
        yield Group(ranker, view.slabs[at], slots, state, numbers)


def _of_users(moment: Moment, questions: Sequence[Question]) -> Iterator[Group]:
    """The questions of users who have rows, by version."""
    asking = np.array([i for i, question in enumerate(questions) if question.session is None], np.int64)
    for group in groups_of_rows(moment, [questions[i].user_id for i in asking.tolist()]):
        yield replace(group, numbers=asking[group.numbers])


def _sessions(
    moment: Moment, ranker: Ranker, questions: Sequence[Question], hints: Sequence[list[str]]
) -> list[Group]:
    """The questions of sessions, those of whose events some could be used."""
    numbers = [i for i, question in enumerate(questions) if question.session is not None]
    if not numbers:
        return []
    sessions = [questions[i].session or () for i in numbers]
    slab, slots, unnamed = session_rows(sessions, ranker.live, moment.view.catalogue, moment.now)
    for i, count in zip(numbers, unnamed.tolist(), strict=True):
        hints[i].extend([f"{count} events are of items that nobody has named yet"] if count else ())
    usable = np.flatnonzero(slab.length[slots] > 0)
    group = Group(ranker, slab, slots, None, np.array(numbers)).take(usable)
    return [group] if len(usable) else []


# A version whose model is not here: another version's states for the recent windows, without their anchors.
@torch.inference_mode()
def _encoded_anew(
    view: MaterialisedView, ranker: Ranker, at: VersionAt, slots: NDArray[np.int64]
) -> torch.Tensor:
    slab, live = view.slabs[at], ranker.live
    begin, length = np.zeros(len(slots), np.int64), slab.length[slots].astype(np.int64)
    return live.recompute(slab, slots, begin, length, live.recommender.initial(len(slots)))


def _in_parts(moment: Moment, group: Group, questions: Sequence[Question]) -> Iterator[tuple[Group, bool]]:
    """Plain questions, then those whose lists are composed, in parts small enough to be answered together."""
    composed = np.array(
        [moment.is_composed(questions[i], questions[i].explore or 0.0) for i in group.numbers.tolist()]
    )
    most = max(1, MAX_FLOATS // max(group.ranker.scorer.items, 1))
    for kind in (False, True):
        chosen = np.flatnonzero(composed == kind)
        for start in range(0, len(chosen), most):
            yield group.take(chosen[start : start + most]), kind


def _plain(
    moment: Moment, group: Group, questions: Sequence[Question], hints: Sequence[list[str]]
) -> list[Answer]:
    """Answers that are the best scores."""
    asked = [questions[i] for i in group.numbers.tolist()]
    rows, best = best_scores(moment, group, asked)
    item, score = best.item.numpy(), best.score.numpy()
    return [
        Answer(items=items_of(moment.view, item[i, : question.k], score[i, : question.k]), **about)
        for i, (question, about) in enumerate(
            zip(asked, _about(moment, group, rows, asked, hints), strict=True)
        )
    ]


def best_scores(moment: Moment, group: Group, asked: Sequence[Question]) -> tuple[RowViews, TopK]:
    """The rows of a group, and lists by the best scores for its n questions, as long as the longest of them.

    The statistics of the group's ranker must be up to date.
    """
    rows, wait = begin_best_scores(moment, group, asked)
    return rows, wait()


def begin_best_scores(
    moment: Moment, group: Group, asked: Sequence[Question]
) -> tuple[RowViews, Callable[[], TopK]]:
    """Like `best_scores`, but what is returned waits for the lists, on any thread."""
    ranker = group.ranker
    rows = ranker.latest(group.slab, group.slots, group.state)
    k = max(question.k for question in asked)
    exclude_seen = np.array([question.exclude_seen for question in asked])
    adjust = moment.columns(asked, ranker.scorer.items)
    wait = ranker.start_topk(rows, moment.now, k, exclude_seen, moment.excluded(asked), adjust=adjust)
    return rows, wait


def _composed(
    moment: Moment, group: Group, questions: Sequence[Question], hints: Sequence[list[str]]
) -> list[Answer]:
    """Answers that are composed from the scores of all items."""
    asked = [questions[i] for i in group.numbers.tolist()]
    ranker = group.ranker
    rows = ranker.latest(group.slab, group.slots, group.state)
    adjust = moment.columns(asked, ranker.scorer.items)
    exclude_seen = np.array([question.exclude_seen for question in asked])
    scores = ranker.scores(rows, moment.now, exclude_seen, moment.excluded(asked), adjust).copy()
    material = moment.material(ranker)
    answers: list[Answer] = []
    for i, (question, about) in enumerate(zip(asked, _about(moment, group, rows, asked, hints), strict=True)):
        if question.candidates is not None:
            ranked = ranked_items(moment, question.candidates, scores[i], scores[i])
            answers.append(Ranking(items=ranked, **about))
            continue
        places = compose(question, question.explore or 0.0, scores[i], scores[i], material)
        index = np.array([place.item for place in places], np.int64)
        if question.explain:
            items = explained_items(moment, question, places, scores[i][index], _explained_row(group, i))
        else:
            items = items_of(moment.view, index, scores[i][index])
        answers.append(Answer(items=items, **about))
    return answers


def _explained_row(group: Group, i: int) -> ExplainedRow:
    """The row of the group's question i."""
    ranker, slab, slots = group.ranker, group.slab, group.slots[i : i + 1]
    state = None if group.state is None else group.state[i : i + 1]
    window = cell_window(slab, int(slots[0]), ranker.live, own=state is None)
    return ExplainedRow(ranker, ranker.latest(slab, slots, state), window)


def _about(
    moment: Moment, group: Group, rows: RowViews, asked: Sequence[Question], hints: Sequence[list[str]]
) -> list[dict[str, Any]]:
    """What the answers say beside their items."""
    slab, slots, live = group.slab, group.slots, group.ranker.live
    partition, offset = slab.partition[slots].tolist(), slab.offset[slots].tolist()
    age = np.maximum(moment.now - rows.last_time, 0).tolist()
    return [
        {
            "user_id": question.user_id if question.session is None else None,
            "known": True,
            "stream_time": moment.now,
            "epoch": live.epoch,
            "version": live.version.id,
            "partition": partition[i] if question.session is None else None,
            "offset": offset[i] if question.session is None else None,
            "state_age_ms": age[i],
            "hints": hints[group.numbers[i]],
        }
        for i, question in enumerate(asked)
    ]


def _unknown(moment: Moment, question: Question, popular: NDArray[np.float64], hints: list[str]) -> Answer:
    """What is popular now, with a few items that are new; `popular`: decayed counts of all items."""
    # 1. Counts, multiplied by the factors of boosts and rules.
    view = moment.view
    out = view.catalogue.find(item_hashes(question.exclude))
    out = np.concatenate([out[out >= 0], view.names.unlisted()])
    counts = popular.astype(np.float32)
    column = moment.column(question, len(counts))
    if column is not None:
        counts *= factors_of(column)
    counts[out] = 0.0
    about: dict[str, Any] = {
        "user_id": None if question.session is not None else question.user_id,
        "known": False,
        "stream_time": moment.now,
        "hints": hints,
    }
    explore = COLD_EXPLORE if question.explore is None else question.explore
    if not moment.is_composed(question, explore if question.k * explore >= 1 else 0.0):
        return Answer(items=items_with_most(view, counts, question.k), **about)
    # 2. On the scale of scores, where an item that nobody touched can be explored.
    logarithm = np.log(popular.astype(np.float32) + np.float32(POPULARITY_FLOOR))
    if column is not None:
        logarithm += column
    logarithm[out] = -np.inf
    if question.candidates is not None:
        return Ranking(items=ranked_items(moment, question.candidates, logarithm, counts), **about)
    ranked = np.where(counts > 0, logarithm, np.float32(-np.inf))
    places = compose(question, explore, ranked, logarithm, moment.material(view.newest))
    index = np.array([place.item for place in places], np.int64)
    items = (
        explained_items(moment, question, places, counts[index])
        if question.explain
        else items_of(view, index, counts[index])
    )
    return Answer(items=items, **about)
