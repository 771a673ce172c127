"""Metadata of items as columns by catalogue index, so that a filter is work on arrays.

A text, a list of texts or a truth value gives the item values of an attribute, without regard to case; "a|b"
is two values. A number gives both a value ("1999") and a place in the attribute's numeric column. The fields
of a category may have any of the names in CATEGORY; together they are the attribute `category`.

What is kept is bounded: MAX_ATTRIBUTES, MAX_VALUES of an attribute and MAX_VALUES_OF_ITEM. What goes beyond
is passed over and reported once. What no item has any more does not count: an attribute leaves with its last
item, and values leave when as many have come as there were.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from eddy.models.growable import Growable
from eddy.serving.catalogue.field_values import (
    MAX_TEXT,
    MAX_VALUES_OF_ITEM,
    milliseconds_of,
    number_of_field,
    remembered_by,
    texts_of,
)

CATEGORY = frozenset(("category", "categories", "genre", "genres"))
"""Names of fields that hold an item's categories."""

STARTS, ENDS = "available_from", "available_until"
"""Fields that say between which moments an item may be listed: ISO 8601, or ms since 1970."""

_NO_ATTRIBUTES = frozenset(("item_id", "title", STARTS, ENDS))
"""Fields by which nobody filters."""

MAX_ATTRIBUTES = 64
MAX_VALUES = 1 << 17
_NO_NUMBER = np.float64(math.nan)


def attribute_name(name: str) -> str:
    """The name under which a field's values are kept."""
    return "category" if name in CATEGORY else name


MAX_REMEMBERED = 1 << 15
"""Fields of an attribute whose codes are remembered."""

LEAST_VALUES = 1024
"""Values of an attribute below which nobody looks for those that no item has any more."""

_Codes = tuple[tuple[int, ...], float | None]


@dataclass(slots=True)
class _NewValues:
    """Values of an attribute that are to be written."""

    row: list[int] = field(default_factory=list)
    """of each value, the place of its item among those that are written"""
    column: list[int] = field(default_factory=list)
    code: list[int] = field(default_factory=list)
    number: dict[int, float] = field(default_factory=dict)
    """by the place of the item"""


