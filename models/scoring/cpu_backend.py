"""Scoring on the CPU: the product by oneDNN, the rest by compiled loops, one user's row at a time."""

import threading

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eddy.models.kernels import score_rows
from eddy.models.kernels.compiled_maths import GAP_BUCKETS
from eddy.models.kernels.dense_rows import complete_dense
from eddy.models.kernels.window import Window
from eddy.models.network.mixture import Mixture
from eddy.models.network.recommender import Recommender
from eddy.models.scoring.backend import (
    Adjust,
    Exclude,
    TopK,
    TransitionWeights,
    last_items,
    short_list,
    successor_tables,
)
from eddy.models.scoring.item_matrix import ItemMatrixView
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.tensors import SPARSE_GATES, Query

_NO_ITEMS = np.zeros(0, np.int64)
_NOTHING_ADDED = np.zeros((0, 0), np.float32)
_EQUAL_WEIGHTS = np.zeros(0, np.float32)
"""Stands for transition weights where all items weigh the same."""


def mixture_tables(mixture: Mixture, older: int) -> score_rows.MixtureTables:
    """The mixture's weights as the compiled loops take them; `older` = O, items from before the window."""
    weights = mixture.state_dict()

    def learned(name: str, *otherwise: int) -> NDArray[np.float32]:
        """The weights of that name, a scalar as [1]; zeros of the shape `otherwise` if the mixture lacks
        them.
        """
        if name not in weights:
            return np.zeros(otherwise, np.float32)
        return np.ascontiguousarray(np.atleast_1d(weights[name].numpy()))

    log_mass, shift = mixture.of_older(older)
    return score_rows.MixtureTables(
        place=learned("place", 0, 2),
        age=learned("age", GAP_BUCKETS, 2),
        kind=learned("kind", 0, 2),
        negative=learned("negative", 2),
        earlier=learned("earlier", 1),
        habit=learned("habit.weight", SPARSE_GATES, 0),
        last_kind=learned("last_kind", 0, SPARSE_GATES),
        older_mass=torch.exp(log_mass).detach().numpy(),
        older_shift=shift.detach().numpy(),
        lag=learned("lag", 0),
        lag_age=learned("lag_age", GAP_BUCKETS),
    )


ROUNDING = np.float32(1e-4)
"""What float32 may round, in the order of which two ways of computing a score differ, beside the error of a
first pass: scores are of the order of ten.
"""


