"""What filters, factors, dates and rules add to scores: one column of numbers for all items.

An item that is filtered out gets -inf. One whose likelihood is to be multiplied by a factor gets the
logarithm of that factor, because a score is the logarithm of a probability mass. Columns are kept, and
brought up to date at the cost of the items whose metadata have changed.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eddy.serving.catalogue.attributes import Attributes
from eddy.serving.catalogue.filters import Filter, matches

MAX_FLOATS = 1 << 25
"""The kept columns have at most so many numbers: 128 MB."""

MAX_COLUMNS = 256
"""So many columns are kept at most."""


_GREATEST = np.float32(60)
"""The logarithm of the greatest factor. By greater ones a float32 would become infinite, which JSON cannot
say.
"""


@dataclass(frozen=True, slots=True)
class Boost:
    """Items that fulfil conditions count as `factor` times as likely."""

    where: Filter
    factor: float


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What a question, and the rules that hold now, ask of items."""

    where: Filter = ()
    boosts: tuple[Boost, ...] = ()


NO_ADJUSTMENT = Adjustment()


def factors_of(column: NDArray[np.float32]) -> NDArray[np.float32]:
    """By what a column multiplies likelihoods: float32[N], 0 for what is filtered out."""
    return np.exp(np.minimum(column, _GREATEST))


@dataclass(slots=True)
class _Column:
    added: NDArray[np.float32]
    changes: int
    renumbered: int
    until: float
    """ms: then an item begins or ends to be available"""


class Adjustments:
    """Columns by adjustment."""

    def __init__(self, attributes: Attributes) -> None:
        self._attributes = attributes
        self._columns: OrderedDict[Adjustment, _Column] = OrderedDict()

    def column(self, adjustment: Adjustment, items: int, wall: int) -> NDArray[np.float32] | None:
        """What is added to the scores of N = `items` items at `wall` (ms): float32[N], None where nothing
        is.
        """
        attributes = self._attributes
        if adjustment == NO_ADJUSTMENT and not attributes.any_dates:
            return None
        # 1. A column that is kept, if it can be brought up to date.
        column = self._columns.pop(adjustment, None)
        changed = None
        if (
            column is not None
            and column.renumbered == attributes.renumbered
            and wall < column.until
            and len(column.added) <= items
        ):
            changed = attributes.changed_since(column.changes)
        if column is None or changed is None:
            column = _Column(np.zeros(0, np.float32), 0, attributes.renumbered, math.inf)
            changed = np.zeros(0, np.int64)
        # 2. The items that are new or have changed. A column that was given away is not written to.
        before = len(column.added)
        stale = np.concatenate([changed[changed < before], np.arange(before, items)])
        if len(stale):
            added = np.zeros(items, np.float32)
            added[:before] = column.added
            added[stale] = self._added_to(adjustment, stale, wall)
            column.added = added
            column.until = min(column.until, self._next_change(stale, wall))
        column.changes = attributes.changes
        # 3. Keep it; those that were asked for least recently make room.
        self._columns[adjustment] = column
        while len(self._columns) > max(1, min(MAX_COLUMNS, MAX_FLOATS // max(items, 1))):
            self._columns.popitem(last=False)
        return column.added

    def _added_to(self, adjustment: Adjustment, index: NDArray[np.int64], wall: int) -> NDArray[np.float32]:
        added = np.zeros(len(index), np.float32)
        for boost in adjustment.boosts:
            added[matches(boost.where, self._attributes, index)] += math.log(boost.factor)
        added[~matches(adjustment.where, self._attributes, index)] = -np.inf
        added[self._attributes.closed(index, wall)] = -np.inf
        return added

    def _next_change(self, index: NDArray[np.int64], wall: int) -> float:
        """When the first of these items begins or ends to be available after `wall`, ms."""
        if not self._attributes.any_dates:
            return math.inf
        dates = np.concatenate(self._attributes.dates(index))
        return float(dates[dates > wall].min(initial=math.inf))
