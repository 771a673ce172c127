"""Metadata of items as hashed features, by which new items are scored.

An item's features are its categories and the words of its texts ("genres=drama", "year=1999", "title=star"),
each as a 64-bit hash, so they mean the same in every process and every version. A version knows the features
that several items of its vocabulary have (eddy.models.vocabulary), and has a vector for each, which is
learned to stand in for the items' own (from attributes to factors: Gantner et al., ICDM 2010). It ignores
others.
"""

import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eddy.models.hashing import feature_hash, item_hashes
from eddy.models.logs.columns import records
from eddy.models.logs.formats.source import path_error
from eddy.models.storage import Place, located

MIN_ITEMS = 5
"""A version knows the features that at least so many of its items have: fewer teach nothing about others."""

MAX_KNOWN = 1 << 16
"""A version knows at most so many features: those that the most items have."""

MAX_ITEMS = 5_000_000
"""Items of an items file, at most."""

MAX_FEATURES, MAX_FIELDS, MAX_TEXT = 64, 32, 2_000
"""Features and fields of an item, and characters of a field, that are read; the rest is skipped."""

NO_FEATURES = ("item_id", "available")
"""Fields that give no features: they say which item it is, and whether it may be listed."""

NONE = np.zeros(0, np.uint64)
log = logging.getLogger("eddy.features")

_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,18})?")
"""Numbers as CSV files write them; 007 is a text."""


class Bags(NamedTuple):
    """The features of n items that a version knows, one item after the other."""

    feature: Tensor  # int64[m] number of the feature
    start: Tensor  # int64[n] first feature of each item
    weight: Tensor  # float32[m] 1 / sqrt(features of the item), so that sums are of one size
    has_any: Tensor  # float32[n] 1 where the item has any, else 0


def features_of(fields: Mapping[str, object]) -> NDArray[np.uint64]:
    """Hashed features of an item's fields: distinct, uint64[at most MAX_FEATURES].

    A text gives itself and its words; "a|b" is a list of two texts; numbers are categories, written as text
    or not. Nulls, NaN, nested values and the fields that say which item it is and whether it may be listed
    give nothing.
    """
    hashes: dict[int, None] = {}
    for name, value in list(fields.items())[:MAX_FIELDS]:
        if name in NO_FEATURES:
            continue
        for feature in _named(name[:MAX_TEXT], value):
            hashes[feature_hash(feature)] = None
            if len(hashes) == MAX_FEATURES:
                return np.fromiter(hashes, np.uint64)
    return np.fromiter(hashes, np.uint64)


def _named(name: str, value: object) -> Iterator[str]:
    if isinstance(value, str):
        for part in (part.strip() for part in value[:MAX_TEXT].casefold().split("|")):
            if _NUMBER.fullmatch(part):
                yield f"{name}={_category(float(part) if '.' in part else int(part))}"
            else:
                yield from (f"{name}={text}" for text in (part, *_WORD.findall(part)) if text)
    elif isinstance(value, list | tuple):
        for part in value[:MAX_FEATURES]:
            if isinstance(part, str | int | float):
                yield from _named(name, part)
    elif isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        yield f"{name}={_category(value)}"


def _category(number: float) -> str:
    """A number's name: whole ones exactly, others as far as a float32 is exact."""
    return str(int(number)) if number == int(number) else f"{number:.7g}"


LaterFeatures = Callable[[], NDArray[np.uint64]]
"""Makes features, the same at every call."""


class _Entry:
    """An item's features; copies of `ItemFeatures` share it."""

    __slots__ = ("_features", "revision")

    def __init__(self, revision: int, features: NDArray[np.uint64] | LaterFeatures) -> None:
        self.revision = revision
        self._features = features

    @property
    def is_empty(self) -> bool:
        return not callable(self._features) and not len(self._features)

    def now(self) -> NDArray[np.uint64]:
        features = self._features
        if callable(features):
            features = self._features = features()
        return features


