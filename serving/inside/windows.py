"""Windows of a view's rows. Taken on the view's thread, read on another."""

import numpy as np
from numpy.typing import NDArray

from eddy.serving.view import MaterialisedView, RowAt
from eddy.stream.engine.cell_windows import CellWindow, cell_window
from eddy.stream.engine.live_version import LiveVersion
from eddy.stream.state.slab import Slab

MAX_USERS, LOOKED_AT = 32, 4_096
"""So many windows are taken for a measurement: the longest ones of so many rows."""


def window_of(view: MaterialisedView, live: LiveVersion, row: RowAt) -> CellWindow:
    """A row's window as a version reads it."""
    own = (row.at.epoch, row.at.version) == (live.epoch, live.version_hash)
    return cell_window(view.slabs[row.at], row.slot, live, own)


def longest_windows(view: MaterialisedView, live: LiveVersion) -> list[CellWindow]:
    """Windows of rows for a measurement, the longest first: of rows that the version has made if it has made
    any, else of any version's.
    """
    slabs = sorted(view.slabs.items(), key=lambda entry: entry[0] != (live.epoch, live.version_hash))
    for at, slab in slabs:
        slots = _longest(slab)
        if len(slots):
            return [window_of(view, live, RowAt(at, slot)) for slot in slots.tolist()]
    return []


def _longest(slab: Slab) -> NDArray[np.int64]:
    length = slab.length[: min(len(slab.user_of), LOOKED_AT)]
    slots = np.flatnonzero((slab.partition[: len(length)] >= 0) & (length > 0))
    return slots[np.argsort(-length[slots].astype(np.int64), kind="stable")][:MAX_USERS]
