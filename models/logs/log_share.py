"""Which part of a log one of several processes reads: all events of some of its users, and no other's.

Where the log says which files hold which users (its buckets), each process opens its own files only. Where it
does not, each process reads all files, and keeps the rows of its own users by a hash of the user.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eddy.models.hashing import user_hashes
from eddy.models.logs.log_files import LogFile


@dataclass(frozen=True)
class LogShare:
    """The share of process `rank` of `size`."""

    rank: int = 0
    size: int = 1

    @property
    def is_whole(self) -> bool:
        """Whether there is one process only."""
        return self.size == 1

    def buckets(self, files: Sequence[LogFile]) -> frozenset[int] | None:
        """The buckets that this process reads; None where rows have to be told apart by their users, since
        buckets are not known or fewer than processes. The largest bucket is dealt first, each to the process
        that has the fewest rows.
        """
        rows: dict[int, int] = {}
        for file in files:
            if file.bucket is None or file.rows is None:
                return None
            rows[file.bucket] = rows.get(file.bucket, 0) + file.rows
        if len(rows) < self.size:
            return None
        dealt, buckets = [0] * self.size, set[int]()
        for bucket in sorted(rows, key=lambda bucket: (-rows[bucket], bucket)):
            process = dealt.index(min(dealt))
            dealt[process] += rows[bucket]
            if process == self.rank:
                buckets.add(bucket)
        return frozenset(buckets)

    def own_users(self, users: pa.Array) -> NDArray[np.bool_]:
        """Which of these users this process keeps: bool[n]. One without a name, which will be refused, is
        everybody's.
        """
        encoded = users.dictionary_encode()
        of_name = user_hashes(encoded.dictionary.to_pylist()) % np.uint64(self.size) == self.rank
        code = encoded.indices.fill_null(-1).to_numpy()
        own: NDArray[np.bool_] = np.append(of_name, True)[code]
        return own


WHOLE_LOG = LogShare()
