"""Items for people who look: search, one item in full, and popularity over time.

What needs all items at once (counts, which items no version knows, the most popular ones) is computed on the
view's thread at most once a second, and less often where it takes long.
"""

import asyncio
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from eddy.serving.catalogue.items import (
    ItemDetail,
    Items,
    by_counts,
    counts_of,
    item_detail,
    listable,
    listable_counts,
    most_popular,
    waiting_for_a_version,
)
from eddy.serving.catalogue.popularity_history import INTERVAL_S, MOST_POPULAR, PopularityHistory
from eddy.serving.catalogue.search import ItemSearch
from eddy.serving.lists.moment import Moment
from eddy.serving.pace import Pace
from eddy.serving.threads import Threads
from eddy.serving.view import MaterialisedView
from eddy.stream.records.clock import wall_ms

SHARE, LEAST_PERIOD_S = 0.01, 1.0
"""At most this share of the view's time goes into each of these, and it is done at most so often."""


class _NowAndThen:
    """An array about all items, computed anew when some time has passed or items have other numbers. Used on
    the view's thread.
    """

    def __init__(self, compute: Callable[[MaterialisedView], NDArray[np.generic]]) -> None:
        self._compute = compute
        self._value: NDArray[np.generic] = np.zeros(0)
        self._numbering = -1
        self._pace = Pace(SHARE, LEAST_PERIOD_S)

    def of(self, view: MaterialisedView) -> NDArray[np.generic]:
        if self._numbering != view.catalogue.renumbered or self._pace.is_due():
            began = time.thread_time()
            self._value, self._numbering = self._compute(view), view.catalogue.renumbered
            self._pace.took(time.thread_time() - began)
        return self._value


class ItemService:
    """See the module."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._search = ItemSearch(threads)
        self._history = PopularityHistory()
        self._counts = _NowAndThen(listable_counts)
        self._waiting = _NowAndThen(waiting_for_a_version)
        self._first = _NowAndThen(lambda view: by_counts(view, self._counts_now(view), listable(view)))
        self._first_waiting = _NowAndThen(
            lambda view: by_counts(view, self._counts_now(view), np.flatnonzero(self._waiting.of(view)))
        )

    async def search(self, query: str, limit: int, new: bool) -> Items:
        """The most popular of the items that match; new: of those that no version knows yet."""
        numbering, index = -1, None
        if query:
            numbering, index = await self._search.find(query)

        def chosen(view: MaterialisedView) -> Items:
            if index is None:
                first = np.asarray((self._first_waiting if new else self._first).of(view), np.int64)
                found = first[view.names.may_be_listed(first)]
            elif numbering != view.catalogue.renumbered:
                found = index[:0]  # a moment after items were forgotten: the next search finds them
            else:
                found = self._waiting_of(view, index) if new else index
            return most_popular(view, self._counts_now(view), found, limit, query)

        return await self._threads.look_up(chosen)

    def _counts_now(self, view: MaterialisedView) -> NDArray[np.float64]:
        return np.asarray(self._counts.of(view), np.float64)

    def _waiting_of(self, view: MaterialisedView, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of these items that no version knows yet."""
        waiting = np.asarray(self._waiting.of(view), np.bool_)
        index = index[index < len(waiting)]
        return index[waiting[index]]

    async def detail(self, item_id: str) -> ItemDetail | None:
        """One item; None where no record has named it."""
        history = self._history.ask(item_id)
        return await self._threads.look_up(lambda view: item_detail(view, item_id, history))

    async def watch_popularity(self) -> None:
        """Look at the popularity of items every interval, until cancelled."""
        while True:
            self._history.note(wall_ms(), await self._threads.look_up(self._look))
            await asyncio.sleep(INTERVAL_S)

    def _look(self, view: MaterialisedView) -> dict[str, float]:
        counts = self._counts_now(view)
        index = np.flatnonzero(counts > 0)
        if len(index) > MOST_POPULAR:
            index = index[np.argpartition(-counts[index], MOST_POPULAR)[:MOST_POPULAR]]
        asked = Moment.of(view).find_items(self._history.asked())
        index = np.union1d(index, asked[asked >= 0])
        names = [view.names.ids[item] for item in index.tolist()]
        found = zip(names, counts_of(view, index).round(3).tolist(), strict=True)
        return {name: count for name, count in found if name is not None}
