"""The live ranks of all workers: of the last minutes, and all that `metrics` holds."""

import numpy as np
from numpy.typing import NDArray

from eddy.serving.live.answers import LiveRanks, PopularityRanks
from eddy.stream.records.rank_counts import SUMS, CountedIntervals, RankedBy, Told
from eddy.stream.records.schema import GROUPS

RECENT_MS = 300_000
"""Recent ranks are those of so long."""

_BUCKET_MS = 10_000
"""Recent ranks leave by so long at a time, which is how often workers tell of them."""

MAX_VERSIONS = 256
"""Versions at epochs whose ranks are kept; beyond, those of the lowest epoch are forgotten."""

MAX_INSTANCES = 10_000
"""Starts of workers whose last interval is known. A record of an older start that comes again would count
again.
"""


class Ranks:
    """See the module. Each interval of a worker counts once."""

    def __init__(self) -> None:
        self._counted = CountedIntervals(MAX_INSTANCES)
        self._all: dict[RankedBy, NDArray[np.float64]] = {}
        self._recent: dict[int, dict[RankedBy, NDArray[np.float64]]] = {}
        """by the number of a bucket of time: float64[len(SUMS)]"""

    def take(self, told: Told, heard: int) -> None:
        """Take in a record that the cluster had at `heard` (ms)."""
        if not self._counted.is_new(told):
            return
        bucket = self._recent.setdefault(heard // _BUCKET_MS, {})
        for by, sums in told.sums.items():
            self._all[by] = self._all.get(by, 0.0) + sums
            bucket[by] = bucket.get(by, 0.0) + sums.sum(axis=1)
        while len(self._all) > MAX_VERSIONS:
            del self._all[min(self._all)]
        self._leave(max(self._recent) * _BUCKET_MS)

    def _leave(self, now: int) -> None:
        first = (now - RECENT_MS) // _BUCKET_MS
        for bucket in [bucket for bucket in self._recent if bucket < first]:
            del self._recent[bucket]

    def all_of(self, by: RankedBy) -> NDArray[np.float64]:
        """Sums over all ranked events of a version at an epoch: float64[len(SUMS), GROUPS]."""
        return self._all.get(by, np.zeros((len(SUMS), GROUPS)))

    def recent(self, now: int) -> dict[RankedBy, NDArray[np.float64]]:
        """Sums over the ranked events of the last minutes before `now` (ms): float64[len(SUMS)] each."""
        self._leave(now)
        added: dict[RankedBy, NDArray[np.float64]] = {}
        for bucket in self._recent.values():
            for by, sums in bucket.items():
                added[by] = added.get(by, 0.0) + sums
        return added


def live_ranks(sums: NDArray[np.float64] | None) -> LiveRanks | None:
    """The means of a version, from float64[len(SUMS)]; None where nothing was ranked."""
    if sums is None or not sums[0]:
        return None
    recall, mrr = (sums[1:3] / sums[0]).round(4).tolist()
    return LiveRanks(int(sums[0]), None, recall, mrr)


def popularity_ranks(sums: NDArray[np.float64] | None) -> PopularityRanks | None:
    """The same of decayed popularity."""
    if sums is None or not sums[0]:
        return None
    recall, mrr = (sums[3:5] / sums[0]).round(4).tolist()
    return PopularityRanks(recall, mrr)
