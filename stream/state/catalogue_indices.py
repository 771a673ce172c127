"""Stored rows name items and event types by hashes, the slab by the catalogue's numbers: from one to the
other.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eddy.models.vocabulary import Catalogue
from eddy.stream.state.rows import WINDOW, Rows


class CatalogueIndices(NamedTuple):
    """The items and event types of n rows in the catalogue's numbers, as the slab has them."""

    item: NDArray[np.int32]
    """[n, WINDOW] catalogue indices, 0 past the rows' lengths"""
    older: NDArray[np.int32]
    """[n, 0 … OLDER] catalogue indices + 1, 0 = none"""
    type: NDArray[np.uint16]
    """[n, WINDOW] the catalogue's numbers of event types, 0 past the rows' lengths"""
    numbering: int = 0
    """`Catalogue.renumbered` when they were looked up; under another one they say nothing"""


def look_up(rows: Rows, catalogue: Catalogue) -> CatalogueIndices:
    """The catalogue's numbers of the rows' items and event types; new ones are added to the catalogue."""
    filled = np.arange(WINDOW) < rows.length[:, None]
    item, older = np.zeros(rows.item.shape, np.int32), np.zeros(rows.older.shape, np.int32)
    item[filled] = catalogue.add(rows.item[filled])
    older[rows.older > 0] = catalogue.add(rows.older[rows.older > 0]) + 1
    type_ = np.zeros(rows.type.shape, np.uint16)
    type_[filled] = catalogue.types.add(rows.type[filled])
    return CatalogueIndices(item, older, type_, catalogue.renumbered)
