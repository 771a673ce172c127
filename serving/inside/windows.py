"""Copies of stored windows as a version's cell reads them. Taken on the view's thread, read on another."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from eddy.models.tensors import Inputs
from eddy.serving.view import MaterialisedView, RowAt
from eddy.stream.engine.live_version import LiveVersion
from eddy.stream.state.rows import NO_TIME
from eddy.stream.state.slab import Slab

MAX_USERS, LOOKED_AT = 32, 4_096
"""So many windows are taken for a measurement: the longest ones of so many rows."""


@dataclass(frozen=True)
class CellWindow:
    """The events of a window, T of them, and the state before the first."""

    inputs: Inputs
    """[T]"""
    state: torch.Tensor
    """[S]"""
    gap_ms: NDArray[np.float32]
    """[T] since the event before, -1 = none"""


def window_of(view: MaterialisedView, live: LiveVersion, row: RowAt) -> CellWindow:
    """A row's window. A version that has not made the row begins with zeros instead of the row's anchor."""
    slab, slot = view.slabs[row.at], row.slot
    own = (row.at.epoch, row.at.version) == (live.epoch, live.version_hash)
    events = slice(0, int(slab.length[slot]))
    time = slab.time[slot, events]
    before = np.concatenate(([slab.anchor_time[slot] if own else NO_TIME], time[:-1]))[: len(time)]
    gap = np.where(before == NO_TIME, -1, time - before).astype(np.float32)
    type_ = slab.type[slot, events]
    negative = live.flags(type_, slab.value[slot, events]).negative
    inputs = live.inputs(slab.item[slot, events], type_, negative, gap)
    state = slab.anchor[slot].clone() if own else torch.zeros(live.state_size)
    return CellWindow(Inputs(*(part.clone() for part in inputs)), state, gap)


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


__all__ = ["MAX_USERS", "CellWindow", "longest_windows", "window_of"]
