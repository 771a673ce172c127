"""The moment as of which questions are answered together: the view, the clocks, and the rules that hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from eddy.models.hashing import item_hashes
from eddy.models.scoring.backend import Adjust, Exclude
from eddy.serving.catalogue.adjustments import Adjustment, Boost
from eddy.serving.catalogue.filters import Filter, unknown_names
from eddy.serving.catalogue.rules import ActiveRules
from eddy.serving.lists.compose import Material
from eddy.serving.lists.questions import Question
from eddy.serving.view import MaterialisedView
from eddy.stream.engine.ranker import Ranker


@dataclass(frozen=True)
class Moment:
    """See the module."""

    view: MaterialisedView
    now: int
    """the stream's, ms"""
    wall: int
    """ms, by which items and rules begin and end"""
    rules: ActiveRules

    @classmethod
    def of(cls, view: MaterialisedView) -> "Moment":
        """This moment."""
        wall = view.wall()
        return cls(view, view.clock.now(wall), wall, view.rules.at(wall))

    @cached_property
    def _rules_that_boost(self) -> tuple[Boost, ...]:
        return tuple(boost for _, boost in self.rules.boosts)

    def column(self, question: Question, items: int) -> NDArray[np.float32] | None:
        """What the question and the rules add to the scores of N = `items` items: float32[N], None where
        nothing is added.
        """
        adjustment = Adjustment(question.where, question.boosts + self._rules_that_boost)
        return self.view.adjustments.column(adjustment, items, self.wall)

    def columns(self, questions: Sequence[Question], items: int) -> Adjust | None:
        """The columns of several questions."""
        number: dict[tuple[Filter, tuple[Boost, ...]], int] = {}
        columns: list[NDArray[np.float32]] = []
        column_of = np.full(len(questions), -1)
        for i, question in enumerate(questions):
            wishes = question.where, question.boosts
            if wishes not in number:
                column = self.column(question, items)
                number[wishes] = -1 if column is None else len(columns)
                columns += [] if column is None else [column]
            column_of[i] = number[wishes]
        if not columns:
            return None
        added = columns[0][None] if len(columns) == 1 else np.stack(columns)
        return Adjust(torch.from_numpy(column_of), torch.from_numpy(added))

    def find_items(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Catalogue indices of items, -1 for those that are not known by this id: int64[n]."""
        index = self.view.catalogue.find(item_hashes(ids))
        names = self.view.names.ids
        for place, (item, name) in enumerate(zip(index.tolist(), ids, strict=True)):
            if item >= 0 and (item >= len(names) or names[item] != name):
                index[place] = -1
        return index

    def excluded(self, questions: Sequence[Question]) -> Exclude | None:
        """The items that the questions leave out by id."""
        rows = [i for i, question in enumerate(questions) for _ in question.exclude]
        if not rows:
            return None
        ids = [name for question in questions for name in question.exclude]
        item = self.view.catalogue.find(item_hashes(ids))
        known = item >= 0
        return Exclude(torch.tensor(rows)[torch.from_numpy(known)], torch.from_numpy(item[known]))

    def is_composed(self, question: Question, explore: float) -> bool:
        """Whether the list is more than the best scores."""
        return bool(
            question.candidates is not None
            or question.explain
            or explore
            or question.diversity
            or question.max_per_category
            or self.rules.pins
            or self.rules.caps
        )

    def material(self, ranker: Ranker | None) -> Material:
        """What lists are composed from; without a model, diversity has no vectors to go by."""
        view = self.view
        statistics = view.statistics
        if ranker is not None:  # where nobody with a row has asked meanwhile, new items have no vectors yet
            ranker.update_statistics(self.now, self.wall)
        pins = self.find_items([item for _, item in self.rules.pins])

        def vectors(index: NDArray[np.int64]) -> NDArray[np.float32]:
            if ranker is None:
                return np.zeros((len(index), 1), np.float32)
            return ranker.scorer.item_vectors(index).cpu().numpy()

        return Material(
            view.attributes,
            pins[pins >= 0].tolist(),
            [(attribute, most) for _, attribute, most in self.rules.caps],
            view.fresh.newest(view.names, view.attributes, statistics, self.now),
            vectors,
            self.now,
        )

    def hints(self, question: Question) -> list[str]:
        """What in the question may be a mistake."""
        conditions = question.where + tuple(each for boost in question.boosts for each in boost.where)
        return unknown_names(conditions, self.view.attributes)
