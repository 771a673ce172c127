"""Filters: conditions on the attributes of items."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eddy.serving.catalogue.attributes import Attributes


@dataclass(frozen=True, slots=True)
class Condition:
    """What an item's attribute must be; everything that is given must hold. An item without the attribute
    fulfils `none_of` alone.
    """

    attribute: str
    any_of: frozenset[str] = frozenset()
    """values in small letters, of which the item must have one; empty = any"""
    none_of: frozenset[str] = frozenset()
    """values in small letters, none of which the item may have"""
    min: float = -math.inf
    max: float = math.inf

    def matches(self, attributes: Attributes, index: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these items (catalogue indices) fulfil it: bool[n]."""
        attribute = attributes.by_name.get(self.attribute)
        if attribute is None:
            return np.full(len(index), not self.any_of and self.min == -math.inf and self.max == math.inf)
        fits = np.ones(len(index), np.bool_)
        if self.any_of:
            fits &= attribute.has_any(index, self.any_of)
        if self.none_of:
            fits &= ~attribute.has_any(index, self.none_of)
        if self.min > -math.inf or self.max < math.inf:
            number = attribute.number_of(index)  # comparisons with NaN are false
            fits &= (number >= self.min) & (number <= self.max)
        return fits


Filter = tuple[Condition, ...]
"""Conditions that must all hold."""


def matches(conditions: Filter, attributes: Attributes, index: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of these items (catalogue indices) fulfil all conditions: bool[n]."""
    fits = np.ones(len(index), np.bool_)
    for condition in conditions:
        fits &= condition.matches(attributes, index)
    return fits


def unknown_names(conditions: Filter, attributes: Attributes) -> list[str]:
    """Hints: a line for each attribute or value that no item has, which may be misspelt."""
    hints = []
    for condition in conditions:
        attribute = attributes.by_name.get(condition.attribute)
        if attribute is None:
            hints.append(f"no item has the attribute {condition.attribute!r}")
            continue
        for value in sorted((condition.any_of | condition.none_of) - attribute.code_of.keys()):
            hints.append(f"no item has {condition.attribute} {value!r}")
        if attribute.numbers is None and (condition.min > -math.inf or condition.max < math.inf):
            hints.append(f"no item's {condition.attribute} is a number")
    return hints
