"""Prequential metrics of the live system: each sampled event is ranked from the row just before it, then
applied.

The target is ranked against all items that were in the catalogue before its micro-batch (mode "all"), ties
count against the model, and statistics are as at the batch's start. Decayed popularity
(`eddy.stream.engine.ranker.decayed_popularity`) is ranked beside it on the same events and candidates. An
item's first appearance is a miss for both.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eddy.models.evaluation.metrics import MISS
from eddy.stream.records.rank_counts import SUMS, RankedBy
from eddy.stream.records.schema import GROUPS

K = 20

Ranks = Callable[[], tuple[NDArray[np.int64], NDArray[np.int64]]]
"""Waits for the ranks of targets by the model and by decayed popularity, int64[n] each, 1 = first."""

_MEANS = (f"recall_at_{K}", f"mrr_at_{K}", f"popularity_recall_at_{K}", f"popularity_mrr_at_{K}")
"""the names of the means of all SUMS but the first"""


def rank_sums(
    group: NDArray[np.uint8], rank: NDArray[np.int64], popularity_rank: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Sums over n ranked events by the group of their users: float64[len(SUMS), GROUPS].

    group[n]; rank[n], popularity_rank[n]: 1 = first.
    """
    ours, theirs = rank <= K, popularity_rank <= K
    gains = (np.ones(len(rank)), ours, ours / rank, theirs, theirs / popularity_rank)
    place = group + GROUPS * np.arange(len(SUMS))[:, None]
    counted = np.bincount(place.ravel(), np.concatenate(gains), len(SUMS) * GROUPS)
    return np.asarray(counted.reshape(len(SUMS), GROUPS), np.float64)


class _Waiting(NamedTuple):
    """Ranks of m targets that are being made."""

    by: RankedBy
    ranks: Ranks
    group: NDArray[np.uint8]
    counted: NDArray[np.bool_]
    possible: NDArray[np.bool_]


@dataclass
class Prequential:
    """Ranks under way, and the sums over those that are finished: all of a version since the start, for the
    worker's own metrics; and those that nobody has taken yet, by epoch, version and group of users.
    """

    started: int = 0
    """how often `start_ranks` was called"""
    sample: float = 0.0
    """share of users whose events were ranked in the last micro-batch that had any of sampled users"""
    sums: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """[len(SUMS)] by the version that made the ranks"""
    _untaken: dict[RankedBy, NDArray[np.float64]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    """held while `_untaken` is changed: ranks are finished on one thread and taken on another"""
    _finished: int = 0
    _waiting: deque[_Waiting] = field(default_factory=deque)

    @property
    def events(self) -> int:
        """How many events were ranked, by all versions."""
        return sum(int(sums[0]) for sums in self.sums.values())

    def start_ranks(
        self,
        by: RankedBy,
        ranks: Ranks,
        group: NDArray[np.uint8],
        counted: NDArray[np.bool_],
        possible: NDArray[np.bool_],
    ) -> None:
        """Note that the ranks of n events are being made, to be added by `finish_ranks`; group[n] of their
        users. Only events that are `counted` [n] count; a target that was not `possible` [n] is a miss.
        """
        self._waiting.append(_Waiting(by, ranks, group, counted, possible))
        self.started += 1

    def finish_ranks(self, started: int | None = None) -> None:
        """Wait for the ranks of the first `started` calls of `start_ranks` (None = of all), and for no
        others, since these may still be in the making. One thread may start ranks while another finishes
        them.
        """
        until = self.started if started is None else started
        while self._finished < until:
            self._finished += 1
            by, ranks, group, counted, possible = self._waiting.popleft()
            ours, theirs = (np.where(possible, rank, MISS)[counted] for rank in ranks())
            self.add_ranks(by, group[counted], ours, theirs)

    def add_ranks(
        self,
        by: RankedBy,
        group: NDArray[np.uint8],
        rank: NDArray[np.int64],
        popularity_rank: NDArray[np.int64],
    ) -> None:
        """Add the ranks of n targets, int64[n], 1 = first, by a version and by decayed popularity; group[n]
        of their users.
        """
        if not len(rank):
            return
        added = rank_sums(group, rank, popularity_rank)
        self.sums[by.version] = self.sums.get(by.version, 0.0) + added.sum(axis=1)
        with self._lock:
            self._untaken[by] = self._untaken.get(by, 0.0) + added

    def take(self, most: int) -> dict[RankedBy, NDArray[np.float64]]:
        """The sums over ranks that were finished and not taken before, float64[len(SUMS), GROUPS], of up to
        so many versions; those of the others are taken next time.
        """
        with self._lock:
            return {by: self._untaken.pop(by) for by in list(self._untaken)[:most]}

    def metrics(self) -> dict[str, dict[str, float]]:
        """Means over the ranks that are finished, by the version that made them."""
        return {
            version: {"events": int(sums[0]), **dict(zip(_MEANS, (sums[1:] / sums[0]).tolist(), strict=True))}
            for version, sums in self.sums.items()
        }
