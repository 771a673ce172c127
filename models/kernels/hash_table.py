"""Look-up in an open-addressing hash table."""

import numpy as np
from numpy.typing import NDArray

from eddy.models.kernels.compiled import Ints, compiled


@compiled
def find(
    hashes: NDArray[np.uint64], held: NDArray[np.uint64], table: NDArray[np.int32], shift: np.uint64,
    position: Ints,
) -> None:  # fmt: skip
    """The position [n] of each hash [n] among those held, -1 where absent. table[2^bits] holds positions, -1
    = free; a hash's home is its upper bits, `shift` = 64 - bits, and a taken slot sends it to the next
    (linear probing).
    """
    for i in range(len(hashes)):
        slot = np.int64(hashes[i] >> shift)
        at = table[slot]
        while at >= 0 and held[at] != hashes[i]:  # a slot that another hash took: look at the next one
            slot = (slot + 1) & (len(table) - 1)
            at = table[slot]
        position[i] = at
