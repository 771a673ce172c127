"""Scores, exact top-k and ranks of targets over the whole catalogue: used alike by the stream, by serving and
by the offline evaluation.

The dense part of the score is one product of the queries with the item matrix; the sparse parts are then
mixed in at a few hundred candidates per user. Work goes by tiles of users and items whose scores stay in the
cache. With a first pass in reduced precision the best SHORT_LIST candidates are scored again in float32. On
the CPU what follows the product is compiled (`eddy.models.scoring.cpu_backend`); elsewhere it is torch's.
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
from eddy.models.scoring.backend import Exclude, ScoringBackend, TopK, Weights, last_items
from eddy.models.scoring.cpu_backend import CpuBackend, tables_of
from eddy.models.scoring.item_matrix import ItemMatrix
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.scoring.torch_backend import TorchBackend
from eddy.models.tensors import Query, Window, all_finite, roomy, to_device
from eddy.models.vocabulary import Catalogue, Vocabulary

TILE_FLOATS = 1 << 20
"""Scores computed at a time on a CPU, 4 MB: smaller tiles waste the product, larger ones leave the cache."""

BUFFER_FLOATS, DEVICE_BUFFER_FLOATS = 1 << 25, 1 << 27
"""Scores of a tile of users over all items at most: 128 MB, on a GPU 512 MB."""

WORTH_A_THREAD = 64
"""Users per thread from which on tiles are scored side by side; with fewer, threads wait for the
interpreter.
"""


RANKS_REMEMBERED = 1024

POPULARITY_FLOOR = 0.01
"""Added to decayed counts before the logarithm: what an item counts that nobody touched lately."""


class RankingCost:
    """What ranks of targets have cost; told and asked by any thread. Processor time of the threads that made
    them; on another device, where that says nothing, the time until they were there.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._untold_s = self._seconds = self._ranks = 0.0

    def add(self, seconds: float, ranks: int = 0) -> None:
        """So many more ranks took so long."""
        with self._lock:
            self._untold_s += seconds
            self._seconds += seconds
            self._ranks += ranks
            if self._ranks > RANKS_REMEMBERED:  # a catalogue grows: what was long ago says little
                self._seconds, self._ranks = self._seconds / 2, self._ranks / 2

    def per_rank(self) -> float | None:
        """Seconds, in the mean of the last ones; None before the first."""
        with self._lock:
            return self._seconds / self._ranks if self._ranks else None

    def take(self) -> float:
        """Seconds since the last call."""
        with self._lock:
            seconds, self._untold_s = self._untold_s, 0.0
            return seconds