class ItemFeatures:
    """Features by item hash, in the order in which they came. An item's latest features replace earlier ones.

    `revision` counts the changes, so that a reader can ask which items changed since it read them.
    """

    def __init__(self) -> None:
        self._by_item: dict[int, _Entry] = {}
        self.revision = 0

    def __len__(self) -> int:
        return len(self._by_item)

    def copy(self) -> "ItemFeatures":
        """The same features, which later changes of these do not change."""
        other = ItemFeatures()
        other._by_item, other.revision = self._by_item.copy(), self.revision
        return other

    def put(self, item: int, features: NDArray[np.uint64] | LaterFeatures) -> None:
        """Replace the features of the item with this hash. A function is called when somebody asks for them,
        on any thread: only a version that knows features does.
        """
        self.revision += 1
        self._by_item.pop(item, None)  # the last to come is the last in the dictionary
        self._by_item[item] = _Entry(self.revision, features)

    def add(self, items: Iterable[tuple[int, NDArray[np.uint64]]]) -> None:
        """Take over features by item hash, of those items that have none here."""
        for item, features in items:
            if item not in self._by_item:
                self.put(item, features)

    def forget_empty(self, known: Callable[[NDArray[np.uint64]], NDArray[np.bool_]]) -> None:
        """Forget of the items that have no features (since their metadata went) those that are not known any
        more, either.
        """
        empty = np.array([item for item, entry in self._by_item.items() if entry.is_empty], np.uint64)
        for item in empty[~known(empty)].tolist():
            del self._by_item[item]

    def items(self) -> Iterator[tuple[int, NDArray[np.uint64]]]:
        """(item hash, features) of all items; the item that changed last comes last."""
        return ((item, entry.now()) for item, entry in self._by_item.items())

    def of(self, hashes: NDArray[np.uint64]) -> list[NDArray[np.uint64]]:
        """The features of items by their hashes; an item without metadata has none."""
        nothing = _Entry(0, NONE)
        return [self._by_item.get(item, nothing).now() for item in hashes.tolist()]

    def changed_since(self, revision: int) -> NDArray[np.uint64]:
        """Hashes of the items that changed after this revision."""
        changed = []
        for item, entry in reversed(self._by_item.items()):
            if entry.revision <= revision:
                break
            changed.append(item)
        return np.array(changed, np.uint64)


def bags(features: Iterable[NDArray[np.uint64]], number_of: Mapping[int, int]) -> Bags:
    """Of each item's features those that a version knows; `number_of` has their numbers by hash."""
    numbers: list[int] = []
    start: list[int] = []
    for of_item in features:
        start.append(len(numbers))
        numbers += [number_of[feature] for feature in of_item.tolist() if feature in number_of]
    begin = np.array([*start, len(numbers)], np.int64)
    count = np.diff(begin)
    weight = np.repeat(1 / np.sqrt(np.maximum(count, 1)), count).astype(np.float32)
    return Bags(
        torch.tensor(numbers, dtype=torch.int64), torch.from_numpy(begin[:-1]), torch.from_numpy(weight),
        torch.from_numpy(np.minimum(count, 1).astype(np.float32)),
    )  # fmt: skip


def worth_knowing(features: Iterable[NDArray[np.uint64]]) -> list[int]:
    """The features that at least MIN_ITEMS of these items have, at most MAX_KNOWN, most frequent first."""
    every = np.concatenate([NONE, *features])
    feature, count = np.unique(every, return_counts=True)
    order = np.argsort(-count, kind="stable")[:MAX_KNOWN]
    return [int(feature[i]) for i in order if count[i] >= MIN_ITEMS]


def read_features(path: Place) -> ItemFeatures:
    """Features from a file or folder (see eddy.models.logs.columns) with item_id and any further columns:
    texts, numbers, dates, lists of texts or numbers. Of rows with the same item_id the last counts; columns
    of another kind are left out, with a warning that names them.

    Errors: EddyError for a file that is unreadable or too long, or has no column that gives features.
    """
    path = located(path)
    features = ItemFeatures()
    left_out: dict[str, str] = {}
    names: set[str] = set()
    rows = 0
    for block in records(path, "item_id"):
        rows += len(block.fields)
        if rows > MAX_ITEMS:
            raise path_error(path, f"more than {MAX_ITEMS:,} items; at most so many are read")
        left_out |= block.left_out
        ids = block.key.to_pylist()
        for item, fields in zip(item_hashes(ids).tolist(), block.fields, strict=True):
            names |= fields.keys() - set(NO_FEATURES)
            features.put(item, features_of(fields))
    of_other_kinds = ", ".join(f"column {name} is {kind}" for name, kind in left_out.items())
    if not names:
        raise path_error(
            path, "nothing beside item_id" + (f" that gives features: {of_other_kinds}" if left_out else "")
            + "; add columns such as title, genres or category",
        )  # fmt: skip
    if left_out:
        log.warning("%s: left out, since no features are made of it: %s", path, of_other_kinds)
    return features