class CpuBackend:
    """The optimised `eddy.models.scoring.backend.ScoringBackend`, for finite numbers on a CPU."""

    def __init__(
        self, query: Query, window: Window[Tensor], exclude: Exclude | None, adjust: Adjust | None,
        recommender: Recommender, matrix: ItemMatrixView, statistics: Statistics, now: float,
        weights: TransitionWeights | None, buffers: threading.local, tables: score_rows.MixtureTables,
    ) -> None:  # fmt: skip
        self._vector, self._matrix, self._tables, self._buffers = query.vector, matrix, tables, buffers
        self._sparse = len(tables.place) > 0 or len(tables.lag) > 0
        last = last_items(query, window, recommender.mixture.lags).numpy()
        tables_of_last = successor_tables(last, matrix.items, statistics, now, recommender.config.successors)
        left_row, left, everywhere = _NO_ITEMS, _NO_ITEMS, _NO_ITEMS
        if exclude is not None:
            order = torch.argsort(exclude.row, stable=True)
            left_row, left = exclude.row[order].numpy(), exclude.item[order].numpy()
            everywhere = _NO_ITEMS if exclude.everywhere is None else exclude.everywhere.numpy()
        self._rows = score_rows.BatchColumns(
            vector=_array(query.vector),
            gates=_array(query.gates),
            idle=_array(query.idle_ms.float()),
            window=Window(*map(_array, window._replace(older=window.older.int()))),
            source=tables_of_last.source,
            left_from=np.searchsorted(left_row, np.arange(len(query.vector) + 1)),
            left=left,
            column=np.full(len(query.vector), -1) if adjust is None else adjust.column.numpy(),
        )
        self._shared = score_rows.BatchTables(
            successor=tables_of_last.successor,
            share=tables_of_last.share,
            to=_EQUAL_WEIGHTS if weights is None else weights.to.numpy(),
            origin=_EQUAL_WEIGHTS if weights is None else weights.origin.numpy(),
            everywhere=everywhere,
            added=_NOTHING_ADDED if adjust is None else _array(adjust.added),
            vectors=matrix.vectors.numpy(),
            moving=matrix.moving.numpy(),
        )

    def scores(self, rows: slice) -> Tensor:
        dense, log_z, _ = self._dense(rows, exact=True)
        score_rows.finish_rows(
            dense, log_z, rows.start, self._rows, self._shared, self._tables, *self._scratch()
        )
        return torch.from_numpy(dense[:, : self._matrix.items])

    def topk(self, rows: slice, k: int, target: Tensor) -> TopK:
        """1. The users up to `middle` get lists, those from it on get ranks.
        2. Make the lists. A first pass in float32 is exact, and makes the ranks' dense scores as well.
        3. Make the ranks, which are always exact.
        """
        # 1.
        middle, k = rows.stop - len(target), min(k, self._matrix.items)
        listed = middle - rows.start
        reduced = self._matrix.reduced or self._matrix.quantised_for(listed) is not None
        item, score = np.empty((listed, k), np.int64), np.empty((listed, k), np.float32)
        own, above = np.empty(len(target), np.float32), np.empty(len(target), np.int64)
        common = (self._rows, self._shared, self._tables)
        # 2.
        if listed:
            first = slice(rows.start, middle if reduced else rows.stop)
            dense, log_z, error = self._dense(first, exact=not reduced)
            score_rows.list_best(
                dense[:listed], log_z[:listed], error[:listed], rows.start, *common, *self._scratch(),
                min(short_list(k), self._matrix.items) if reduced else 0, item, score,
            )  # fmt: skip
        # 3.
        if len(target):
            if int(target.min()) < 0 or int(target.max()) >= self._matrix.items:
                raise IndexError("a target is not among the items")  # compiled loops do not check
            if reduced or not listed:
                dense, log_z, _ = self._dense(slice(middle, rows.stop), exact=True)
            else:
                dense, log_z = dense[listed:], log_z[listed:]
            score_rows.finish_rows(dense, log_z, middle, *common, *self._scratch())
            score_rows.rank_targets(dense, target.numpy(), own, above)
        return TopK(*(torch.from_numpy(part) for part in (item, score, own, above)))

    def _dense(
        self, rows: slice, exact: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Dense scores [n, padded N] of the n users in `rows`, in space that the thread uses again; log Z
        [n], which means nothing where there are no sparse parts; and by how much, at most, scores differ
        from exact ones, [n].
        """
        users, matrix = rows.stop - rows.start, self._matrix
        shift, total = np.full(users, -np.inf, np.float32), np.zeros(users, np.float32)
        vector, moving = self._rows.vector[rows], matrix.moving.numpy()
        quantised = None if exact else matrix.quantised_for(users)
        if quantised is not None:
            dense = self._buffer("dense", users, matrix.padded)
            error = quantised.dense(vector, moving, matrix.items, self._sparse, dense, shift, total)
        else:
            dense, error = self._dense_by_products(rows, exact, shift, total)
        return dense, shift + np.log(total) if self._sparse else shift, error + ROUNDING

    def _dense_by_products(
        self, rows: slice, exact: bool, shift: NDArray[np.float32], total: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As `_dense`, tile by tile of the items: scores and errors; `shift` and `total` are written."""
        vector, matrix, users = self._vector[rows], self._matrix, len(shift)
        ones, error = np.ones(users, np.float32), np.zeros(users, np.float32)
        moving, tiles = matrix.moving.numpy(), matrix.tiles()
        dense = self._buffer("dense", users, matrix.padded if len(tiles) > 1 else 0)
        for tile in tiles:
            raw, unit, differs = matrix.product(vector, tile, exact)
            if differs is not None:
                error = np.maximum(error, differs.numpy())
            if len(tiles) > 1:
                dense[:, tile] = raw.numpy()
            else:
                dense = raw.numpy()
            complete_dense(
                ones if unit is None else _array(unit[:, 0]), self._rows.vector[rows], moving,
                tile.start, tile.stop, matrix.items, self._sparse, dense, shift, total,
            )  # fmt: skip
        return dense, error

    def _buffer(self, name: str, rows: int, columns: int) -> NDArray[np.float32]:
        """This thread's matrix of that name, with any content. It is used again and again: fresh memory costs
        more than the arithmetic done in it.
        """
        buffer: NDArray[np.float32] | None = getattr(self._buffers, name, None)
        if buffer is None or buffer.size < rows * columns:
            buffer = np.empty(rows * columns * 5 // 4, np.float32)  # the catalogue grows
            setattr(self._buffers, name, buffer)
        return buffer[: rows * columns].reshape(rows, columns)

    def _scratch(self) -> tuple[score_rows.Scratch, int]:
        """This thread's working space for one row, and N."""
        items = self._matrix.items
        nonzero = self._rows.window.item.shape[1] + self._rows.window.older.shape[1]
        nonzero += self._rows.source.shape[1] * self._shared.successor.shape[1]
        scratch: score_rows.Scratch | None = getattr(self._buffers, "scratch", None)
        if scratch is None or len(scratch.mark) < items or len(scratch.nonzero) < nonzero:
            scratch = score_rows.new_scratch(self._matrix.padded * 5 // 4, nonzero)  # the catalogue grows
            self._buffers.scratch = scratch
        return scratch, items


def _array(tensor: Tensor) -> NDArray:  # type: ignore[type-arg]
    return np.ascontiguousarray(tensor.numpy())
