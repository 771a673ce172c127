"""Look-up in an open-addressing hash table, compiled."""

import numpy as np
from numpy.typing import NDArray

from eddy.models.kernels.compiled import Ints, compiled


@compiled
def find_positions(
    hashes: NDArray[np.uint64], stored: NDArray[np.uint64], table: NDArray[np.int32], shift: np.uint64,
    position: Ints,
) -> None:  # fmt: skip
    """Write into position[n] where each of hashes[n] is among stored[N], -1 where it is not.

    table[2^bits] holds positions below N, -1 = free slot. A hash's home is the slot of its upper bits,
    `shift` = 64 - bits; if another hash has taken that, it is in the next free one (linear probing). At least
    one slot must be free: the search ends there.
    """
    for i in range(len(hashes)):
        slot = np.int64(hashes[i] >> shift)
        at = table[slot]
        while at >= 0 and stored[at] != hashes[i]:
            slot = (slot + 1) & (len(table) - 1)
            at = table[slot]
        position[i] = at
