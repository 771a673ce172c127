"""Replaying a log as the stream would see it: what was known just before each target, in time order.

States and windows are those just before each target, whatever the size of a chunk. Statistics take in events
after every chunk, as they do after every micro-batch of the stream.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eddy.models.hashing import item_hashes
from eddy.models.logs.column_store import slices
from eddy.models.logs.events import Events
from eddy.models.logs.item_features import ItemFeatures
from eddy.models.logs.order import Rows, first_rows, row_type
from eddy.models.network.recommender import Recommender
from eddy.models.rules import EventRules
from eddy.models.scoring.backend import Exclude
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.tensors import Window
from eddy.models.training.sequences import expand_ranges, outputs_at, sequences
from eddy.models.vocabulary import Catalogue, Vocabulary

WARM_UP_CHUNK = 8192
"""Events before the first target that statistics take in at a time."""

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


class Replay:
    """Walks a log with one version. While a chunk is looked at, `catalogue` and `statistics` are as before
    its events, but for the catalogue's numbers of the chunk's own items.
    """

    def __init__(
        self, recommender: Recommender, vocabulary: Vocabulary, events: Events, rules: EventRules,
        first: int = 0, features: ItemFeatures | None = None,
    ) -> None:  # fmt: skip
        """first: the row of the first target; the events before it only build up states and statistics."""
        self.events = events
        self.config = recommender.config
        self.catalogue = Catalogue(features=features)
        self.statistics = Statistics(self.config.half_lives_ms, self.config.successors)
        self.first = first
        self._flags = events.flags(rules)
        self._hashes = item_hashes(events.items)
        self._data = sequences(events, vocabulary, rules, outside=True)
        outputs, wanted = outputs_at(recommender, self._data, range(first, len(events)))
        order = np.argsort(self._data.row[wanted], kind="stable")
        self._wanted = wanted[order]
        self._outputs = outputs[torch.from_numpy(order)]
        self._before = self._events_before()
        self._older_of: dict[int, tuple[int, NDArray[np.int64]]] = {}
        self._catalogue_index = np.full(len(events.items), -1, np.int64)
        self._first_row = first_rows(lambda part: events.item[part], len(events), len(events.items))

    def chunks(self, size: int, learns: bool = True) -> Iterator[Chunk]:
        """Yield the targets of `size` events of the log at a time; a chunk without targets is passed over.

        learns: whether catalogue and statistics take in the events from row `first` on.

        1. Statistics take in all events before row `first`. 2. For each chunk: its items get their numbers,
        its targets are yielded, and statistics take in its events.
        """
        events, data = self.events, self._data
        # 1. What is known at row `first`.
        for begin in range(0, self.first, WARM_UP_CHUNK):
            end = min(begin + WARM_UP_CHUNK, self.first)
            self._number(begin, end)
            self._learn(begin, end)
        # 2. The chunks.
        rows = data.row[self._wanted]
        for begin in range(self.first, len(events), size):
            end = min(begin + size, len(events))
            if learns:
                self._number(begin, end)
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
                self._learn(begin, end)

    def seen(self, chunk: Chunk) -> Exclude:
        """The items that each target's user had before it, in the whole history, except the target itself."""
        start = self._data.start[chunk.user]
        row, event = expand_ranges(start, np.maximum(chunk.state + 1, start))
        item = self._catalogue_index[self.events.item[self._data.moved[event]]]
        kept = (item >= 0) & (item != chunk.target[row])
        return Exclude(torch.from_numpy(row[kept]), torch.from_numpy(item[kept]))

    def _events_before(self) -> Rows:
        """For each row that moves a state: its user's last event before it, or -1."""
        events, data = self.events, self._data
        before = events.store.empty(len(events), row_type(len(events)))
        for part in slices(len(data.moved)):
            rows, event = data.moved[part], np.arange(part.start, part.stop)
            before[rows] = np.where(event > data.start[events.user[rows]], event - 1, -1)
        return before

    def _slots(self, user: NDArray[np.int64], state: NDArray[np.int64], places: int) -> NDArray[np.int64]:
        """Indices of the last events up to `state`, latest first: int64[n,places], -1 = none."""
        slot = state[:, None] - np.arange(places)
        return np.where((slot >= self._data.start[user][:, None]) & (state >= 0)[:, None], slot, -1)

    def _window(self, user: NDArray[np.int64], state: NDArray[np.int64]) -> Window:
        """The windows of users after event `state` of the sequences: see Window."""
        data, width = self._data, self.config.recent_window
        latest_first = self._slots(user, state, width)
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
            item=torch.from_numpy(np.where(is_event, self._catalogue_index[self.events.item[row]], -1)),
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
                    self._catalogue_index[self.events.item[before[::-1]]], return_index=True
                )
                self._older_of[number] = until, items[np.argsort(first_seen)][: self.config.older]
            older_of.append(self._older_of.get(number, _NO_ITEMS)[1])
        older = np.full((len(user), max(map(len, older_of), default=0)), -1, np.int64)
        for row, items in enumerate(older_of):
            older[row, : len(items)] = items
        return torch.from_numpy(older)

    def _number(self, begin: int, end: int) -> None:
        """Put the items of rows begin … end - 1 into the catalogue."""
        item = self.events.item[begin:end]
        self._catalogue_index[item] = self.catalogue.add(self._hashes[item])

    def _target(self, row: NDArray[np.int64]) -> NDArray[np.int64]:
        """Catalogue indices of the items of these rows, -1 for an item's first appearance."""
        item = self.events.item[row]
        return np.where(self._first_row[item] < row, self._catalogue_index[item], -1)

    def _learn(self, begin: int, end: int) -> None:
        """Count the events of rows begin … end - 1 that move states and are not negative."""
        events = self.events
        rows = np.flatnonzero(self._flags.moves[begin:end] & ~self._flags.negative[begin:end]) + begin
        slots = self._slots(
            events.user[rows].astype(np.int64),
            self._before[rows].astype(np.int64),
            self.config.transition_lags,
        )
        earlier = np.where(slots >= 0, self._catalogue_index[events.item[self._data.moved[slots]]], -1)
        self.statistics.count_events(
            0, self._catalogue_index[events.item[rows]], events.timestamp[rows], earlier
        )
