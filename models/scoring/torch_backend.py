"""Scoring by torch operations on whole tiles of users, for any device."""

import math
import threading

import numpy as np
import torch
from torch import Tensor

from eddy.models.kernels.topk import topk
from eddy.models.network.mixture import mixed
from eddy.models.network.recommender import Recommender
from eddy.models.scoring.backend import (
    Adjust,
    Exclude,
    ScoreParts,
    TopK,
    TransitionWeights,
    last_items,
    short_list,
    successor_tables,
)
from eddy.models.scoring.item_matrix import ItemMatrixView
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.scoring.sparse import SparseParts, SparseTile
from eddy.models.tensors import Query, Window, to_device

_LOG2_E = 1 / math.log(2)


class TorchBackend:
    """The reference `eddy.models.scoring.backend.ScoringBackend`, for any device and any numbers."""

    def __init__(
        self, query: Query, window: Window, exclude: Exclude | None, adjust: Adjust | None,
        recommender: Recommender, matrix: ItemMatrixView, statistics: Statistics, now: float,
        weights: TransitionWeights | None, buffers: threading.local,
    ) -> None:  # fmt: skip
        # 1. The sparse parts that the users' own items give.
        mixture = recommender.mixture
        item, pointer, shift, lag, own = mixture.weights(query, window)
        older = window.older if mixture.pointer else window.older[:, :0]
        # 2. Items that are left out, ordered by user: negative ones, and those that `exclude` names.
        self._left_row, slot = (window.negative & (window.item >= 0)).nonzero(as_tuple=True)
        self._left_item = window.item[self._left_row, slot]
        if exclude is not None and len(exclude.row):
            self._left_row, order = torch.cat([self._left_row, exclude.row]).sort()
            self._left_item = torch.cat([self._left_item, exclude.item])[order]
        self._everywhere = None if exclude is None else exclude.everywhere
        # 3. The sparse part that transitions give; successors that are not ranked weigh nothing.
        last = last_items(query, window, mixture.lags).cpu().numpy()
        tables = successor_tables(last, matrix.items, statistics, now, recommender.config.successors)
        ranked = (tables.successor >= 0) & (tables.successor < matrix.items)
        successor = to_device(np.where(ranked, tables.successor, 0).astype(np.int64), item.device)
        share = to_device(np.where(ranked, tables.share, np.float32(0)), item.device)
        if weights is not None:
            origin = to_device(np.minimum(tables.distinct, matrix.items - 1), item.device)
            share = share * weights.to[successor] * weights.origin[origin].unsqueeze(1)
        self._sparse = SparseParts(
            item, pointer, shift, lag, own, older, mixture.of_older(older.shape[1]),
            to_device(tables.source, item.device), successor, share,
        )  # fmt: skip
        self._adjust = adjust
        self._vector, self._matrix, self._buffers = query.vector, matrix, buffers

    def scores(self, rows: slice) -> Tensor:
        return self._scores(rows, exact=True)[0][:, : self._matrix.items]

    def topk(self, rows: slice, k: int, target: Tensor) -> TopK:
        """1. If a first pass in reduced precision makes lists, make ranks apart from them: they are exact.
        2. Score all users.
        3. Take the best; after a first pass, of a short list that is scored again.
        4. Count what is above the targets.
        """
        # 1.
        middle = rows.stop - len(target)
        reduced = self._matrix.reduced and middle > rows.start
        if reduced and middle < rows.stop:
            lists = self.topk(slice(rows.start, middle), k, target[:0])
            ranks = self.topk(slice(middle, rows.stop), k, target)
            return TopK(lists.item, lists.score, ranks.own, ranks.above)
        # 2.
        listed = middle - rows.start
        scores, mixed_in = self._scores(rows, exact=not reduced)
        # 3.
        best, value = topk(scores[:listed], short_list(k) if reduced else k)
        if reduced:
            best, value = self._rescore(rows, mixed_in, best, k)
        # 4.
        own = scores[listed:].gather(1, target[:, None])
        above = (scores[listed:] >= own).sum(dim=1) - 1
        return TopK(best, value, own[:, 0], above)

    def parts(self, index: Tensor) -> ScoreParts:
        """What the scores of the items index[S] consist of, for the first user."""
        # 1. The dense score of these items, and log Z, for which all items are scored.
        matrix, query, index = self._matrix, self._vector[:1], index[None]
        fixed = matrix.vectors.shape[1]
        state = (matrix.vectors[index[0]] @ query[0, :fixed, None])[:, 0]
        popularity = (matrix.popularity[index[0]] @ query[0, fixed:, None])[:, 0]
        _, mixed_in = self._scores(slice(0, 1), exact=True)
        if mixed_in is None:
            none = state.new_zeros(len(state), 0)
            return ScoreParts(
                state, popularity, torch.zeros_like(state), none, none, torch.zeros_like(state), state[:1] * 0
            )
        # 2. The sparse parts: their sums, and which slot and which of the last items they come from.
        tile, log_z = mixed_in
        zero = self._scratch("zero", 1, matrix.padded)
        _, pointer, shift = tile.sum_at(index, zero)
        by_slot = tile.pointer[:, None, :] * (tile.item[:, None, :] == index[:, :, None])
        successor = tile.successor.view(1, 1, self._sparse.lag.shape[1], -1)
        is_item = successor == index[:, :, None, None]
        by_lag = (tile.transition.view_as(successor) * is_item).sum(dim=3)
        older = pointer[0] - by_slot[0].sum(dim=1) if tile.item.shape[1] else torch.zeros_like(state)
        return ScoreParts(state, popularity, shift[0], by_lag[0], by_slot[0], older.clamp(min=0), log_z[0])

    def _scores(self, rows: slice, exact: bool) -> tuple[Tensor, tuple[SparseTile, Tensor] | None]:
        """Scores [n, padded N] of the n users in `rows`, and their sparse parts with log Z [n,1], if any."""
        # 1. Dense scores.
        vector, matrix = self._vector[rows], self._matrix
        parts = [self._dense(vector, tile, exact) for tile in matrix.tiles()]
        dense = parts[0]
        if len(parts) > 1:
            dense = torch.cat(parts, dim=1, out=self._scratch("dense", len(vector), matrix.padded))
        # 2. Mix the sparse parts in.
        mixed_in = None
        if self._sparse.any:
            log_zs = [self._log_sum_exp(part) for part in parts]
            log_z = log_zs[0] if len(parts) == 1 else torch.logsumexp(torch.cat(log_zs, dim=1), 1, True)
            sparse = self._sparse.lay_out(rows)
            sparse.mix_into(dense, log_z, self._scratch("zero", *dense.shape))
            mixed_in = sparse, log_z
        # 3. Leave items out.
        ends = torch.tensor((rows.start, rows.stop), device=self._left_row.device)
        low, high = torch.searchsorted(self._left_row, ends).tolist()
        dense[self._left_row[low:high] - rows.start, self._left_item[low:high]] = -torch.inf
        if self._everywhere is not None:
            dense[:, self._everywhere] = -torch.inf
        # 4. Add each user's column.
        if self._adjust is not None:
            has_column = (self._adjust.column[rows] >= 0).nonzero()[:, 0]
            added = self._adjust.added[self._adjust.column[rows][has_column]]
            dense[has_column, : matrix.items] += added
        return dense, mixed_in

    def _dense(self, vector: Tensor, tile: slice, exact: bool) -> Tensor:
        """Dense scores d of a tile of n items: [B,n], -inf beyond the last item."""
        matrix = self._matrix
        part, unit, _ = matrix.product(vector, tile, exact)
        if unit is not None:
            part.mul_(unit)
        if len(matrix.moving):
            part.addmm_(vector[:, matrix.vectors.shape[1] :], matrix.moving[:, tile])
        if tile.stop > matrix.items:
            part[:, matrix.items - tile.start :] = -torch.inf
        return part

    def _log_sum_exp(self, part: Tensor) -> Tensor:
        """log Σ exp of each row: [B,n] -> [B,1]; torch.logsumexp takes twice as long."""
        largest = part.amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).min)
        scratch = self._scratch("scratch", len(part), part.shape[1])
        torch.add(largest * -_LOG2_E, part, alpha=_LOG2_E, out=scratch)
        return largest + torch.log(scratch.exp2_().sum(dim=1, keepdim=True))

    def _scratch(self, name: str, rows: int, columns: int) -> Tensor:
        """This thread's matrix of that name. It is used again and again: fresh memory costs more than the
        arithmetic done in it. The one called "zero" must be left all zeros.
        """
        buffer = getattr(self._buffers, name, None)
        if buffer is None or buffer.numel() < rows * columns:
            buffer = torch.zeros(rows * columns, device=self._vector.device)
            setattr(self._buffers, name, buffer)
        return buffer[: rows * columns].view(rows, columns)

    def _rescore(
        self, rows: slice, mixed_in: tuple[SparseTile, Tensor] | None, candidate: Tensor, k: int
    ) -> tuple[Tensor, Tensor]:
        """The k best of a short list candidate[B,S] (-1 = none) of the users in `rows`, scored in float32
        with the first pass's log Z: index int64[B,k] and score float32[B,k].
        """
        item = candidate.sort(dim=1).values  # so that a stable sort by score puts ties in the order of items
        index = item.clamp(min=0)
        score = self._matrix.exact_scores(self._vector[rows], index)
        if mixed_in is not None:
            sparse, log_z = mixed_in
            zero = self._scratch("zero", len(index), self._matrix.padded)
            score = mixed(score, log_z, *sparse.sum_at(index, zero))
        if self._adjust is not None:
            column = self._adjust.column[rows, None]
            score += torch.where(column >= 0, self._adjust.added[column.clamp(min=0), index], 0.0)
        score = torch.where(item >= 0, score, -torch.inf)
        best, column = torch.sort(score, dim=1, descending=True, stable=True)
        return torch.where(best > -torch.inf, item.gather(1, column), -1)[:, :k], best[:, :k]
