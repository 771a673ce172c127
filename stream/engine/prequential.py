"""Prequential metrics of the live system: each sampled event is ranked from the row just before it, then
applied.

The target is ranked against all items that were in the catalogue before its micro-batch (mode "all"), ties
count against the model, and statistics are as at the batch's start. Decayed popularity
(`eddy.stream.engine.ranker.decayed_popularity`) is ranked beside it on the same events and candidates. An
item's first appearance is a miss for both.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from eddy.models.evaluation.metrics import MISS, metrics

K = 20

Ranks = Callable[[], tuple[NDArray[np.int64], NDArray[np.int64]]]
"""Waits for the ranks of targets by the model and by decayed popularity, int64[n] each, 1 = first."""


@dataclass
class RankSums:
    """Running sums over the ranked events of one version's rows."""

    events: int = 0
    recall: float = 0.0
    reciprocal: float = 0.0
    popularity_recall: float = 0.0
    popularity_reciprocal: float = 0.0

    def metrics(self) -> dict[str, float]:
        """Means over the events."""
        return {
            "events": self.events,
            f"recall_at_{K}": self.recall / self.events,
            f"mrr_at_{K}": self.reciprocal / self.events,
            f"popularity_recall_at_{K}": self.popularity_recall / self.events,
            f"popularity_mrr_at_{K}": self.popularity_reciprocal / self.events,
        }


@dataclass
class Prequential:
    """Ranks under way, and the sums over those that are finished, by the id of the version that made them."""

    started: int = 0
    """how often `start_ranks` was called"""
    sample: float = 0.0
    """share of users whose events were ranked in the last micro-batch that had any of sampled users"""
    sums: dict[str, RankSums] = field(default_factory=dict)
    _finished: int = 0
    _waiting: deque[tuple[str, Ranks, NDArray[np.bool_], NDArray[np.bool_]]] = field(default_factory=deque)

    @property
    def events(self) -> int:
        """How many events were ranked, by all versions."""
        return sum(sums.events for sums in self.sums.values())

    def start_ranks(
        self, version: str, ranks: Ranks, counted: NDArray[np.bool_], possible: NDArray[np.bool_]
    ) -> None:
        """Note that a version's ranks are being made, to be added by `finish_ranks`. Only events that are
        `counted` [n] count; a target that was not `possible` [n] is a miss.
        """
        self._waiting.append((version, ranks, counted, possible))
        self.started += 1

    def finish_ranks(self, started: int | None = None) -> None:
        """Wait for the ranks of the first `started` calls of `start_ranks` (None = of all), and for no
        others, since these may still be in the making. One thread may start ranks while another finishes
        them.
        """
        until = self.started if started is None else started
        while self._finished < until:
            self._finished += 1
            version, ranks, counted, possible = self._waiting.popleft()
            ours, theirs = (np.where(possible, rank, MISS)[counted] for rank in ranks())
            self.add_ranks(version, ours, theirs)

    def add_ranks(self, version: str, rank: NDArray[np.int64], popularity_rank: NDArray[np.int64]) -> None:
        """Add the ranks of n targets, int64[n], 1 = first, by a version and by decayed popularity."""
        n = len(rank)
        if not n:
            return
        sums = self.sums.setdefault(version, RankSums())
        sums.events += n
        ours, theirs = metrics(rank, (K,)), metrics(popularity_rank, (K,))
        sums.recall += n * ours[f"recall@{K}"]
        sums.reciprocal += n * ours[f"mrr@{K}"]
        sums.popularity_recall += n * theirs[f"recall@{K}"]
        sums.popularity_reciprocal += n * theirs[f"mrr@{K}"]

    def metrics(self) -> dict[str, dict[str, float]]:
        """Means over the ranks that are finished, by the version that made them."""
        return {version: sums.metrics() for version, sums in self.sums.items()}
