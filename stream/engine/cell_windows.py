"""Copies of recent windows as a cell reads them: they can be read, in whole or in part, beside the slab."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from eddy.models.tensors import Inputs
from eddy.stream.engine.live_version import LiveVersion
from eddy.stream.state.rows import NO_TIME
from eddy.stream.state.slab import Slab


@dataclass(frozen=True)
class CellWindow:
    """The events of a window, T of them, and the state before the first."""

    inputs: Inputs
    """[T]"""
    state: torch.Tensor
    """[S]"""
    gap_ms: NDArray[np.float32]
    """[T] since the event before, -1 = none"""

    def __len__(self) -> int:
        return len(self.gap_ms)


def cell_window(slab: Slab, slot: int, live: LiveVersion, own: bool) -> CellWindow:
    """A row's window. own: whether the version has made the row; another one begins with zeros instead of
    the row's anchor.
    """
    events = slice(0, int(slab.length[slot]))
    time = slab.time[slot, events]
    before = np.concatenate(([slab.anchor_time[slot] if own else NO_TIME], time[:-1]))[: len(time)]
    gap = np.where(before == NO_TIME, -1, time - before).astype(np.float32)
    type_ = slab.type[slot, events]
    negative = live.flags(type_, slab.value[slot, events]).negative
    inputs = live.inputs(slab.item[slot, events], type_, negative, gap)
    state = slab.anchor[slot].clone() if own else torch.zeros(live.state_size)
    return CellWindow(Inputs(*(part.clone() for part in inputs)), state, gap)
