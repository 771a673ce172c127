"""Entries of lists, from catalogue indices and scores."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from eddy.models.kernels.topk import topk
from eddy.serving.catalogue.filters import matches
from eddy.serving.lists.answers import Explained, Ranked, Recommended
from eddy.serving.lists.compose import Place
from eddy.serving.lists.explain import ExplainedRow, explain
from eddy.serving.lists.moment import Moment
from eddy.serving.lists.questions import Question
from eddy.serving.view import MaterialisedView

SCORE_DECIMALS = 4


def _rounded(score: NDArray[np.floating]) -> list[float]:
    return np.round(score.astype(np.float64), SCORE_DECIMALS).tolist()  # type: ignore[no-any-return]


def items_of(
    view: MaterialisedView, index: NDArray[np.int64], score: NDArray[np.floating]
) -> list[Recommended]:
    """Entries of items, -1 = none, in their order."""
    ids, metadata = view.names.ids, view.metadata
    items = []
    for item, value in zip(index.tolist(), _rounded(score), strict=True):
        name = ids[item] if item >= 0 else None
        if name is not None:
            described = metadata.get(name)
            items.append(Recommended(name, value, described.title if described else None))
    return items


def items_with_most(view: MaterialisedView, weight: NDArray[np.floating], k: int) -> list[Recommended]:
    """Entries of the k items with the greatest weight[N], of those that have one above 0."""
    return items_of(view, *with_most(weight, k))


def with_most(weight: NDArray[np.floating], k: int) -> tuple[NDArray[np.int64], NDArray[np.floating]]:
    """The k items with the greatest weight[N], -1 for those that have none above 0, and their weights."""
    best, score = (part[0].numpy() for part in topk(torch.from_numpy(weight)[None], k))
    return np.where(score > 0, best, -1), score


def explained_items(
    moment: Moment, question: Question, places: Sequence[Place], score: NDArray[np.floating],
    row: ExplainedRow | None = None,
) -> list[Recommended]:  # fmt: skip
    """Entries that say why each item is in its place, with the parts of its score where there is a row."""
    view, rules = moment.view, moment.rules
    index = np.array([place.item for place in places], np.int64)
    # 1. The parts of the scores.
    explanations = [None] * len(places) if row is None else explain(row, moment.now, index, view.names)
    # 2. What boosts and rules have done.
    column = moment.column(question, len(view.catalogue))
    adjusted = np.zeros(len(index)) if column is None else column[index]
    concerned: list[list[str]] = [[] for _ in places]
    for name, boost in rules.boosts:
        for i in np.flatnonzero(matches(boost.where, view.attributes, index)).tolist():
            concerned[i].append(name)
    pinned_by = {item: name for name, item in rules.pins}
    for place, names in zip(places, concerned, strict=True):
        if place.reason == "pinned":
            names.append(pinned_by[view.names.ids[place.item] or ""])
    # 3. The entries.
    entries = zip(
        items_of(view, index, score), places, _rounded(adjusted), concerned, explanations, strict=True
    )
    return [
        Explained(item.item_id, item.score, item.title, place.reason, by, names, explanation)
        for item, place, by, names, explanation in entries
    ]


def ranked_items(
    moment: Moment, candidates: Sequence[str], order: NDArray[np.float32], score: NDArray[np.float32]
) -> list[Ranked]:
    """Candidates by order[N], -inf for what is left out, with their score[N]; those without come last."""
    view = moment.view
    index = moment.find_items(candidates)
    value = np.where(index >= 0, order[index], -np.inf) if len(order) else np.full(len(index), -np.inf)
    shown = _rounded(score[index]) if len(order) else []
    ranked: list[Ranked] = []
    unranked: list[Ranked] = []
    for i in np.lexsort((index, -value)).tolist():  # ties go to the lower index, as in lists
        if value[i] > -np.inf:
            described = view.metadata.get(candidates[i])
            ranked.append(Ranked(candidates[i], shown[i], described.title if described else None))
    for i, name in enumerate(candidates):
        if value[i] == -np.inf:
            unranked.append(Ranked(name, None, None, "unknown" if index[i] < 0 else "left_out"))
    return ranked + unranked
