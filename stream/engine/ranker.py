"""From rows to lists: what a model version makes of rows, the same for the engine and for serving."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from eddy.models.scoring.approximate_products import Precision
from eddy.models.scoring.backend import Adjust, Exclude, ScoreParts, TopK
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.scoring.popularity import PopularityUpdate
from eddy.models.scoring.scorer import Scorer
from eddy.models.tensors import Query, Window, to_device
from eddy.models.vocabulary import Catalogue
from eddy.stream.engine.live_version import LiveVersion
from eddy.stream.engine.row_views import RowViews, views_now
from eddy.stream.records.clock import DAY_MS
from eddy.stream.state.item_names import ItemNames
from eddy.stream.state.rows import NO_TIME
from eddy.stream.state.slab import Slab, Slots

UPDATE_MS = 100
"""How old the item statistics in live scores may be; workers hear of each other's no sooner either."""

UPDATE_SHARE = 0.1
"""At most this share of the time goes into bringing live scores up to date: with a million items an update
takes 70 ms, so the scores may then be older than UPDATE_MS.
"""

SOON, BESIDE_ITEMS = 0.8, 100_000
"""A server with so many items or more brings its scores up to date beside the thread that answers
(`Ranker.begin_update`), when this share of the time has passed after which an answer would do so itself.
"""


_NO_TARGETS = np.zeros(0, np.int64)


def new_scorer(
    live: LiveVersion, catalogue: Catalogue, statistics: Statistics, precision: Precision = "float32",
    threads: int = 1,
) -> Scorer:  # fmt: skip
    """A version's scorer on this catalogue and these statistics."""
    return Scorer(live.recommender, live.version.vocabulary, catalogue, statistics, precision, threads)


