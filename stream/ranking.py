"""From rows to lists: what a model version makes of rows, alike for the engine and for serving."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from models.item_matrix import Precision
from models.scoring import Exclude, Scorer
from models.statistics import Statistics
from models.tensors import Query, Window
from stream.advance import View, view_rows
from stream.clock import DAY_MS
from stream.encoder import Encoder
from stream.items import ItemNames
from stream.prequential import Ranks
from stream.rows import NO_TIME
from stream.slab import Slab, Slots

REFRESH_MS = 100
"""How old the item statistics in live scores may be; workers hear of each other's no sooner either."""


Top = Callable[[], tuple[NDArray[np.int64], NDArray[np.float32]]]
"""Waits for lists that are being made: catalogue index int64[m, k] and score float32[m, k], best first, -1
where nothing may be recommended.
"""


class Ranker:
    """A version's encoder and scorer on the catalogue and statistics of this process."""

    def __init__(
        self, encoder: Encoder, names: ItemNames, statistics: Statistics,
        precision: Precision = "float32", threads: int = 1,
    ) -> None:  # fmt: skip
        self.encoder, self.names = encoder, names
        vocabulary = encoder.version.vocabulary
        self.scorer = Scorer(encoder.recommender, vocabulary, names.catalogue, statistics, precision, threads)
        self._refreshed = -REFRESH_MS
        self._popularity = np.zeros(0)  # of all items, and the same in order
        self._popularity_in_order = np.zeros(0)

    def refresh(self, now: int, wall: int) -> None:
        """Bring the scorer to the stream's `now` (ms), as of new items and of item statistics.

        Live, that is while `now` is about the time on the wall, statistics may be REFRESH_MS old.
        """
        live = abs(wall - now) < DAY_MS and 0 <= wall - self._refreshed < REFRESH_MS
        if live and self.scorer.items == len(self.names.catalogue):
            return
        self.scorer.refresh(float(now))
        self._popularity = decayed_popularity(self.scorer.statistics, self.scorer.items, float(now))
        self._popularity_in_order = np.sort(self._popularity)
        self._refreshed = wall

    def window(self, view: View) -> Window:
        """The recent windows in the version's terms."""
        device = self.encoder.device
        types = self.encoder.version.vocabulary.type_index(view.type.ravel()).reshape(view.type.shape)
        negative = self.encoder.negative(view.type, view.value) & (view.item >= 0)
        columns = (view.item.astype(np.int64), view.time, types, negative, view.length)
        return Window(*(torch.from_numpy(np.ascontiguousarray(column)).to(device) for column in columns))

    def query(self, view: View, now: NDArray[np.int64] | int) -> Query:
        """What the rows ask for at `now` (ms, one for all or [m]), idle since their last event."""
        idle = np.where(view.last_time == NO_TIME, -1, np.maximum(now - view.last_time, 0))
        idle_ms = torch.from_numpy(idle.astype(np.float32)).to(self.encoder.device)
        return self.encoder.recommender.query_of_output(view.output, idle_ms)

    @torch.inference_mode()
    def latest(self, slab: Slab, slots: Slots, state: torch.Tensor | None = None) -> View:
        """Rows as they are now; `state` [m, S] stands in for hidden states that are of another version."""
        if state is None:
            state = slab.hidden[torch.from_numpy(slots).to(slab.device)]
        output = self.encoder.recommender.cell.output(state)
        return view_rows(slab, slots, slab.length[slots].astype(np.int64), output, slots)

    @torch.inference_mode()
    def start_top(
        self,
        view: View,
        now: int,
        k: int,
        exclude_seen: NDArray[np.bool_],
        also: Exclude | None = None,
    ) -> Top:
        """The k best items for each row at `now` (ms), made beside the caller. `refresh` first.

        Left out: items whose id is not known yet, those in the recent window where `exclude_seen` [m] says
        so, and the pairs of `also`.
        """
        window = self.window(view)
        left_out = self._left_out(window, exclude_seen, also)
        wait = self.scorer.start_topk(self.query(view, now), window, k, left_out)

        def top() -> tuple[NDArray[np.int64], NDArray[np.float32]]:
            index, score = wait()
            return index.cpu().numpy(), score.cpu().numpy()

        return top

    @torch.inference_mode()
    def start_ranks(self, view: View, now: NDArray[np.int64], target: NDArray[np.int64]) -> Ranks:
        """Ranks of targets [m] among all items for rows at `now` [m] (ms), made beside the caller, and their
        ranks by `decayed_popularity`; ties count against the target. `refresh` first.
        """
        wait = self.scorer.start_ranks(self.query(view, now), self.window(view), torch.from_numpy(target))
        below = np.searchsorted(self._popularity_in_order, self._popularity[target])
        by_popularity = len(self._popularity) - below

        def ranks() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
            _, above = wait()
            return 1 + above.cpu().numpy(), by_popularity

        return ranks

    def _left_out(
        self, window: Window, exclude_seen: NDArray[np.bool_], also: Exclude | None
    ) -> Exclude | None:
        rows, items = [], []
        if also is not None:
            rows.append(also.row)
            items.append(also.item)
        if exclude_seen.any():
            seen = (window.item >= 0) & torch.from_numpy(exclude_seen).to(window.item.device)[:, None]
            row, place = seen.nonzero(as_tuple=True)
            rows.append(row)
            items.append(window.item[row, place])
        unnamed = torch.from_numpy(self.names.unnamed()).to(window.item.device)
        if not rows and not len(unnamed):
            return None
        none = torch.zeros(0, dtype=torch.int64, device=window.item.device)
        return Exclude(torch.cat([none, *rows]), torch.cat([none, *items]), unnamed)


def decayed_popularity(statistics: Statistics, items: int, now: float) -> NDArray[np.float64]:
    """What is recommended when nothing is known of a user: decayed counts of the catalogue's first `items`
    items at `now` (ms), float64[items]; half-life one day where that is among those counted.
    """
    lives = statistics.half_lives_ms
    if not lives:
        return np.zeros(items)
    counts = statistics.popularity(items, now)
    return np.asarray(counts[lives.index(DAY_MS) if DAY_MS in lives else 0], np.float64)
