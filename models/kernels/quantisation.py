"""Vectors as small whole numbers, for products in int8."""

import numpy as np
from numpy.typing import NDArray

from eddy.models.kernels.compiled import compiled

TINY = 1e-12
"""What a vector of zeros is scaled by instead of its largest number."""


@compiled
def quantise(vector: NDArray[np.float32], steps: NDArray[np.uint8], unit: NDArray[np.float32]) -> None:
    """vector[B,D] as 128 + steps of unit[B,1], at most 63 to either side."""
    for b in range(len(vector)):
        row, largest = vector[b], np.float32(TINY)
        for j in range(len(row)):
            largest = max(largest, abs(row[j]))
        unit[b, 0] = largest / np.float32(63)
        per_unit = np.float32(63) / largest
        for j in range(len(row)):
            steps[b, j] = np.uint8(np.int32(np.rint(row[j] * per_unit)) + 128)
