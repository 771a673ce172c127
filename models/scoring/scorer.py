"""Scores, exact top-k and ranks of targets over the whole catalogue: used alike by the stream, by serving and
by the offline evaluation. `eddy.models.network.mixture` has the formula of the score.

The dense part d is one product of the queries with the item matrix; the sparse parts are then mixed in at a
few hundred items per user. The work is done in tiles of users and items whose scores stay in the cache. After
a first pass in reduced precision the best candidates (`short_list`) are scored again in float32.
`eddy.models.scoring.backend` tells of the two ways in which this is computed.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eddy.models.kernels.score_rows import MixtureTables
from eddy.models.network.recommender import Recommender
from eddy.models.scoring.approximate_products import Precision
from eddy.models.scoring.backend import (
    Adjust,
    Exclude,
    ScoreParts,
    ScoringBackend,
    TopK,
    TransitionWeights,
    last_items,
)
from eddy.models.scoring.cpu_backend import CpuBackend, mixture_tables
from eddy.models.scoring.item_matrix import ItemMatrix
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.scoring.popularity import PopularityUpdate, floored, popularity_update
from eddy.models.scoring.torch_backend import TorchBackend
from eddy.models.tensors import Query, Window, all_finite, roomy, to_device
from eddy.models.vocabulary import Catalogue, Vocabulary

TILE_FLOATS = 1 << 20
"""Scores computed at a time on a CPU, 4 MB: with smaller tiles the product is less efficient, larger ones
leave the cache.
"""

BUFFER_FLOATS, DEVICE_BUFFER_FLOATS = 1 << 25, 1 << 27
"""The most scores that a tile of users may have over all items: 128 MB, on a GPU 512 MB. They bound memory
where the catalogue is large.
"""

WORTH_A_THREAD = 64
"""Users per thread from which on tiles are scored side by side: with fewer, the threads wait longer for the
interpreter than they save. (When it was brought in, together with decoding small chunks at once, freshness at
2,000 events/s went from 60 to 39 ms.)
"""

RANKS_REMEMBERED = 1024
"""Whenever so many ranks are in the mean of their cost, all of them count half from then on: fewer would make
the mean jump, more would make it slow to follow a catalogue that grows.
"""


class RankingCost:
    """The cost of ranks of targets, which any thread may add to or ask for: processor time of the threads
    that made them, or, on another device, where that says nothing, the time until they were there.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._undrained_s = self._seconds = self._ranks = 0.0

    def add_cost(self, seconds: float, ranks: int = 0) -> None:
        """Add the cost of so many more ranks; `ranks` = 0 for a further cost of ranks that are counted
        apart.
        """
        with self._lock:
            self._undrained_s += seconds
            self._seconds += seconds
            self._ranks += ranks
            if self._ranks > RANKS_REMEMBERED:
                self._seconds, self._ranks = self._seconds / 2, self._ranks / 2

    def seconds_per_rank(self) -> float | None:
        """The mean cost of the last ranks, in s; None before the first."""
        with self._lock:
            return self._seconds / self._ranks if self._ranks else None

    def drain_seconds(self) -> float:
        """The cost in s that was added since the last call."""
        with self._lock:
            seconds, self._undrained_s = self._undrained_s, 0.0
            return seconds