class Scorer:
    """Holds item vectors and popularities for one model version; call `update_statistics` before scoring."""

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
        self._spaces = threading.local()
        self._on_cpu = recommender.item_bias.device.type == "cpu"
        self.compiled = self._on_cpu
        """whether the compiled loops are used where all is finite: they do not expect NaN"""
        self._tables: MixtureTables | None = None
        self._weights: Weights | None = None
        self._counted = torch.zeros(0)
        """[F] sums over the items of the decayed counts that popularity is taken from"""
        self._threads = threads
        self._pool = None
        if threads > 1 and self._on_cpu:  # a GPU works beside the caller anyway
            # A thread that begins with a product would share it with one of its own.
            self._pool = ThreadPoolExecutor(threads, "eddy-scoring", torch.set_num_threads, (1,))
        self._under_way: list[Future[None]] = []
        self.ranking_cost = RankingCost()
        self.now = -math.inf

    @property
    def items(self) -> int:
        """N, catalogue items that are ranked."""
        return self._matrix.items

    @property
    def precision(self) -> Precision:
        """Of the first pass: what "auto" found, once there are items enough."""
        return self._matrix.precision

    @property
    def matrix(self) -> Tensor:
        """[N, D + 1 + F + TREND]"""
        return self._matrix.rows

    @torch.inference_mode()
    def update_statistics(self, now: float) -> None:
        """Take in the catalogue's new items and the popularities at `now` (ms of the stream clock). What is
        still being scored stays as it was asked.
        """
        self._grow()
        self.now = now
        mixture, known = self.recommender.mixture, self.recommender.config.older
        usable = self.compiled and all_finite(*mixture.parameters())
        self._tables = tables_of(mixture, known) if usable else None
        if self.recommender.config.half_lives_ms:
            counts = _floored(self.statistics.popularity(self.items, now))
            self._counted = counts.sum(dim=1, keepdim=True)
            popularity = self._log_shares(counts)
            self._matrix.set_popularity(self.recommender.popularity_columns(popularity))
            self._weights = self._weights_of(popularity)

    @torch.inference_mode()
    def take_in_items(self) -> None:
        """After a `update_statistics`: take in the catalogue's new items, and their popularity as it was
        then, at the cost of these items alone.
        """
        start = self.items
        self._grow()
        if self.items == start or not self.recommender.config.half_lives_ms:
            return
        counted = self.statistics.popularity_of(np.arange(start, self.items), self.now)
        popularity = self._log_shares(_floored(counted))
        self._matrix.add_popularity(self.recommender.popularity_columns(popularity))
        new = self._weights_of(popularity)
        if self._weights is not None and new is not None:
            if self.items > len(self._weights.to):
                room = self.items * 5 // 4
                self._weights = Weights(*(roomy(part[:start], room) for part in self._weights))
            for part, added in zip(self._weights, new, strict=True):
                part[start : self.items] = added

    def _grow(self) -> None:
        if self._matrix.features_changed:
            wait_for(self._under_way)
        self._matrix.grow()

    def _log_shares(self, counts: Tensor) -> Tensor:
        """Logarithms of the shares that counts [F,n] are of all: [n,F]"""
        return torch.log(counts / self._counted).T.to(self.recommender.item_bias.device)

    def _weights_of(self, popularity: Tensor) -> Weights | None:
        """Of items with these logarithms of shares [n,F]."""
        damping = self.recommender.config.damping
        if damping is None:
            return None
        common, mixture = popularity[:, damping], self.recommender.mixture
        return Weights(mixture.damped(torch.ones_like(common), common), mixture.boost_of(common))

    @torch.inference_mode()
    def warm_up(self) -> None:
        """After a `update_statistics`: compile what scoring needs, so that the first question does not wait
        for it, ten seconds on a new machine.
        """
        counted = Statistics(self.statistics.half_lives_ms, self.statistics.successors)
        one = np.ones(1, np.int64)
        for partition in range(2):
            counted.update(partition, one, one, one[:, None] * 2)
        counted.successors_of(one, 1.0)
        if not self.items:
            return
        config, device = self.recommender.config, self.recommender.item_bias.device
        nobody = self.recommender.initial(2)
        query = self.recommender.query(nobody, torch.full((2,), -1.0, device=device))
        none = torch.zeros(2, config.recent_window, dtype=torch.int64, device=device)
        window = Window(none - 1, none, none, none > 0, none[:, 0], none[:, :0].int())
        self.start(query, window, 1, torch.zeros(1, dtype=torch.int64, device=device))()
        self.ranking_cost = RankingCost()  # what compiling took says nothing of ranks

    def successors(self, query: Query, window: Window) -> tuple[Tensor, Tensor]:
        """Transitions from each user's last L items, latest first: index int32[B,L,M] (-1 = none),
        share[B,L,M].
        """
        last = self.last_items(query, window)
        index, share = self.statistics.transitions(last.cpu().numpy(), self.now)
        return to_device(index, last.device), to_device(share, last.device)

    def last_items(self, query: Query, window: Window) -> Tensor:
        """Each user's last L items, latest first: int64[B,L] catalogue index, -1 = none."""
        return last_items(query, window, self.recommender.mixture.lags)

    @torch.inference_mode()
    def scores(self, query: Query, window: Window, exclude: Exclude | None = None) -> Tensor:
        """Exact scores of all catalogue items: float32[B,N]. Items that are negative in the window, and what
        `exclude` names, are -inf. The tensor is the scorer's own: valid until it is asked again.
        """
        return self._backend(query, window, exclude).scores(slice(0, len(query.vector)))

    def _backend(self, query: Query, window: Window, exclude: Exclude | None) -> ScoringBackend:
        items = self._matrix.now()
        given = (
            query, window, exclude, self.recommender, items, self.statistics, self.now, self._weights,
            self._spaces,
        )  # fmt: skip
        if self._tables is None or not (items.finite and all_finite(query.vector, query.gates)):
            return TorchBackend(*given)
        return CpuBackend(*given, self._tables)

    def _by_tiles(self, work: Callable[[slice], None], rows: int) -> Callable[[], None]:
        """Do `work` on tiles of users, if there are threads for it beside the caller and beside each other;
        what is returned waits for the end.
        """
        items = max(self.items, 1)
        step = DEVICE_BUFFER_FLOATS // items
        if self._on_cpu:
            step = min(TILE_FLOATS // min(items, self._matrix.tile), BUFFER_FLOATS // items)
        step = max(step, 1)
        pool = self._pool if rows >= WORTH_A_THREAD * self._threads else None
        if pool is not None:  # as much for every thread
            tiles_each = -(-rows // (step * self._threads))
            step = -(-rows // (tiles_each * self._threads))
        tiles = [slice(start, min(start + step, rows)) for start in range(0, rows, step)]

        @torch.inference_mode()  # a thread's own matter
        def some(tiles: Sequence[slice]) -> None:
            for tile in tiles:
                work(tile)

        if pool is None:
            some(tiles)
            return lambda: None
        futures = [pool.submit(some, [tile]) for tile in tiles]
        self._under_way = [each for each in self._under_way if not each.done()] + futures

        def wait() -> None:
            for future in futures:
                future.result()

        return wait

    def topk(
        self, query: Query, window: Window, k: int, exclude: Exclude | None = None
    ) -> tuple[Tensor, Tensor]:
        """Item and score of `TopK` for B users."""
        nothing = torch.zeros(0, dtype=torch.int64, device=query.vector.device)
        return self.start(query, window, k, nothing, exclude)()[:2]

    def ranks(self, query: Query, window: Window, target: Tensor) -> tuple[Tensor, Tensor]:
        """Own score and rank of `TopK` for targets int64[B] (catalogue indices)."""
        return self.start(query, window, 0, target)()[2:]

    @torch.inference_mode()
    def start(
        self, query: Query, window: Window, k: int, target: Tensor, exclude: Exclude | None = None
    ) -> Callable[[], TopK]:
        """Lists of the k best items for the first users, ranks of target[R] for the last R ones, which are
        always exact. The work may go on beside the caller; what is returned waits for it. Statistics are
        read before.
        """
        device, users = query.vector.device, len(query.vector)
        reduced = self.precision in ("bfloat16", "int8")
        listed = users - len(target)
        found = TopK(
            torch.full((listed, k), -1, dtype=torch.int64, device=device),
            torch.full((listed, k), -torch.inf, device=device),
            torch.empty(len(target), device=device),
            torch.empty(len(target), dtype=torch.int64, device=device),
        )
        began, began_thread = time.monotonic(), time.thread_time()
        asked = self._backend(query, window, exclude)
        if self._on_cpu and len(target):
            self.ranking_cost.add((time.thread_time() - began_thread) * len(target) / users)

        def work(rows: slice) -> None:
            lists = slice(min(rows.start, listed), min(rows.stop, listed))
            ranks = slice(max(rows.start, listed) - listed, max(rows.stop, listed) - listed)
            began = time.thread_time()
            part = asked.topk(rows, k, target[ranks])
            width = part.item.shape[1]
            found.item[lists, :width], found.score[lists, :width] = part.item, part.score
            found.own[ranks], found.above[ranks] = part.own, part.above
            made = ranks.stop - ranks.start
            if self._on_cpu and made:
                took = time.thread_time() - began
                self.ranking_cost.add(took * made / (rows.stop - rows.start), made)

        def in_parts(rows: slice) -> None:
            if reduced and rows.start < listed < rows.stop:  # lists and ranks are made apart anyway
                work(slice(rows.start, listed))
                work(slice(listed, rows.stop))
            else:
                work(rows)

        wait = self._by_tiles(in_parts, users)

        def result() -> TopK:
            wait()
            if not self._on_cpu and len(target):
                took = time.monotonic() - began
                self.ranking_cost.add(took * len(target) / users, len(target))
            return found

        return result


def _floored(counts: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(counts).float() + POPULARITY_FLOOR


def log_popularity(statistics: Statistics, items: int, now: float) -> Tensor:
    """log((decayed count + floor) / sum), float32[items, F] at `now`."""
    counts = _floored(statistics.popularity(items, now))
    return torch.log(counts / counts.sum(dim=1, keepdim=True)).T