class Ranker:
    """A live version and its scorer, on the catalogue and the statistics of this process."""

    def __init__(self, live: LiveVersion, names: ItemNames, scorer: Scorer) -> None:
        self.live, self.names, self.scorer = live, names, scorer
        self.half_lives_ms = live.recommender.config.half_lives_ms
        self._updated_at = -UPDATE_MS
        self._scored_as_of: tuple[int, int, int] | None = None
        """the stream's now, `Statistics.changes` and `ItemFeatures.revision` as of the last update of the
        scores
        """
        self._period_ms = float(UPDATE_MS)
        self._popularity: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None

    def statistics_are_due(self, now: int, wall: int) -> bool:
        """Whether it is time to bring the scores up to date. While the stream is live, that is while its
        `now` (ms) is within a day of the wall clock (ms), item statistics may be UPDATE_MS old, or older
        where an update takes long. In a replay a moment on the wall can be days of the log, so it is always
        time.
        """
        live = abs(wall - now) < DAY_MS
        return not live or not 0 <= wall - self._updated_at < self._period_ms

    def update_statistics(self, now: int, wall: int) -> None:
        """Bring the scorer to the stream's `now` (ms) and to the item statistics and metadata as they are, if
        an update is due and something changed: while the stream stands still, so do its scores. New items are
        taken in at once.
        """
        catalogue, statistics = self.names.catalogue, self.scorer.statistics
        as_of = now, statistics.changes, catalogue.features.revision
        new_items = self.scorer.items < len(catalogue)
        if (new_items or as_of != self._scored_as_of) and self.statistics_are_due(now, wall):
            began = time.thread_time()
            self.scorer.update_statistics(float(now))
            self._note_update(time.thread_time() - began)
            self._updated_at, self._scored_as_of = wall, as_of
        elif new_items:
            self.scorer.add_new_items()

    def begin_update(self, now: int, wall: int) -> Callable[[], tuple[PopularityUpdate, float]] | None:
        """If the scores of a live stream are soon due to be brought up to date, and there are so many items
        that it takes its time, begin that: what is returned does the work, on any thread, while this ranker
        goes on, and says how much processor time it took, in s. Give its result to `put_update`. None where
        there is nothing to do.
        """
        live, age_ms = abs(wall - now) < DAY_MS, wall - self._updated_at
        as_of = now, self.scorer.statistics.changes, self.names.catalogue.features.revision
        soon = live and age_ms >= SOON * self._period_ms and as_of != self._scored_as_of
        if not soon or self.scorer.items < BESIDE_ITEMS:
            return None
        self._updated_at, self._scored_as_of = wall, as_of
        update = self.scorer.begin_update(float(now))

        def timed() -> tuple[PopularityUpdate, float]:
            began = time.thread_time()
            return update(), time.thread_time() - began

        return timed

    def put_update(self, update: PopularityUpdate, took_s: float) -> None:
        """Score as the update says, which took so much processor time."""
        self.scorer.put_update(update)
        self._note_update(took_s)

    def _note_update(self, took_s: float) -> None:
        self._period_ms = max(UPDATE_MS, 1000 * took_s / UPDATE_SHARE)
        self._popularity = None

    def window(self, view: RowViews) -> Window:
        """The recent windows on the version's device."""
        return Window(*(to_device(column, self.live.device) for column in view.window))

    def query(self, view: RowViews, now: NDArray[np.int64] | int) -> Query:
        """What the rows ask for at `now` (ms, one for all or [m]): users are idle since their last event."""
        last = view.last_time
        idle = np.where(last == NO_TIME, -1, np.maximum(now - last, 0))
        idle_ms = to_device(idle.astype(np.float32), self.live.device)
        return self.live.recommender.query_of_output(view.output, idle_ms)

    def popularity_of(self, index: NDArray[np.int64], now: int) -> NDArray[np.float64]:
        """Decayed counts of some items at `now` (ms), as `decayed_popularity` counts: float64[n]. The version
        must count with a half-life.
        """
        statistics = self.scorer.statistics
        life = _counted_life(statistics, self.half_lives_ms)
        return np.asarray(statistics.popularity_of(index, float(now), [life])[0], np.float64)

    @torch.inference_mode()
    def latest(self, slab: Slab, slots: Slots, state: torch.Tensor | None = None) -> RowViews:
        """Rows as they are now; `state` [m, S] replaces hidden states that are of another version."""
        if state is None:
            state = slab.hidden[to_device(slots, slab.device)]
        output = self.live.recommender.cell.output(state)
        return views_now(slab, self.live, slots, output)

    # Station 6: from rows to a top-k, on the threads that score.
    @torch.inference_mode()
    def start_topk(
        self,
        view: RowViews,
        now: NDArray[np.int64] | int,
        k: int,
        exclude_seen: NDArray[np.bool_],
        also: Exclude | None = None,
        target: NDArray[np.int64] = _NO_TARGETS,
        adjust: Adjust | None = None,
    ) -> Callable[[], TopK]:
        """Begin the lists of the k best items for the first rows at `now` (ms, one for all or [m]), and the
        ranks of `target` [r] for the last r rows. What is returned waits for them and gives them on the CPU.
        Call `update_statistics` before.

        Left out are items whose id is not known yet or that are withdrawn, the items that the row names where
        `exclude_seen` [m] says so, and the pairs of `also`. `adjust` is added to the scores.
        """
        window = self.window(view)
        left_out = self._left_out(window, exclude_seen, also)
        targets = to_device(target, self.live.device)
        wait = self.scorer.start_topk(self.query(view, now), window, k, targets, left_out, adjust)

        return lambda: TopK(*(column.cpu() for column in wait()))

    @torch.inference_mode()
    def scores(
        self, view: RowViews, now: int, exclude_seen: NDArray[np.bool_], also: Exclude | None = None,
        adjust: Adjust | None = None,
    ) -> NDArray[np.float32]:  # fmt: skip
        """The scores of all N items for m rows at `now` (ms), -inf for what is left out: float32[m,N]. The
        rest is as in `start_topk`; the next call overwrites the array.
        """
        window = self.window(view)
        left_out = self._left_out(window, exclude_seen, also)
        return self.scorer.scores(self.query(view, now), window, left_out, adjust).cpu().numpy()

    @torch.inference_mode()
    def parts(self, view: RowViews, now: int, index: NDArray[np.int64]) -> ScoreParts:
        """What the scores of the items index[S] consist of at `now` (ms), for the one row of `view`."""
        items = to_device(index, self.live.device)
        parts = self.scorer.parts(self.query(view, now), self.window(view), items)
        return ScoreParts(*(part.cpu() for part in parts))

    def popularity_ranks(self, target: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ranks of targets [r] among all that may be listed by `decayed_popularity`; ties count against
        them.
        """
        if self._popularity is None:
            counts = decayed_popularity(
                self.scorer.statistics, self.scorer.items, self.scorer.now, self.half_lives_ms
            )
            counts[self.names.unlisted()] = -1.0
            self._popularity = counts, np.sort(counts)
        popularity, in_order = self._popularity
        scored = np.minimum(target, len(popularity) - 1)
        of_target = np.where(target < len(popularity), popularity[scored], -1.0)  # newer items come last
        return np.asarray(len(in_order) - np.searchsorted(in_order, of_target), np.int64)

    def _left_out(
        self, window: Window, exclude_seen: NDArray[np.bool_], also: Exclude | None
    ) -> Exclude | None:
        """The items of `start_topk` that are not to be ranked."""
        rows, items = [], []
        if also is not None:
            rows.append(also.row)
            items.append(also.item)
        if exclude_seen.any():
            chosen = to_device(exclude_seen, window.item.device)[:, None]
            for item in (window.item, window.older):
                row, place = ((item >= 0) & chosen).nonzero(as_tuple=True)
                rows.append(row)
                items.append(item[row, place].long())
        unlisted = to_device(self.names.unlisted(), window.item.device)
        if not rows and not len(unlisted):
            return None
        none = torch.zeros(0, dtype=torch.int64, device=window.item.device)
        return Exclude(torch.cat([none, *rows]), torch.cat([none, *items]), unlisted)


def decayed_popularity(
    statistics: Statistics, items: int, now: float, half_lives_ms: Sequence[int]
) -> NDArray[np.float64]:
    """What is recommended when nothing is known of a user: decayed counts of the catalogue's first `items`
    items at `now` (ms), float64[items]. The half-life is the version's `default_half_life`; zeros if it has
    none. While a partition lacks it, that of another version stands in.
    """
    if not half_lives_ms:
        return np.zeros(items)
    life = _counted_life(statistics, half_lives_ms)
    return np.asarray(statistics.popularity(items, now, [life])[0], np.float64)


def _counted_life(statistics: Statistics, half_lives_ms: Sequence[int]) -> int:
    """The half-life by which decayed popularity counts. While a partition lacks it, another one stands in."""
    life = default_half_life(half_lives_ms)
    complete = (each for each in (life, *statistics.half_lives_ms) if statistics.is_complete(each))
    return next(complete, life)


def default_half_life(half_lives_ms: Sequence[int]) -> int:
    """The half-life (ms) by which an item is popular where nobody says which: one day if a version counts
    with it, else its first.
    """
    return DAY_MS if DAY_MS in half_lives_ms else half_lives_ms[0]