class Scorer:
    """Scores by one model version: holds its item vectors, and popularities as of `now`.
    `update_statistics` must be called before scoring. The statistics may be for other versions too: this one
    picks its half-lives and as many successors as it asks for.
    """

    def __init__(
        self, recommender: Recommender, vocabulary: Vocabulary, catalogue: Catalogue, statistics: Statistics,
        precision: Precision = "float32",
        threads: int = 1,
    ) -> None:  # fmt: skip
        self.recommender = recommender
        self.vocabulary = vocabulary
        self.catalogue = catalogue
        self.statistics = statistics
        self._matrix = ItemMatrix(recommender, vocabulary, catalogue, precision)
        self._thread_buffers = threading.local()
        self._on_cpu = recommender.item_bias.device.type == "cpu"
        self.compiled = self._on_cpu
        """whether `CpuBackend` is used where everything is finite: compiled loops do not expect NaN"""
        self._tables: MixtureTables | None = None
        self._transition_weights: TransitionWeights | None = None
        self._counted = torch.zeros(0)
        """[F,1] sums over all items of the decayed counts, floors included, as of `now`"""
        self._threads = threads
        self._pool = None
        if threads > 1 and self._on_cpu:  # a GPU works beside the caller anyway
            # One torch thread in each: otherwise each thread of the pool would start torch threads itself.
            self._pool = ThreadPoolExecutor(threads, "eddy-scoring", torch.set_num_threads, (1,))
        self._under_way: list[Future[None]] = []
        self.ranking_cost = RankingCost()
        self.now = -math.inf
        """ms of the stream clock that popularity, and counts of transitions, are as of"""

    @property
    def items(self) -> int:
        """N: how many items of the catalogue are ranked."""
        return self._matrix.items

    @property
    def precision(self) -> Precision:
        """Precision of the first pass: "auto" until there are AUTO_ITEMS items, then what that chose."""
        return self._matrix.precision

    @property
    def matrix(self) -> Tensor:
        """The item matrix float32[N, D + 1 + F + TREND], a copy."""
        return self._matrix.rows

    @torch.inference_mode()
    def update_statistics(self, now: float) -> None:
        """Add the catalogue's new items, and bring popularities up to `now` (ms of the stream clock). Scoring
        that is still under way is not affected.
        """
        self.put_update(self.begin_update(now)())

    def begin_update(self, now: float) -> Callable[[], PopularityUpdate]:
        """Add the catalogue's new items, and begin to bring popularities up to `now`: what is returned does
        the work, on any thread, while this scorer goes on and the statistics go on counting. Give its result
        to `put_update`, unless items have got other numbers meanwhile.
        """
        self._grow_matrix()
        return popularity_update(self.recommender, self.statistics, self.items, now)

    @torch.inference_mode()
    def put_update(self, update: PopularityUpdate) -> None:
        """Score by these popularities, and as of their time, from now on."""
        mixture, older = self.recommender.mixture, self.recommender.config.older
        usable = self.compiled and all_finite(*mixture.parameters())
        self._tables = mixture_tables(mixture, older) if usable else None
        self.now = update.now
        if update.columns is not None:
            self._counted = update.counted
            self._transition_weights = self._weights_of(update.common)
            self._matrix.set_popularity(update.columns, update.finite)
            self._add_popularity_from(update.items)

    @torch.inference_mode()
    def add_new_items(self) -> None:
        """Add the catalogue's new items with their popularity as of the last `update_statistics`, which must
        have been called before. The cost is that of these items alone.
        """
        start = self.items
        self._grow_matrix()
        if self.recommender.config.half_lives_ms:
            self._add_popularity_from(start)

    def _add_popularity_from(self, start: int) -> None:
        """Add the popularity of the items from `start` on, as of the last update."""
        if self.items == start:
            return
        lives = self.recommender.config.half_lives_ms
        counted = self.statistics.popularity_of(np.arange(start, self.items), self.now, lives)
        popularity = self._log_shares(floored(counted))
        self._matrix.add_popularity(self.recommender.popularity_columns(popularity).T)
        damping = self.recommender.config.damping
        new = None if damping is None else self._weights_of(popularity[:, damping])
        if self._transition_weights is not None and new is not None:
            if self.items > len(self._transition_weights.to):
                room = self.items * 5 // 4
                self._transition_weights = TransitionWeights(
                    *(roomy(part[:start], room) for part in self._transition_weights)
                )
            for part, added in zip(self._transition_weights, new, strict=True):
                part[start : self.items] = added

    def go_on_with(self, catalogue: Catalogue, statistics: Statistics) -> None:
        """Score by these from now on. The catalogue before must have been a copy of this one
        (`Catalogue.copier`), which may have grown since, but not have been renumbered.
        """
        self.catalogue, self.statistics = catalogue, statistics
        self._matrix.go_on_with(catalogue)

    def _grow_matrix(self) -> None:
        """Add new items to the matrix; where rows change in place, wait for the scoring that reads them."""
        if self._matrix.features_changed:
            wait_for(self._under_way)
        self._matrix.add_new_items()

    def _log_shares(self, counts: Tensor) -> Tensor:
        """counts[F,n] -> logarithms of their shares of all counts, float32[n,F]"""
        return torch.log(counts / self._counted).T.to(self.recommender.item_bias.device)

    def _weights_of(self, common: Tensor | None) -> TransitionWeights | None:
        """The weights [n] of items with the log shares common[n]; None where the version has none."""
        if common is None:
            return None
        mixture = self.recommender.mixture
        return TransitionWeights(mixture.damped(torch.ones_like(common), common), mixture.boost_of(common))

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Compile what scoring needs, so that the first question does not wait for it: ten seconds on a new
        machine. `update_statistics` must have been called before.
        """
        counted = Statistics(self.statistics.half_lives_ms, self.statistics.successors)
        one = np.ones(1, np.int64)
        for partition in range(2):
            counted.count_events(partition, one, one, one[:, None] * 2)
        counted.successors_of(one, 1.0)
        if not self.items:
            return
        config, device = self.recommender.config, self.recommender.item_bias.device
        nobody = self.recommender.initial(2)
        query = self.recommender.query(nobody, torch.full((2,), -1.0, device=device))
        none = torch.zeros(2, config.recent_window, dtype=torch.int64, device=device)
        window = Window(none - 1, none, none, none > 0, none[:, 0], none[:, :0].int())
        self.start_topk(query, window, 1, torch.zeros(1, dtype=torch.int64, device=device))()
        self.ranking_cost = RankingCost()  # the time that compiling took says nothing of ranks

    def successors(self, query: Query, window: Window) -> tuple[Tensor, Tensor]:
        """Transitions from each user's last L items, latest first: index int32[B,L,M] (-1 = none),
        share[B,L,M].
        """
        last = self.last_items(query, window)
        index, share = self.statistics.transitions(
            last.cpu().numpy(), self.now, self.recommender.config.successors
        )
        return to_device(index, last.device), to_device(share, last.device)

    def last_items(self, query: Query, window: Window) -> Tensor:
        """Each user's last L items, latest first: int64[B,L] catalogue index, -1 = none."""
        return last_items(query, window, self.recommender.mixture.lags)

    @torch.inference_mode()
    def scores(
        self, query: Query, window: Window, exclude: Exclude | None = None, adjust: Adjust | None = None
    ) -> Tensor:
        """Exact scores of all catalogue items: float32[B,N], -inf for items that are negative in the window
        and for those that `exclude` names. The tensor is the scorer's own: the next call overwrites it.
        """
        return self._backend(query, window, exclude, adjust).scores(slice(0, len(query.vector)))

    @torch.inference_mode()
    def parts(self, query: Query, window: Window, index: Tensor) -> ScoreParts:
        """What the scores of the items index[S] consist of, for the one user of query and window."""
        return TorchBackend(
            query, window, None, None, self.recommender, self._matrix.view(), self.statistics, self.now,
            self._transition_weights, threading.local(),
        ).parts(index)  # fmt: skip

    def dense_scores(self, query: Query, index: NDArray[np.int64]) -> Tensor:
        """Dense scores float32[B,S] of the items index[S], which are ranked, for B queries."""
        matrix = self._matrix.view()
        chosen = torch.from_numpy(index)
        return query.vector @ torch.cat([matrix.vectors[chosen], matrix.popularity[chosen]], dim=1).T

    def item_vectors(self, index: NDArray[np.int64] | slice) -> Tensor:
        """Vectors float32[n,D] of items that are ranked."""
        return self._matrix.view().vectors[: self.items][index, :-1]

    def _backend(
        self, query: Query, window: Window, exclude: Exclude | None, adjust: Adjust | None
    ) -> ScoringBackend:
        """The backend for these users: the compiled one if it may be used and everything is finite."""
        matrix = self._matrix.view()
        if adjust is not None and adjust.added.shape[1] != matrix.items:
            raise ValueError(f"columns of {adjust.added.shape[1]} items for {matrix.items}")
        inputs = (
            query, window, exclude, adjust, self.recommender, matrix, self.statistics, self.now,
            self._transition_weights, self._thread_buffers,
        )  # fmt: skip
        if self._tables is None or not (matrix.finite and all_finite(query.vector, query.gates)):
            return TorchBackend(*inputs)
        return CpuBackend(*inputs, self._tables)

    def _by_tiles(self, work: Callable[[slice], None], rows: int) -> Callable[[], None]:
        """Do `work` on consecutive tiles of `rows` users, on the pool's threads where that is worth it, else
        before returning. Call the result to wait for the end.
        """
        # 1. As many users a tile as keep its scores in the cache (or the device busy), and in bounds.
        items = max(self.items, 1)
        step = DEVICE_BUFFER_FLOATS // items
        if self._on_cpu:
            step = min(TILE_FLOATS // min(items, self._matrix.tile), BUFFER_FLOATS // items)
        step = max(step, 1)
        # 2. With threads, tiles of equal size, as many for each thread.
        pool = self._pool if rows >= WORTH_A_THREAD * self._threads else None
        if pool is not None:
            tiles_each = -(-rows // (step * self._threads))
            step = -(-rows // (tiles_each * self._threads))
        tiles = [slice(start, min(start + step, rows)) for start in range(0, rows, step)]

        # 3. Work on them.
        @torch.inference_mode()  # every thread has to be told
        def work_on(tiles: Sequence[slice]) -> None:
            for tile in tiles:
                work(tile)

        if pool is None:
            work_on(tiles)
            return lambda: None
        futures = [pool.submit(work_on, [tile]) for tile in tiles]
        self._under_way = [future for future in self._under_way if not future.done()] + futures

        def wait() -> None:
            for future in futures:
                future.result()

        return wait

    def topk(
        self, query: Query, window: Window, k: int, exclude: Exclude | None = None,
        adjust: Adjust | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """The k best items of B users: `item` and `score` of `TopK`."""
        no_target = torch.zeros(0, dtype=torch.int64, device=query.vector.device)
        return self.start_topk(query, window, k, no_target, exclude, adjust)()[:2]

    def ranks(self, query: Query, window: Window, target: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and ranks of target[B], a catalogue index for each of B users: `own` and `above` of
        `TopK`.
        """
        return self.start_topk(query, window, 0, target)()[2:]

    @torch.inference_mode()
    def start_topk(
        self, query: Query, window: Window, k: int, target: Tensor, exclude: Exclude | None = None,
        adjust: Adjust | None = None,
    ) -> Callable[[], TopK]:  # fmt: skip
        """Start to make lists of the k best items for the first B - R of B users, and exact ranks of
        target[R] for the last R. Call the result to wait for the end, which threads or a device may reach
        later. Updates of statistics and items after this returns do not change it.
        """
        # 1. Room for what will be found.
        device, users = query.vector.device, len(query.vector)
        reduced = self.precision in ("bfloat16", "int8")
        listed = users - len(target)
        topk = TopK(
            torch.full((listed, k), -1, dtype=torch.int64, device=device),
            torch.full((listed, k), -torch.inf, device=device),
            torch.empty(len(target), device=device),
            torch.empty(len(target), dtype=torch.int64, device=device),
        )
        # 2. What all tiles have in common; the ranks bear their share of its cost.
        began, began_thread = time.monotonic(), time.thread_time()
        backend = self._backend(query, window, exclude, adjust)
        if self._on_cpu and len(target):
            self.ranking_cost.add_cost((time.thread_time() - began_thread) * len(target) / users)

        # 3. Tile by tile: lists of its users up to `listed`, ranks of those beyond.
        def fill(rows: slice) -> None:
            lists = slice(min(rows.start, listed), min(rows.stop, listed))
            ranks = slice(max(rows.start, listed) - listed, max(rows.stop, listed) - listed)
            began = time.thread_time()
            part = backend.topk(rows, k, target[ranks])
            width = part.item.shape[1]  # the catalogue may have fewer than k items
            topk.item[lists, :width], topk.score[lists, :width] = part.item, part.score
            topk.own[ranks], topk.above[ranks] = part.own, part.above
            n_ranks = ranks.stop - ranks.start
            if self._on_cpu and n_ranks:
                seconds = time.thread_time() - began
                self.ranking_cost.add_cost(seconds * n_ranks / (rows.stop - rows.start), n_ranks)

        def fill_tile(rows: slice) -> None:
            if reduced and rows.start < listed < rows.stop:  # their passes differ, and so do their costs
                fill(slice(rows.start, listed))
                fill(slice(listed, rows.stop))
            else:
                fill(rows)

        wait = self._by_tiles(fill_tile, users)

        # 4. On another device a thread's time says nothing: take the time until everything is there.
        def result() -> TopK:
            wait()
            if not self._on_cpu and len(target):
                seconds = time.monotonic() - began
                self.ranking_cost.add_cost(seconds * len(target) / users, len(target))
            return topk

        return result
