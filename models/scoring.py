"""Scores, exact top-k and ranks of targets over the whole catalogue: used alike by the stream, by serving and
by the offline evaluation.

The dense part of the score is one product of the queries with the item matrix; the sparse parts are then
mixed in at a few hundred candidates per user. Work goes by tiles of users and items whose scores stay in the
cache. With a first pass in reduced precision the best SHORT_LIST candidates are scored again in float32.
"""

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.item_matrix import ITEM_TILE, ItemMatrix, Precision
from models.mixture import mixed, recent
from models.recommender import Recommender
from models.sparse import SparseParts, SparseTile
from models.statistics import Statistics
from models.tensors import Query, Window
from models.topk import topk
from models.vocabulary import Catalogue, Vocabulary

TILE_FLOATS = 1 << 20
"""Scores computed at a time, 4 MB: smaller tiles waste the product, larger ones leave the cache."""

BUFFER_FLOATS = 1 << 25
"""Scores of a tile of users over all items at most, 128 MB."""

WORTH_A_THREAD = 64
"""Users per thread from which on tiles are scored side by side; with fewer, threads wait for the
interpreter.
"""


class Found(NamedTuple):
    """What was found for B users: lists for the first ones, ranks for the last R."""

    item: Tensor
    """int64[B - R, k] catalogue indices, best first, ties to the lower index; -1 beyond what may be
    recommended
    """
    score: Tensor
    """float32[B - R, k], -inf beyond"""
    own: Tensor
    """float32[R] the targets' scores"""
    above: Tensor
    """int64[R] how many other items score at least as high as the target: 0 = first"""


SHORT_LIST, LEAST_LISTED = 2, 20
"""Candidates of a first pass that are scored again: so many times k, and at least so many."""

POPULARITY_FLOOR = 0.01
"""Added to decayed counts before the logarithm: what an item counts that nobody touched lately."""

_LOG2_E = 1 / math.log(2)


class Exclude(NamedTuple):
    """What is not to be ranked: pairs (row of the query, catalogue index), int64[n] each, and items for
    nobody.
    """

    row: Tensor
    item: Tensor
    everywhere: Tensor | None = None


class _Asked(NamedTuple):
    """B users' part in the score beside the item matrix, made once for all tiles."""

    vector: Tensor  # float32[B, columns]
    sparse: SparseParts
    left_row: Tensor  # int64[X] not to be ranked, by row
    left_item: Tensor  # int64[X]
    everywhere: Tensor | None


