"""Items with few events, which a list can explore."""

import time

import numpy as np
from numpy.typing import NDArray

from eddy.models.scoring.item_statistics import Statistics
from eddy.serving.catalogue.attributes import Attributes
from eddy.stream.state.item_names import ItemNames

FRESH_EVENTS = 10.0
"""An item is fresh as long as it has fewer events than this, counted by the longest half-life."""

POOL = 1000
"""So many fresh items, the newest ones, are looked at."""

SHARE = 0.01
"""At most this share of the time goes into finding them."""

LEAST_PERIOD_S = 1.0


class FreshItems:
    """The newest fresh items, looked up about once a second. An item is as new as the date from which on it
    is available; without a date, as its place in the catalogue, which numbers items as they come.
    """

    def __init__(self) -> None:
        self._items = np.zeros(0, np.int64)
        self._numbering = -1
        self._not_before = 0.0

    def newest(
        self, names: ItemNames, attributes: Attributes, statistics: Statistics | None, now: int
    ) -> NDArray[np.int64]:
        """Catalogue indices of at most POOL items, the newest first; `now`: the stream's, ms."""
        numbering = names.catalogue.renumbered
        if numbering != self._numbering or time.monotonic() >= self._not_before:
            began = time.thread_time()
            self._items = _newest(names, attributes, statistics, now)
            took = time.thread_time() - began
            self._numbering = numbering
            self._not_before = time.monotonic() + max(took / SHARE, LEAST_PERIOD_S)
        return self._items


def _newest(
    names: ItemNames, attributes: Attributes, statistics: Statistics | None, now: int
) -> NDArray[np.int64]:
    # 1. Items with few events that may be listed.
    items = len(names.catalogue)
    fresh = np.ones(items, np.bool_)
    if statistics is not None and statistics.half_lives_ms:
        longest = max(statistics.half_lives_ms)
        fresh = statistics.popularity(items, float(now), [longest])[0] < FRESH_EVENTS
    fresh[names.unlisted()] = False
    index = np.flatnonzero(fresh)
    # 2. The newest: a date in ms is greater than any index.
    newness = index.astype(np.float64)
    if attributes.any_dates:
        stored = index < len(attributes.starts)
        dates = attributes.starts.now[index[stored]]
        newness[stored] = np.where(np.isnan(dates), newness[stored], dates)
    if len(index) > POOL:
        chosen = np.argpartition(-newness, POOL)[:POOL]
        index, newness = index[chosen], newness[chosen]
    return index[np.argsort(-newness, kind="stable")]
