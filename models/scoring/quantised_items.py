"""Item rows in int8 for the first pass of few users, grown with the item matrix; and how far its scores can
be from exact ones.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eddy.models.kernels.quantisation import TINY
from eddy.models.kernels.quantised_rows import (
    WIDTH_STEP,
    QuantisedRows,
    multiply_quantised,
    quantise_queries,
)
from eddy.models.tensors import roomy

FEW_USERS = 8
"""Users up to which the compiled pass is faster than oneDNN's product: with a million items 7 ms beside 22
for one user, and about the same for eight.
"""

_ROWS_AT_ONCE = 1 << 16
"""Rows that are quantised at a time, so that the working space is bounded."""


@dataclass(frozen=True)
class QuantisedView:
    """The rows of one moment, a multiple of `kernels.topk.BLOCK`."""

    rows: QuantisedRows
    residual: float
    """the greatest length of what quantising has left out of an item vector"""
    norm: float
    """the greatest length of a quantised item vector"""

    def dense(
        self, vector: NDArray[np.float32], moving: NDArray[np.float32], items: int, sparse: bool,
        dense: NDArray[np.float32], shift: NDArray[np.float32], total: NDArray[np.float32],
    ) -> NDArray[np.float32]:  # fmt: skip
        """As `kernels.quantised_rows.multiply_quantised`, for vector[B, D + 1 + K]; returns by how much, at
        most, each user's dense scores differ from exact ones: float32[B].
        """
        users, width = len(vector), self.rows.steps.shape[1]
        steps = np.zeros((users, width), np.int16)
        unit, norm, lost = (np.empty(users, np.float32) for _ in range(3))
        quantise_queries(vector, vector.shape[1] - len(moving) - 1, steps, unit, norm, lost)
        multiply_quantised(self.rows, steps, unit, vector, moving, items, sparse, dense, shift, total)
        return norm * np.float32(self.residual) + lost * np.float32(self.norm)


class QuantisedItems:
    """Rows that follow those of an `ItemMatrix`: call `update` when some are new or have changed."""

    def __init__(self, units: int) -> None:
        """units: D, of an item vector."""
        self._units = units
        self._width = -(-units // WIDTH_STEP) * WIDTH_STEP
        self._steps = torch.zeros(0, self._width, dtype=torch.int8)
        self._scale = self._bias = torch.zeros(0)
        self._residual = self._norm = 0.0
        self._up_to = 0

    def drop(self, first: int) -> None:
        """The rows from `first` on are new or have changed."""
        self._up_to = min(self._up_to, first)

    def view(self, vectors: Tensor) -> QuantisedView:
        """The rows of vectors[N, D + 1], item vectors and biases, of which those are quantised that are not
        yet. The bounds never shrink, whichever rows change.
        """
        items = len(vectors)
        if items > len(self._scale):
            room = max(items, len(self._scale) * 5 // 4)
            self._steps, self._scale, self._bias = (
                roomy(part, room) for part in (self._steps, self._scale, self._bias)
            )
        for start in range(self._up_to, items, _ROWS_AT_ONCE):
            self._quantise(slice(start, min(start + _ROWS_AT_ONCE, items)), vectors)
        self._up_to = items
        parts = (part[:items].numpy() for part in (self._steps, self._scale, self._bias))
        return QuantisedView(QuantisedRows(*parts), self._residual, self._norm)

    def _quantise(self, rows: slice, vectors: Tensor) -> None:
        vector = vectors[rows, : self._units]
        scale = vector.abs().amax(dim=1).clamp(min=TINY) / 127
        steps = (vector / scale[:, None]).round_()
        self._steps[rows, : self._units] = steps.to(torch.int8)
        self._scale[rows], self._bias[rows] = scale, vectors[rows, self._units]
        quantised = steps.mul_(scale[:, None])
        self._norm = max(self._norm, float(torch.linalg.vector_norm(quantised, dim=1).max()))
        self._residual = max(self._residual, float(torch.linalg.vector_norm(vector - quantised, dim=1).max()))