class Attribute:
    """One attribute of all items: codes of its values, and its numbers."""

    def __init__(self) -> None:
        self.code_of: dict[str, int] = {}
        """by value, in small letters"""
        self.values: list[str] = []
        """by code"""
        self.codes = Growable(np.zeros((0, 1), np.int32))
        """[N, most values of an item], -1 = none"""
        self.numbers: Growable[np.float64] | None = None
        """[N], NaN = none; None as long as no item has a number"""
        self.remembered: dict[object, _Codes] = {}
        """what short fields give"""
        self.items = 0
        """how many items have any value"""
        self._look_at = LEAST_VALUES
        """with so many values it is time to look for those that no item has any more"""
        self._written = 0
        """how many items were written since then: a look costs a pass over all"""

    def code(self, value: str) -> int:
        """The code of a value, a new one if it has none."""
        if value not in self.code_of:
            self.code_of[value] = len(self.values)
            self.values.append(value)
        return self.code_of[value]

    def values_of(self, item: int) -> list[str]:
        """The values of an item, in small letters."""
        codes = self.codes.now[item].tolist() if item < len(self.codes) else []
        return [self.values[code] for code in codes if code >= 0]

    def write(self, items: NDArray[np.int64], new: "_NewValues") -> None:
        """Replace what the items have; `new` names them by their places in `items`."""
        top = int(items.max(initial=-1)) + 1
        self._widen(max(new.column, default=-1) + 1)
        self.codes.extend(top, -1)
        self.items -= self._with_values(items)
        self.codes.now[items] = -1
        self.codes.now[items[new.row], new.column] = new.code
        self.items += self._with_values(items)
        self._written += len(items)
        if self.numbers is None and new.number:
            self.numbers = Growable(np.zeros(0, np.float64))
        if self.numbers is not None:
            self.numbers.extend(top, _NO_NUMBER)
            self.numbers.now[items] = math.nan
            self.numbers.now[items[list(new.number)]] = list(new.number.values())

    def _with_values(self, items: NDArray[np.int64] | slice) -> int:
        """How many of these items have any value."""
        return int(np.count_nonzero(self.codes.now[items, 0] >= 0))

    def forget_unused(self) -> None:
        """Forget the values that no item has any more, if that may be worth it; the others get new codes."""
        values = len(self.values)
        if values < self._look_at or self._written < values // 16:
            return
        stored = self.codes.now >= 0
        is_used = np.bincount(self.codes.now[stored], minlength=values) > 0
        used = np.flatnonzero(is_used)
        if len(used) < values:
            self.codes.now[stored] = (np.cumsum(is_used) - 1)[self.codes.now[stored]]
            self.values = [self.values[code] for code in used.tolist()]
            self.code_of = {value: code for code, value in enumerate(self.values)}
            self.remembered = {}
        self._look_at = min(max(LEAST_VALUES, 2 * len(used)), MAX_VALUES * 7 // 8)
        self._written = 0

    def _widen(self, width: int) -> None:
        codes = self.codes.now
        if width > codes.shape[1]:
            self.codes = Growable(np.pad(codes, ((0, 0), (0, width - codes.shape[1])), constant_values=-1))

    def has_any(self, index: NDArray[np.int64], values: frozenset[str]) -> NDArray[np.bool_]:
        """Which of these items have one of the values (in small letters): bool[n]."""
        wanted = [self.code_of[value] for value in values if value in self.code_of]
        found = np.zeros(len(index), np.bool_)
        stored = index < len(self.codes)
        codes = self.codes.now[index[stored]]
        for column in codes.T:
            if len(wanted) == 1:
                found[stored] |= column == wanted[0]
            else:
                found[stored] |= np.isin(column, wanted)
        return found

    def number_of(self, index: NDArray[np.int64]) -> NDArray[np.float64]:
        """Numbers of these items: float64[n], NaN = none."""
        number = np.full(len(index), math.nan)
        if self.numbers is not None:
            stored = index < len(self.numbers)
            number[stored] = self.numbers.now[index[stored]]
        return number

    def keep(self, index: NDArray[np.int64]) -> None:
        """Keep these items, which get the numbers 0 … n - 1."""
        stored = index[index < len(self.codes)]
        self.codes = Growable(self.codes.now[stored])
        self.items = self._with_values(slice(None))
        if self.numbers is not None:
            self.numbers = Growable(self.numbers.now[index[index < len(self.numbers)]])


class Attributes:
    """Attributes of items by name.

    `changes` counts the items that were written; `changed_since` says which, so that what was computed from
    the columns can be brought up to date at the cost of these items.
    """

    def __init__(self) -> None:
        self.by_name: dict[str, Attribute] = {}
        self.starts = self.ends = Growable(np.zeros(0, np.float64))
        """ms since 1970 by item, NaN = always; empty as long as no item has such dates"""
        self.any_dates = False
        self._changed = Growable(np.zeros(0, np.int64))
        self._dropped = 0
        self.renumbered = 0
        """how often the items were given other numbers"""
        self.over_limit: dict[str, None] = {}
        """lines that say what was passed over because of a limit"""

    @property
    def changes(self) -> int:
        """How many changes there were."""
        return self._dropped + len(self._changed)

    def changed_since(self, changes: int) -> NDArray[np.int64] | None:
        """Items that were written after so many changes; None when they are not known any more."""
        return None if changes < self._dropped else self._changed.now[changes - self._dropped :]

    def put(self, described: Mapping[int, Mapping[str, object]]) -> None:
        """Replace all that items (catalogue indices) have by what their fields say."""
        if not described:
            return
        # 1. The values by attribute; all attributes are written, since an item may have lost some.
        for attribute in self.by_name.values():
            attribute.forget_unused()
        items = np.fromiter(described, np.int64, len(described))
        new: defaultdict[str, _NewValues] = defaultdict(_NewValues)
        for row, fields in enumerate(described.values()):
            self._collect(row, fields, new)
        for name, attribute in self.by_name.items():
            attribute.write(items, new[name])
        self._drop_empty()
        # 2. Dates, and which items have changed.
        self._put_dates(items, described)
        if len(self._changed) > max(1 << 16, 2 * int(items.max())):
            self._dropped += len(self._changed)
            self._changed = Growable(np.zeros(0, np.int64))
        self._changed.append(items)

    def _drop_empty(self) -> None:
        for name in [name for name, attribute in self.by_name.items() if not attribute.items]:
            del self.by_name[name]

    def _collect(self, row: int, fields: Mapping[str, object], new: defaultdict[str, _NewValues]) -> None:
        """Add the values of one item to those that are to be written."""
        codes_of: dict[str, tuple[int, ...]] = {}
        for name, value in fields.items():
            if name in _NO_ATTRIBUTES:
                continue
            kept = attribute_name(name)
            codes, number = self._codes(kept, value)
            if codes:
                codes_of[kept] = tuple(dict.fromkeys(codes_of[kept] + codes)) if kept in codes_of else codes
                if number is not None:
                    new[kept].number[row] = number
        for name, every in codes_of.items():
            kept_codes, added = every[:MAX_VALUES_OF_ITEM], new[name]
            added.row += [row] * len(kept_codes)
            added.column += range(len(kept_codes))
            added.code += kept_codes

    def _attribute(self, name: str) -> Attribute | None:
        if name not in self.by_name:
            if len(self.by_name) >= MAX_ATTRIBUTES or len(name) > MAX_TEXT:
                self.over_limit.setdefault(f"more than {MAX_ATTRIBUTES} attributes: others are passed over")
                return None
            self.by_name[name] = Attribute()
        return self.by_name[name]

    def _codes(self, name: str, value: object) -> _Codes:
        """The codes of a field's values, and its number. Those of short fields are remembered: most are the
        fields of many items.
        """
        attribute, key = self.by_name.get(name), remembered_by(value)
        if attribute is not None and key in attribute.remembered:
            return attribute.remembered[key]
        texts = tuple(dict.fromkeys(texts_of(value)))
        if not texts or (attribute := self._attribute(name)) is None:
            return (), None
        codes, is_full = list[int](), False
        for text in texts[:MAX_VALUES_OF_ITEM]:
            if text not in attribute.code_of and len(attribute.values) >= MAX_VALUES:
                is_full = True
                self.over_limit.setdefault(
                    f"attribute {name!r} has more than {MAX_VALUES} values: others are passed over"
                )
            else:
                codes.append(attribute.code(text))
        found = tuple(codes), number_of_field(value)
        if key is not None and not is_full and len(attribute.remembered) < MAX_REMEMBERED:
            attribute.remembered[key] = found
        return found

    def _put_dates(self, items: NDArray[np.int64], described: Mapping[int, Mapping[str, object]]) -> None:
        names = (STARTS, ENDS)
        if not self.any_dates and not any(name in fields for fields in described.values() for name in names):
            return
        times = [[milliseconds_of(fields.get(name)) for fields in described.values()] for name in names]
        if not self.any_dates:
            if all(math.isnan(time) for column in times for time in column):
                return
            self.any_dates = True
            self.starts, self.ends = (Growable(np.zeros(0, np.float64)) for _ in names)
        for column, dates in zip((self.starts, self.ends), times, strict=True):
            column.extend(int(items.max()) + 1, _NO_NUMBER)
            column.now[items] = dates

    def dates(self, index: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """When items begin and end to be available, ms since 1970, NaN = always: float64[n] each."""
        dates = []
        for column in (self.starts, self.ends):
            date = np.full(len(index), math.nan)
            stored = index < len(column)
            date[stored] = column.now[index[stored]]
            dates.append(date)
        return dates[0], dates[1]

    def closed(self, index: NDArray[np.int64], wall: int) -> NDArray[np.bool_]:
        """Which items are not available at `wall` (ms), by their dates: bool[n]."""
        starts, ends = self.dates(index)
        return (starts > wall) | (ends <= wall)

    def keep(self, index: NDArray[np.int64]) -> None:
        """Keep these items, in increasing order, which get the numbers 0 … n - 1."""
        for attribute in self.by_name.values():
            attribute.keep(index)
        self._drop_empty()
        self.starts, self.ends = (
            Growable(column.now[index[index < len(column)]]) for column in (self.starts, self.ends)
        )
        self.renumbered += 1
