"""Copies of recent windows as a cell reads them: they can be read, in whole or in part, beside the slab."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from eddy.models.tensors import Inputs
from eddy.stream.engine.live_version import LiveVersion
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
    entry = np.arange(int(slab.length[slot]))
    inputs, gap = live.window_inputs(slab, np.full(len(entry), slot), entry, anchored=own)
    state = slab.anchor[slot].clone() if own else torch.zeros(live.state_size)
    return CellWindow(inputs, state, gap)
