"""Scores, exact top-k and ranks of targets over the whole catalogue: used alike by the stream, by serving and
by the offline evaluation.

The item matrix holds, for every catalogue item, [item vector | bias | moving popularities], so that the dense
part of the score is one product with the query; the sparse parts are then mixed in at a few hundred
candidates per user.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from models.mixture import mixed, recent
from models.recommender import Recommender
from models.statistics import Statistics
from models.tensors import Query, Sparse, Window
from models.topk import topk
from models.vocabulary import Catalogue, Vocabulary

TILE_FLOATS = 1 << 20
"""Scores computed at a time, 4 MB: smaller tiles waste the product, larger ones leave the cache."""

POPULARITY_FLOOR = 0.01
"""Added to decayed counts before the logarithm: what an item counts that nobody touched lately."""


class Exclude(NamedTuple):
    """Pairs (row of the query, catalogue index) that are not to be ranked; int64[n] each."""

    row: Tensor
    item: Tensor


class Scorer:
    """Holds item vectors and popularities for one model version; call `refresh` before scoring."""

    def __init__(
        self, recommender: Recommender, vocabulary: Vocabulary, catalogue: Catalogue, statistics: Statistics
    ) -> None:
        self.recommender = recommender
        self.vocabulary = vocabulary
        self.catalogue = catalogue
        self.statistics = statistics
        config = recommender.config
        self._columns = config.dim + 1 + recommender.columns
        self._common = None if config.damping is None else config.dim + 1 + config.damping
        self._matrix = torch.zeros(0, self._columns)
        self._spaces = torch.zeros(5, 0, 0)
        self.items = 0
        self.now = 0.0

    @property
    def matrix(self) -> Tensor:
        """[N, D + 1 + F + TREND]"""
        return self._matrix[: self.items]

    @torch.inference_mode()
    def refresh(self, now: float) -> None:
        """Take in the catalogue's new items and the popularities at `now` (ms of the stream clock)."""
        if len(self.catalogue) > self.items:
            self._grow(len(self.catalogue))
        self.now = now
        if self.recommender.config.half_lives_ms:
            popularity = log_popularity(self.statistics, self.items, now)
            columns = self.recommender.popularity_columns(popularity)
            self._matrix[: self.items, self.recommender.config.dim + 1 :] = columns

    def _grow(self, items: int) -> None:
        if items > len(self._matrix):
            room = torch.zeros(max(items, len(self._matrix) * 5 // 4), self._columns)
            room[: self.items] = self.matrix
            self._matrix = room
        index = torch.from_numpy(self.vocabulary.input_index(self.catalogue.hashes[self.items : items]))
        fixed = self.recommender.config.dim + 1
        self._matrix[self.items : items, :fixed] = self.recommender.item_columns(index)
        self.items = items

    def successors(self, query: Query, window: Window) -> tuple[Tensor, Tensor]:
        """Transitions from each user's last L items, latest first: index int32[B,L,M] (-1 = none),
        share[B,L,M].
        """
        slot, _, held = recent(query, window, self.recommender.mixture.lags)
        last = torch.where(held, window.item.gather(1, slot), -1)
        index, share = self.statistics.transitions(last.numpy(), self.now)
        return torch.from_numpy(index), torch.from_numpy(share)

    def sparse(self, query: Query, window: Window) -> Sparse:
        """The sparse parts of the score for B users."""
        parts: Sparse = self.recommender.mixture(query, window, *self.successors(query, window))
        return parts

    @torch.inference_mode()
    def scores(self, query: Query, window: Window, exclude: Exclude | None = None) -> Tensor:
        """Scores of all catalogue items: float32[B,N]. Items that are negative in the window, and pairs in
        `exclude`, are -inf. The tensor is the scorer's own: valid until it is asked again.
        """
        dense = torch.mm(query.vector, self.matrix.T, out=self._space(len(query.vector), 0))
        parts = self.sparse(query, window)
        if parts.item.shape[1]:
            self._mix(dense, parts)
        disliked = window.negative & (window.item >= 0)
        row, slot = disliked.nonzero(as_tuple=True)
        dense[row, window.item[row, slot]] = -torch.inf
        if exclude is not None:
            dense[exclude.row, exclude.item] = -torch.inf
        return dense

    def _mix(self, dense: Tensor, parts: Sparse) -> None:
        largest = dense.amax(dim=1, keepdim=True)
        scratch = torch.sub(dense, largest, out=self._space(len(dense), 1))
        log_z = largest + torch.log(scratch.exp_().sum(dim=1, keepdim=True))
        summed = []
        for number, part in enumerate(parts[1:]):
            buffer = self._space(len(dense), 2 + number)
            buffer.scatter_add_(1, parts.item, part)
            summed.append(buffer.gather(1, parts.item))
            buffer.scatter_(1, parts.item, 0.0)
        if self._common is not None:
            summed[0] = self.recommender.mixture.damped(summed[0], self.matrix[:, self._common][parts.item])
        dense.scatter_(1, parts.item, mixed(dense.gather(1, parts.item), log_z, *summed))

    def _space(self, rows: int, number: int) -> Tensor:
        """One of five matrices [rows, N] that are used again and again: fresh memory costs more than the
        arithmetic done in it. The first two hold anything; the others are zero and must be left zero.
        """
        if self._spaces.shape[1] < rows or self._spaces.shape[2] != self.items:
            self._spaces = torch.zeros(5, rows, self.items, device=self._matrix.device)
        return self._spaces[number, :rows]

    def _tiles(self, rows: int) -> Iterator[slice]:
        step = max(1, TILE_FLOATS // max(self.items, 1))
        for start in range(0, rows, step):
            yield slice(start, min(start + step, rows))

    def _tiled(self, query: Query, window: Window, exclude: Exclude | None) -> Iterator[tuple[slice, Tensor]]:
        for tile in self._tiles(len(query.vector)):
            outside = None
            if exclude is not None:
                inside = (exclude.row >= tile.start) & (exclude.row < tile.stop)
                outside = Exclude(exclude.row[inside] - tile.start, exclude.item[inside])
            rows = Query(*(part[tile] for part in query))
            yield tile, self.scores(rows, Window(*(part[tile] for part in window)), outside)

    @torch.inference_mode()
    def topk(
        self, query: Query, window: Window, k: int, exclude: Exclude | None = None
    ) -> tuple[Tensor, Tensor]:
        """The k best catalogue items of B users: index int64[B,k] and score float32[B,k], best first, ties to
        the lower index; places beyond what may be recommended have index -1 and score -inf.
        """
        index = torch.full((len(query.vector), k), -1, dtype=torch.int64)
        score = torch.full((len(query.vector), k), -torch.inf)
        for tile, scores in self._tiled(query, window, exclude):
            best, value = topk(scores, k)
            index[tile, : best.shape[1]] = torch.where(value > -torch.inf, best, -1)
            score[tile, : best.shape[1]] = value
        return index, score

    @torch.inference_mode()
    def ranks(
        self, query: Query, window: Window, target: Tensor, exclude: Exclude | None = None
    ) -> tuple[Tensor, Tensor]:
        """target int64[B] (catalogue index) -> its score float32[B], and how many other items score at least
        as high, int64[B]: 0 = first; ties count against the target.
        """
        score = torch.empty(len(target))
        above = torch.empty(len(target), dtype=torch.int64)
        for tile, scores in self._tiled(query, window, exclude):
            own = scores.gather(1, target[tile, None])
            score[tile] = own[:, 0]
            above[tile] = (scores >= own).sum(dim=1) - 1
        return score, above


def log_popularity(statistics: Statistics, items: int, now: float) -> Tensor:
    """log((decayed count + floor) / sum), float32[items, F] at `now`."""
    counts = torch.from_numpy(statistics.popularity(items, now)).float() + POPULARITY_FLOOR
    return torch.log(counts / counts.sum(dim=1, keepdim=True)).T
