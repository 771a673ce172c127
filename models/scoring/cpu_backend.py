"""Scoring on the CPU: the product by oneDNN, the rest compiled, row by row."""

import threading

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eddy.models.kernels import score_rows
from eddy.models.kernels.compiled_maths import GAP_BUCKETS
from eddy.models.kernels.dense_rows import complete_dense
from eddy.models.network.mixture import Mixture
from eddy.models.network.recommender import Recommender
from eddy.models.scoring.backend import Exclude, TopK, Weights, last_items, short_list, successors
from eddy.models.scoring.item_matrix import Items
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.tensors import SPARSE_GATES, Query, Window

_NO_ITEMS = np.zeros(0, np.int64)
_EQUAL = np.zeros(0, np.float32)


def tables_of(mixture: Mixture, older: int) -> score_rows.MixtureTables:
    """What the compiled loops need of a mixture that knows `older` items from before the window."""

    weights = mixture.state_dict()

    def learned(name: str, *otherwise: int) -> NDArray[np.float32]:
        """The named weights, at least [1]; zeros where the mixture has no such part."""
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


class CpuBackend:
    """See `eddy.models.scoring.backend.ScoringBackend`."""

    def __init__(
        self, query: Query, window: Window, exclude: Exclude | None, recommender: Recommender,
        matrix: Items, statistics: Statistics, now: float, weights: Weights | None,
        spaces: threading.local, tables: score_rows.MixtureTables,
    ) -> None:  # fmt: skip
        self._vector, self._matrix, self._tables, self._spaces = query.vector, matrix, tables, spaces
        self._sparse = len(tables.place) > 0 or len(tables.lag) > 0
        last = last_items(query, window, recommender.mixture.lags).numpy()
        found = successors(last, matrix.items, statistics, now)
        left_row, left, everywhere = _NO_ITEMS, _NO_ITEMS, _NO_ITEMS
        if exclude is not None:
            order = torch.argsort(exclude.row, stable=True)
            left_row, left = exclude.row[order].numpy(), exclude.item[order].numpy()
            everywhere = _NO_ITEMS if exclude.everywhere is None else exclude.everywhere.numpy()
        self._rows = score_rows.BatchColumns(
            vector=_array(query.vector),
            gates=_array(query.gates),
            idle=_array(query.idle_ms.float()),
            item=_array(window.item),
            time=_array(window.timestamp),
            type=_array(window.type),
            negative=_array(window.negative),
            length=_array(window.length),
            older=_array(window.older.to(torch.int32)),
            source=found.source,
            left_from=np.searchsorted(left_row, np.arange(len(query.vector) + 1)),
            left=left,
        )
        self._shared = score_rows.BatchTables(
            successor=found.successor,
            share=found.share,
            to=_EQUAL if weights is None else weights.to.numpy(),
            origin=_EQUAL if weights is None else weights.origin.numpy(),
            everywhere=everywhere,
            vectors=matrix.vectors.numpy(),
            popularity=_array(matrix.popularity),
        )

    def scores(self, rows: slice) -> Tensor:
        dense, log_z = self._dense(rows, exact=True)
        score_rows.finish_rows(
            dense, log_z, rows.start, self._rows, self._shared, self._tables, *self._scratch()
        )
        return torch.from_numpy(dense[:, : self._matrix.items])

    def topk(self, rows: slice, k: int, target: Tensor) -> TopK:
        middle, reduced = rows.stop - len(target), self._matrix.reduced
        listed, k = middle - rows.start, min(k, self._matrix.items)
        item, score = np.empty((listed, k), np.int64), np.empty((listed, k), np.float32)
        own, above = np.empty(len(target), np.float32), np.empty(len(target), np.int64)
        common = (self._rows, self._shared, self._tables)
        if listed:
            first = slice(rows.start, middle if reduced else rows.stop)
            dense, log_z = self._dense(first, exact=not reduced)
            score_rows.list_best(
                dense[:listed], log_z[:listed], rows.start, *common, *self._scratch(),
                min(short_list(k), self._matrix.items) if reduced else 0, item, score,
            )  # fmt: skip
        if len(target):
            if int(target.min()) < 0 or int(target.max()) >= self._matrix.items:
                raise IndexError("a target that is not among the items")  # compiled loops do not look
            if reduced or not listed:
                dense, log_z = self._dense(slice(middle, rows.stop), exact=True)
            else:
                dense, log_z = dense[listed:], log_z[listed:]
            score_rows.finish_rows(dense, log_z, middle, *common, *self._scratch())
            score_rows.rank_targets(dense, target.numpy(), own, above)
        return TopK(*(torch.from_numpy(part) for part in (item, score, own, above)))

    def _dense(self, rows: slice, exact: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Dense scores [B, padded N] of some of the users, and log Z [B]."""
        vector, matrix = self._vector[rows], self._matrix
        shift, total = np.full(len(vector), -np.inf, np.float32), np.zeros(len(vector), np.float32)
        one = np.ones(len(vector), np.float32)
        moving, tiles = matrix.moving.numpy(), matrix.tiles()
        dense = self._buffer("dense", len(vector), matrix.padded if len(tiles) > 1 else 0)
        for tile in tiles:
            raw, unit = matrix.product(vector, tile, exact)
            if len(tiles) > 1:
                dense[:, tile] = raw.numpy()
            else:
                dense = raw.numpy()
            # Units are positive: without other parts they change no order, and the short list is exact.
            scaled = unit is not None and (self._sparse or len(moving) > 0)
            complete_dense(
                _array(unit[:, 0]) if unit is not None and scaled else one, self._rows.vector[rows], moving,
                tile.start, tile.stop, matrix.items, self._sparse, dense, shift, total,
            )  # fmt: skip
        return dense, shift + np.log(total) if self._sparse else shift

    def _buffer(self, name: str, rows: int, columns: int) -> NDArray[np.float32]:
        """A matrix that is used again and again: fresh memory costs more than the arithmetic done in it."""
        room: NDArray[np.float32] | None = getattr(self._spaces, name, None)
        if room is None or room.size < rows * columns:
            room = np.empty(rows * columns * 5 // 4, np.float32)  # the catalogue grows
            setattr(self._spaces, name, room)
        return room[: rows * columns].reshape(rows, columns)

    def _scratch(self) -> tuple[score_rows.Scratch, int]:
        """Working space for one row, and how many items there are."""
        items = self._matrix.items
        touched = self._rows.item.shape[1] + self._rows.older.shape[1]
        touched += self._rows.source.shape[1] * self._shared.successor.shape[1]
        space: score_rows.Scratch | None = getattr(self._spaces, "space", None)
        if space is None or len(space.mark) < items or len(space.nonzero) < touched:
            space = score_rows.new_scratch(self._matrix.padded * 5 // 4, touched)  # the catalogue grows
            self._spaces.space = space
        return space, items


def _array(part: Tensor) -> NDArray:  # type: ignore[type-arg]
    return np.ascontiguousarray(part.numpy())
