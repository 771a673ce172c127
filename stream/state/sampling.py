"""Which users' events are ranked before they are applied, in which groups these ranks are counted, and which
users have which model version: three divisions of the users that are independent of each other.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from eddy.stream.records.partitioner import murmur2
from eddy.stream.records.schema import GROUPS
from eddy.stream.state.rows import splitmix64


def in_sample(users: Sequence[bytes], share: float) -> NDArray[np.bool_]:
    """Which users are in a stable sample of this share, by the murmur2 of their ids: bool[n]. The sample is
    spread evenly over partitions, whatever the partitioner.
    """
    if share <= 0:
        return np.zeros(len(users), np.bool_)
    spread = splitmix64(murmur2(users).astype(np.int64)) >> np.uint64(40)
    return np.asarray(spread < share * (1 << 24), np.bool_)


def share_of(users: Sequence[bytes], epoch: int, percents: Sequence[int]) -> NDArray[np.int64]:
    """Which of an epoch's shares each user is in, by their percents, which add up to 100: int64[n]. Each
    epoch deals the users anew, so that one experiment's users are not the next one's.
    """
    dealt = _dealt(users, f"epoch-{epoch}", 100)
    return np.searchsorted(np.cumsum(percents), dealt.astype(np.int64), side="right")


def group_of(users: Sequence[bytes]) -> NDArray[np.uint8]:
    """In which of the GROUPS groups each user's ranks are counted: uint8[n]. A user's group never changes."""
    return _dealt(users, "group of ranks", GROUPS).astype(np.uint8)


def _dealt(users: Sequence[bytes], name: str, into: int) -> NDArray[np.uint64]:
    """Deal users by a stable hash of their ids, salted by a name: uint64[n], below `into`."""
    salt = np.uint64(xxh3_64_intdigest(name.encode()))
    return splitmix64((splitmix64(murmur2(users).astype(np.int64)) ^ salt).view(np.int64)) % np.uint64(into)
