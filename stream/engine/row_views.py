"""Copies of what answers are made from: rows as they are at the moments that lists and ranks are asked of."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from eddy.models.kernels.compiled import Ints
from eddy.models.kernels.window import Window
from eddy.models.tensors import to_device
from eddy.stream.engine.live_version import LiveVersion
from eddy.stream.kernels import window_loops
from eddy.stream.records.columns import join_columns, widened
from eddy.stream.state.rows import WINDOW
from eddy.stream.state.slab import Slab, Slots


# Station 6: copies of rows, which later events do not change.
@dataclass(frozen=True)
class RowViews:
    """What m answers are made from: the cell's output and the recent window, at one moment of each row."""

    event: Ints
    """[m] which event of the given table it stands at"""
    output: torch.Tensor
    """[m, H]"""
    window: Window[NDArray[np.generic]]
    """of m rows, in the version's numbers of event types"""
    last_time: Ints
    """[m] ms of the last event that the row includes, NO_TIME for an empty row"""

    @classmethod
    def empty(cls, event: Ints, live: LiveVersion, older: int) -> "RowViews":
        """Views to be filled in, with room for `older` older items each."""
        m = len(event)
        window = Window[NDArray[np.generic]](
            item=np.empty((m, WINDOW), np.int64),
            timestamp=np.empty((m, WINDOW), np.int64),
            type=np.empty((m, WINDOW), np.int64),
            negative=np.empty((m, WINDOW), np.bool_),
            length=np.empty(m, np.int64),
            older=np.empty((m, older), np.int32),
        )
        output = torch.empty(m, live.recommender.config.hidden, device=live.device)
        return cls(event, output, window, np.empty(m, np.int64))

    def __len__(self) -> int:
        return len(self.event)


def join_views(parts: Sequence[RowViews]) -> RowViews:
    """All views, part after part, with room for as many older items as the roomiest part has."""
    parts = [part for part in parts if len(part)] or parts[:1]
    if len(parts) == 1:
        return parts[0]
    width = max(part.window.older.shape[1] for part in parts)
    windows = [part.window._replace(older=widened(part.window.older, width)) for part in parts]
    return RowViews(
        np.concatenate([part.event for part in parts]),
        torch.cat([part.output for part in parts]),
        join_columns(windows),
        np.concatenate([part.last_time for part in parts]),
    )


def views_now(slab: Slab, live: LiveVersion, slots: Slots, output: torch.Tensor) -> RowViews:
    """Rows as they are; `event` numbers them."""
    older = min(int(slab.older_count[slots].max(initial=0)), live.recommender.config.older)
    number = np.arange(len(slots))
    view = RowViews.empty(number, live, older)
    length = slab.length[slots].astype(np.int64)
    window_loops.copy_out(slab.windows(), live.tables, slots, length, number, view.window, view.last_time)
    view.output.copy_(output)
    return view


class RowRecorder:
    """Copies rows as they are at the moments that were asked for, each to its place among the views."""

    def __init__(
        self, slab: Slab, live: LiveVersion, before: NDArray[np.bool_], after: NDArray[np.bool_], older: int
    ) -> None:
        """`before` and `after` [n] say of which events the row is recorded just before and just after;
        `older`: as many older items as a row can come to have.
        """
        self._windows, self._live = slab.windows(), live
        just_after, just_before = np.flatnonzero(after), np.flatnonzero(before)
        self._view = RowViews.empty(np.concatenate((just_after, just_before)), live, older)
        self._most_older = 0
        self.place_after = np.where(after, np.cumsum(after) - 1, -1)
        """[n] by event: the place of its row just after it, -1 = none"""
        self.place_before = np.where(before, len(just_after) - 1 + np.cumsum(before), -1)
        """[n] by event: the place of its row just before it, -1 = none"""

    def record(self, slot: Slots, length: Ints, place: Ints, output: torch.Tensor) -> None:
        """Copy rows to their places among the views: of each slot, the first `length` entries of its window
        and its output [n, H]. Rows with a place below 0 are passed over.
        """
        window, last_time = self._view.window, self._view.last_time
        most = window_loops.copy_out(self._windows, self._live.tables, slot, length, place, window, last_time)
        self._most_older = max(self._most_older, most)
        chosen = place >= 0
        if chosen.any():
            to = to_device(place[chosen], output.device)
            self._view.output[to] = output[to_device(np.flatnonzero(chosen), output.device)]

    def recorded(self) -> RowViews:
        """All rows just after events, then those just before, each in the order of the events."""
        window = self._view.window
        return replace(self._view, window=window._replace(older=window.older[:, : self._most_older]))
