"""Which users' events are ranked before they are applied."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eddy.stream.records.partitioner import murmur2
from eddy.stream.state.rows import splitmix64


def in_sample(users: Sequence[bytes], share: float) -> NDArray[np.bool_]:
    """Which users are in a stable sample of this share, by the murmur2 of their ids: bool[n]. The sample is
    spread evenly over partitions, whatever the partitioner.
    """
    if share <= 0:
        return np.zeros(len(users), np.bool_)
    spread = splitmix64(murmur2(users).astype(np.int64)) >> np.uint64(40)
    return np.asarray(spread < share * (1 << 24), np.bool_)