class Scorer:
    """Holds item vectors and popularities for one model version; call `refresh` before scoring."""

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
        config = recommender.config
        self._common = None if config.damping is None else config.dim + 1 + config.damping
        self._spaces = threading.local()
        self._threads = threads
        self._pool = None
        if threads > 1:  # a thread that begins with a product would share it with one of its own
            self._pool = ThreadPoolExecutor(threads, "eddy-scoring", torch.set_num_threads, (1,))
        self._under_way: list[Future[None]] = []
        self.now = -math.inf

    @property
    def items(self) -> int:
        """N, catalogue items that are ranked."""
        return self._matrix.items

    @property
    def matrix(self) -> Tensor:
        """[N, D + 1 + F + TREND]"""
        return self._matrix.rows

    @torch.inference_mode()
    def refresh(self, now: float) -> None:
        """Take in the catalogue's new items and the popularities at `now` (ms of the stream clock), after
        what is still being scored.
        """
        wait_for(self._under_way)
        self._under_way.clear()
        self._matrix.grow()
        self.now = now
        if self.recommender.config.half_lives_ms:
            popularity = log_popularity(self.statistics, self.items, now)
            popularity = popularity.to(self.recommender.item_bias.device)
            self._matrix.set_popularity(self.recommender.popularity_columns(popularity))

    def successors(self, query: Query, window: Window) -> tuple[Tensor, Tensor]:
        """Transitions from each user's last L items, latest first: index int32[B,L,M] (-1 = none),
        share[B,L,M].
        """
        last = self.last_items(query, window)
        index, share = self.statistics.transitions(last.cpu().numpy(), self.now)
        return torch.from_numpy(index).to(last.device), torch.from_numpy(share).to(last.device)

    def last_items(self, query: Query, window: Window) -> Tensor:
        """Each user's last L items, latest first: int64[B,L] catalogue index, -1 = none."""
        slot, _, held = recent(query, window, self.recommender.mixture.lags)
        return torch.where(held, window.item.gather(1, slot), -1)

    @torch.inference_mode()
    def scores(self, query: Query, window: Window, exclude: Exclude | None = None) -> Tensor:
        """Exact scores of all catalogue items: float32[B,N]. Items that are negative in the window, and what
        `exclude` names, are -inf. The tensor is the scorer's own: valid until it is asked again.
        """
        asked = self._asked(query, window, exclude)
        return self._scores(asked, slice(0, len(query.vector)), exact=True)[0][:, : self.items]

    def _asked(self, query: Query, window: Window, exclude: Exclude | None) -> _Asked:
        mixture = self.recommender.mixture
        item, pointer, shift, lag, own = mixture.weights(query, window)
        older = window.older if mixture.pointer else window.older[:, :0]
        left_row, slot = (window.negative & (window.item >= 0)).nonzero(as_tuple=True)
        left_item = window.item[left_row, slot]
        if exclude is not None and len(exclude.row):
            left_row, order = torch.cat([left_row, exclude.row]).sort()
            left_item = torch.cat([left_item, exclude.item])[order]
        sparse = SparseParts(
            item, pointer, shift, lag, own, older, mixture.of_older(older.shape[1]),
            *self._transitions(query, window),
        )  # fmt: skip
        everywhere = None if exclude is None else exclude.everywhere
        return _Asked(query.vector, sparse, left_row, left_item, everywhere)

    def _transitions(self, query: Query, window: Window) -> tuple[Tensor, Tensor, Tensor]:
        """source, successor and share of `SparseParts`: each distinct item is looked up once."""
        device = query.vector.device
        last = self.last_items(query, window).cpu().numpy()
        used = np.zeros(self.items + 1, np.bool_)
        used[last] = True  # -1, no item, is the last place
        distinct = np.flatnonzero(used)
        place = np.zeros(self.items + 1, np.int64)
        place[distinct] = np.arange(len(distinct))
        found, shares = self.statistics.successors_of(np.where(distinct < self.items, distinct, -1), self.now)
        known = (found >= 0) & (found < self.items)
        successor = torch.from_numpy(np.where(known, found, 0).astype(np.int64)).to(device)
        share = torch.from_numpy(np.where(known, shares, np.float32(0))).to(device)
        if self._common is not None:
            mixture, common = self.recommender.mixture, self.matrix[:, self._common]
            share = mixture.damped(share, common[successor])
            origin = torch.from_numpy(np.minimum(distinct, self.items - 1))
            share.mul_(mixture.boost_of(common[origin]).unsqueeze(1))
        return torch.from_numpy(place[last]).to(device), successor, share

    def _scores(
        self, asked: _Asked, rows: slice, exact: bool
    ) -> tuple[Tensor, tuple[SparseTile, Tensor] | None]:
        """Scores [B, padded N] of some of the users, and their sparse parts with log Z [B,1], if any."""
        vector = asked.vector[rows]
        dense = self._space("dense", len(vector), self._matrix.padded)
        of_tile = []
        for tile in self._matrix.tiles():
            part = dense[:, tile]
            self._matrix.product(vector, tile, part, exact)
            if asked.sparse.any:
                of_tile.append(self._log_sum_exp(part))
        mixed_in = None
        if of_tile:
            log_z = torch.logsumexp(torch.cat(of_tile, dim=1), dim=1, keepdim=True)
            sparse = asked.sparse.tile(rows)
            sparse.mix_into(dense, log_z, self._space("zero", *dense.shape))
            mixed_in = sparse, log_z
        ends = torch.tensor((rows.start, rows.stop), device=asked.left_row.device)
        low, high = torch.searchsorted(asked.left_row, ends).tolist()
        dense[asked.left_row[low:high] - rows.start, asked.left_item[low:high]] = -torch.inf
        if asked.everywhere is not None:
            dense[:, asked.everywhere] = -torch.inf
        return dense, mixed_in

    def _log_sum_exp(self, part: Tensor) -> Tensor:
        """[B,n] -> [B,1]; torch.logsumexp takes twice as long."""
        largest = part.amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).min)
        scratch = self._space("scratch", len(part), part.shape[1])
        torch.add(largest * -_LOG2_E, part, alpha=_LOG2_E, out=scratch)
        return largest + torch.log(scratch.exp2_().sum(dim=1, keepdim=True))

    def _space(self, name: str, rows: int, columns: int) -> Tensor:
        """A matrix that is used again and again: fresh memory costs more than the arithmetic done in it. The
        one called "zero" must be left zero.
        """
        space = getattr(self._spaces, name, None)
        if space is None or space.numel() < rows * columns:
            space = torch.zeros(rows * columns, device=self.recommender.item_bias.device)
            setattr(self._spaces, name, space)
        return space[: rows * columns].view(rows, columns)

    def _by_tiles(self, work: Callable[[slice], None], rows: int) -> Callable[[], None]:
        """Do `work` on tiles of users, if there are threads for it beside the caller and beside each other;
        what is returned waits for the end.
        """
        items = max(self.items, 1)
        step = min(TILE_FLOATS // min(items, ITEM_TILE), BUFFER_FLOATS // items)
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
        """Item and score of `Found` for B users."""
        nothing = torch.zeros(0, dtype=torch.int64, device=query.vector.device)
        return self.start(query, window, k, nothing, exclude)()[:2]

    def ranks(self, query: Query, window: Window, target: Tensor) -> tuple[Tensor, Tensor]:
        """Own score and rank of `Found` for targets int64[B] (catalogue indices)."""
        return self.start(query, window, 0, target)()[2:]

    @torch.inference_mode()
    def start(
        self, query: Query, window: Window, k: int, target: Tensor, exclude: Exclude | None = None
    ) -> Callable[[], Found]:
        """Lists of the k best items for the first users, ranks of target[R] for the last R ones, which are
        always exact. The work may go on beside the caller; what is returned waits for it. Statistics are
        read before.
        """
        device, users = query.vector.device, len(query.vector)
        listed = users - len(target)
        found = Found(
            torch.full((listed, k), -1, dtype=torch.int64, device=device),
            torch.full((listed, k), -torch.inf, device=device),
            torch.empty(len(target), device=device),
            torch.empty(len(target), dtype=torch.int64),
        )
        asked = self._asked(query, window, exclude)
        reduced = self._matrix.reduced
        self._matrix.pack(users)

        def of_one_kind(rows: slice) -> None:
            scores, mixed_in = self._scores(asked, rows, exact=not reduced or rows.start >= listed)
            lists, last = scores[: max(listed - rows.start, 0)], scores[max(listed - rows.start, 0) :]
            if len(lists):
                best, value = topk(lists, max(SHORT_LIST * k, LEAST_LISTED) if reduced else k)
                if reduced:
                    best, value = self._again(asked.vector[rows], mixed_in, best, k)
                at = slice(rows.start, rows.start + len(lists))
                found.item[at, : best.shape[1]], found.score[at, : best.shape[1]] = best, value
            if len(last):
                at = slice(rows.stop - len(last) - listed, rows.stop - listed)
                own = last.gather(1, target[at, None])
                found.own[at] = own[:, 0]
                found.above[at] = _count_not_below(last, own) - 1

        # Not by recursion: a function that names itself is a cycle, which keeps its tensors from being freed.
        def work(rows: slice) -> None:
            if reduced and rows.start < listed < rows.stop:
                of_one_kind(slice(rows.start, listed))
                of_one_kind(slice(listed, rows.stop))
            else:
                of_one_kind(rows)

        wait = self._by_tiles(work, users)

        def result() -> Found:
            wait()
            return found

        return result

    def _again(
        self, vector: Tensor, mixed_in: tuple[SparseTile, Tensor] | None, found: Tensor, k: int
    ) -> tuple[Tensor, Tensor]:
        """The k best of a short list found[B,S] (-1 = none), scored in float32; log Z is the first pass's."""
        order = found.sort(dim=1).values
        index = order.clamp(min=0)
        score = self._matrix.exact(vector, index)
        if mixed_in is not None:
            sparse, log_z = mixed_in
            zero = self._space("zero", len(index), self._matrix.padded)
            score = mixed(score, log_z, *sparse.at(index, zero))
        score = torch.where(order >= 0, score, -torch.inf)
        best, at = torch.sort(score, dim=1, descending=True, stable=True)
        return torch.where(best > -torch.inf, order.gather(1, at), -1)[:, :k], best[:, :k]


def _count_not_below(scores: Tensor, own: Tensor) -> Tensor:
    """How many of scores[B,N] are at least own[B,1]: int64[B]."""
    if scores.device.type != "cpu":
        return (scores >= own).sum(dim=1).cpu()
    at_least = (
        scores.numpy() >= own.numpy()
    )  # numpy counts true values seven times as fast as torch adds them
    return torch.tensor([np.count_nonzero(row) for row in at_least])


def log_popularity(statistics: Statistics, items: int, now: float) -> Tensor:
    """log((decayed count + floor) / sum), float32[items, F] at `now`."""
    counts = torch.from_numpy(statistics.popularity(items, now)).float() + POPULARITY_FLOOR
    return torch.log(counts / counts.sum(dim=1, keepdim=True)).T
