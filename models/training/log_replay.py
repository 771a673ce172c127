"""Replaying a log as the stream would see it: what was known just before each target, in time order.

States and windows are those just before each target, whatever the size of a chunk. Statistics take in events
after every chunk, as they do after every micro-batch of the stream.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eddy.models.logs.events import Events
from eddy.models.logs.item_features import ItemFeatures
from eddy.models.logs.order import first_rows
from eddy.models.network.recommender import Recommender
from eddy.models.rules import EventRules
from eddy.models.scoring.backend import Exclude
from eddy.models.tensors import Window
from eddy.models.training.log_statistics import LogStatistics
from eddy.models.training.sequences import expand_ranges, outputs_at, sequences
from eddy.models.vocabulary import Vocabulary

_NO_ITEMS = 0, np.zeros(0, np.int64)


@dataclass(frozen=True)
class Chunk:
    """q targets, and what was known before each (states, windows) or before the chunk (statistics)."""

    row: NDArray[np.int64]  # [q] of the log
    user: NDArray[np.int64]  # [q]
    state: NDArray[np.int64]  # [q] see Sequences
    output: Tensor  # float32[q,H] of the cell, after the user's last event before the target
    idle_ms: Tensor  # int64[q] since that event, -1 = none
    window: Window  # [q] in catalogue numbers; as before the target
    target: NDArray[np.int64]  # [q] catalogue index, -1 = the item's first appearance
    now: float  # ms: time of the event before the chunk


@dataclass(frozen=True)
class Known:
    """What is known from the events before a row that a log lacks, since others have them."""

    items: NDArray[np.int64]
    """their numbers in the log"""
    statistics: list[dict[str, NDArray[Any]]] = field(default_factory=list)
    """of the events before the row, as parts: see `Statistics.export_partition`"""


class Replay:
    """Walks a log with one version. While a chunk is looked at, `catalogue` and `statistics` are as before
    its events, but for the catalogue's numbers of the chunk's own items.
    """

    def __init__(
        self, recommender: Recommender, vocabulary: Vocabulary, events: Events, rules: EventRules,
        first: int = 0, features: ItemFeatures | None = None, known: Known | None = None,
        targets: NDArray[np.bool_] | None = None,
    ) -> None:  # fmt: skip
        """first: the row of the first target; the events before it only build up states and statistics.
        known: takes the place of statistics that are built up here. targets: see `sequences`.
        """
        self.events = events
        self.config = recommender.config
        self.first = first
        self._data = sequences(events, vocabulary, rules, outside=True, targets=targets)
        outputs, wanted = outputs_at(recommender, self._data, range(first, len(events)))
        order = np.argsort(self._data.row[wanted], kind="stable")
        self._wanted = wanted[order]
        self._outputs = outputs[torch.from_numpy(order)]
        self._older_of: dict[int, tuple[int, NDArray[np.int64]]] = {}
        self._learned = LogStatistics(events, self._data, self.config, rules, features)
        self.catalogue, self.statistics = self._learned.catalogue, self._learned.statistics
        self._first_row = first_rows(lambda part: events.item[part], len(events), len(events.items))
        self._known = known
        if known is not None:
            self._first_row[known.items] = -1

    def chunks(self, size: int, learns: bool = True) -> Iterator[Chunk]:
        """Yield the targets of `size` events of the log at a time; a chunk without targets is passed over.

        learns: whether catalogue and statistics take in the events from row `first` on.

        1. Statistics take in all events before row `first`. 2. For each chunk: its items get their numbers,
        its targets are yielded, and statistics take in its events.
        """
        events, data = self.events, self._data
        # 1. What is known at row `first`.
        if self._known is None:
            self._learned.learn_until(self.first)
        else:
            self._learned.add_items(self._known.items)
            for number, arrays in enumerate(self._known.statistics, 1):
                self.statistics.replace_partition(number, arrays, self.catalogue)
        # 2. The chunks.
        rows = data.row[self._wanted]
        for begin in range(self.first, len(events), size):
            end = min(begin + size, len(events))
            if learns:
                self._learned.add_items(events.item[begin:end])
            low, high = np.searchsorted(rows, [begin, end])
            if high > low:
                picked = self._wanted[low:high]
                user, state = data.user_of(picked), data.state_of(picked)
                yield Chunk(
                    row=data.row[picked],
                    user=user,
                    state=state,
                    output=self._outputs[low:high],
                    idle_ms=data.idle_ms[torch.from_numpy(picked)],
                    window=self._window(user, state),
                    target=self._target(data.row[picked]),
                    now=float(events.timestamp[max(begin - 1, 0)]),
                )
            if learns:
                self._learned.learn(slice(begin, end))

    def seen(self, chunk: Chunk) -> Exclude:
        """The items that each target's user had before it, in the whole history, except the target itself."""
        start = self._data.start[chunk.user]
        row, event = expand_ranges(start, np.maximum(chunk.state + 1, start))
        item = self._learned.index[self.events.item[self._data.moved[event]]]
        kept = (item >= 0) & (item != chunk.target[row])
        return Exclude(torch.from_numpy(row[kept]), torch.from_numpy(item[kept]))

    def _window(self, user: NDArray[np.int64], state: NDArray[np.int64]) -> Window:
        """The windows of users after event `state` of the sequences: see Window."""
        data, width = self._data, self.config.recent_window
        latest_first = self._learned.slots(user, state, width)
        # As in the stream: a window that is full drops its older half.
        events, half = state - data.start[user] + 1, width // 2
        kept = np.where(events < width, events, half + (events - width) % half)
        latest_first = np.where(np.arange(width) < kept[:, None], latest_first, -1)
        length = (latest_first >= 0).sum(axis=1)
        shift = length[:, None] - 1 - np.arange(width)
        slot = np.where(shift >= 0, np.take_along_axis(latest_first, np.maximum(shift, 0), axis=1), -1)
        is_event, event = slot >= 0, np.maximum(slot, 0)
        row = data.moved[event]
        return Window(
            item=torch.from_numpy(np.where(is_event, self._learned.index[self.events.item[row]], -1)),
            timestamp=torch.from_numpy(np.where(is_event, self.events.timestamp[row], 0)),
            type=torch.where(torch.from_numpy(is_event), data.inputs.type[event].long(), 0),
            negative=torch.from_numpy(is_event) & data.inputs.negative[event],
            length=torch.from_numpy(length),
            older=self._older(user, state + 1 - kept),
        )

    def _older(self, user: NDArray[np.int64], end: NDArray[np.int64]) -> Tensor:
        """The items that users had before event `end`, where their windows begin: see Window.older."""
        data = self._data
        older_of = []
        for number, until in zip(user.tolist(), end.tolist(), strict=True):
            begin = int(data.start[number])
            if self._older_of.get(number, (begin, None))[0] != until:
                before = data.moved[begin:until][~data.inputs.negative[begin:until].numpy()]
                items, first_seen = np.unique(
                    self._learned.index[self.events.item[before[::-1]]], return_index=True
                )
                self._older_of[number] = until, items[np.argsort(first_seen)][: self.config.older]
            older_of.append(self._older_of.get(number, _NO_ITEMS)[1])
        older = np.full((len(user), max(map(len, older_of), default=0)), -1, np.int64)
        for row, items in enumerate(older_of):
            older[row, : len(items)] = items
        return torch.from_numpy(older)

    def _target(self, row: NDArray[np.int64]) -> NDArray[np.int64]:
        """Catalogue indices of the items of these rows, -1 for an item's first appearance."""
        item = self.events.item[row]
        return np.where(self._first_row[item] < row, self._learned.index[item], -1)
