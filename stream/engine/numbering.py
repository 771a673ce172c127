"""Numbers the items of a version that is to go live, some at a time."""

from collections.abc import Callable, Iterator
from functools import partial

from eddy.models.registry import Version
from eddy.stream.state.item_names import ItemNames

NUMBERED_AT_ONCE = 4096
"""Items that are numbered in one step; that takes milliseconds."""


def numbering_steps(version: Version, names: ItemNames) -> Iterator[Callable[[], None]]:
    """The steps by which the items of a version's vocabulary get their numbers and names, and the catalogue
    their features. Between two of them the thread that owns `names` applies events or answers questions.
    """
    items, features = version.vocabulary.items, list(version.features.items())
    for start in range(0, len(items), NUMBERED_AT_ONCE):
        yield partial(names.add_vocabulary, items[start : start + NUMBERED_AT_ONCE])
    for start in range(0, len(features), NUMBERED_AT_ONCE):
        yield partial(names.catalogue.features.add, features[start : start + NUMBERED_AT_ONCE])
