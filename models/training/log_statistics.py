"""The item statistics that the events of a log make, in time order, as the stream's workers make them."""

import numpy as np
from numpy.typing import NDArray

from eddy.models.config import ModelConfig
from eddy.models.hashing import item_hashes
from eddy.models.logs.column_store import slices
from eddy.models.logs.events import Events
from eddy.models.logs.item_features import ItemFeatures
from eddy.models.logs.order import Rows, row_type
from eddy.models.rules import EventRules
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.training.sequences import Sequences
from eddy.models.vocabulary import Catalogue

WARM_UP_CHUNK = 8192
"""Events that statistics take in at a time where nobody looks at them meanwhile."""


class LogStatistics:
    """Catalogue and statistics of the events of a log up to some row."""

    def __init__(
        self, events: Events, data: Sequences, config: ModelConfig, rules: EventRules,
        features: ItemFeatures | None = None,
    ) -> None:  # fmt: skip
        """data: the events as sequences. features: metadata of the catalogue's items."""
        self.events, self.data, self.config = events, data, config
        self.catalogue = Catalogue(features=features)
        self.statistics = Statistics(config.half_lives_ms, config.successors)
        self.index = np.full(len(events.items), -1, np.int64)
        """the catalogue's numbers of the log's items, -1 = not in it yet"""
        self._hashes = item_hashes(events.items)
        self._flags = events.flags(rules)
        self._before = self._events_before()

    def add_items(self, item: NDArray[np.integer]) -> None:
        """Put items into the catalogue, by their numbers in the log."""
        self.index[item] = self.catalogue.add(self._hashes[item])

    def learn_until(self, row: int) -> None:
        """Take in the items and the events of all rows before this one."""
        for part in slices(row, WARM_UP_CHUNK):
            self.add_items(self.events.item[part])
            self.learn(part)

    def learn(self, part: slice) -> None:
        """Count the events of these rows that move states and are not negative."""
        events, flags = self.events, self._flags
        rows = np.flatnonzero(flags.moves[part] & ~flags.negative[part]) + part.start
        slots = self.slots(
            events.user[rows].astype(np.int64), self._before[rows].astype(np.int64),
            self.config.transition_lags,
        )  # fmt: skip
        earlier = np.where(slots >= 0, self.index[events.item[self.data.moved[slots]]], -1)
        self.statistics.count_events(0, self.index[events.item[rows]], events.timestamp[rows], earlier)

    def slots(self, user: NDArray[np.int64], state: NDArray[np.int64], places: int) -> NDArray[np.int64]:
        """Indices of the last events of users up to `state`, latest first: int64[n,places], -1 = none."""
        slot = state[:, None] - np.arange(places)
        return np.where((slot >= self.data.start[user][:, None]) & (state >= 0)[:, None], slot, -1)

    def _events_before(self) -> Rows:
        """For each row that moves a state: its user's last event before it, or -1."""
        events, data = self.events, self.data
        before = events.store.empty(len(events), row_type(len(events)))
        for part in slices(len(data.moved)):
            rows, event = data.moved[part], np.arange(part.start, part.stop)
            before[rows] = np.where(event > data.start[events.user[rows]], event - 1, -1)
        return before
