"""Vectors as small whole numbers, for products in int8, compiled."""

import numpy as np
from numpy.typing import NDArray

from eddy.models.kernels.compiled import compiled

TINY = 1e-12
"""The least number that is taken for a vector's largest one, so that a vector of zeros can be scaled."""


@compiled
def quantise(vector: NDArray[np.float32], steps: NDArray[np.uint8], unit: NDArray[np.float32]) -> None:
    """Write vector[B,D], which must be finite, as whole numbers into steps[B,D] and scales into unit[B,1]:
    vector = unit · (steps - 128), to the nearest step. There are 63 steps to either side of zero.
    """
    for b in range(len(vector)):
        row, largest = vector[b], np.float32(TINY)
        for j in range(len(row)):
            largest = max(largest, abs(row[j]))
        unit[b, 0] = largest / np.float32(63)
        per_unit = np.float32(63) / largest
        for j in range(len(row)):
            steps[b, j] = np.uint8(np.int32(np.rint(row[j] * per_unit)) + 128)
