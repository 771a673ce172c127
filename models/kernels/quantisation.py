"""Vectors as small whole numbers, for products in int8, compiled."""

import numpy as np
from numpy.typing import NDArray

from eddy.models.kernels.compiled import compiled

TINY = 1e-12
"""The least number that is taken for a vector's largest one, so that a vector of zeros can be scaled."""


MIDDLE, STEPS = 64, 63
"""What stands for zero, and how many steps there are to either side of it: 1 … 127, seven bits. AVX2 adds the
products of two such numbers with two of eight bits in 16 bits; with one bit more they would not fit, and it
takes the largest number that does without a word.
"""


@compiled
def quantise(vector: NDArray[np.float32], steps: NDArray[np.uint8], unit: NDArray[np.float32]) -> None:
    """Write vector[B,D], which must be finite, as whole numbers into steps[B,D] and scales into unit[B,1]:
    vector = unit · (steps - MIDDLE), to the nearest step.
    """
    for b in range(len(vector)):
        row, largest = vector[b], np.float32(TINY)
        for j in range(len(row)):
            largest = max(largest, abs(row[j]))
        unit[b, 0] = largest / np.float32(STEPS)
        per_unit = np.float32(STEPS) / largest
        for j in range(len(row)):
            steps[b, j] = np.uint8(np.int32(np.rint(row[j] * per_unit)) + MIDDLE)
