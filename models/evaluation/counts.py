"""What the baselines count, event by event: popularity that decays, and transitions between items."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

_TIE_DECIMALS = 9
"""Sums of transitions that agree so far are ties: they differ by the order of their terms."""

_REBASE_AT = 256.0
"""Half-lives after which weights are scaled down: they stay below 2**256, far inside float64."""


class Popularity:
    """Occurrences of each item, each weighing 2^(-age / half-life); an infinite half-life counts plainly.

    Weights grow with time instead of decaying, so that learning touches one entry and the order of items
    never changes by waiting; when they have grown by 2**256 all are scaled down together by that exact power
    of two.
    """

    def __init__(self, items: int, half_life: float) -> None:
        self.scores: NDArray[np.float64] = np.zeros(items)
        self._rate = 1.0 / half_life
        self._reference: float | None = None

    def learn(self, item: int, time: float) -> None:
        """Count one event; `time` in the unit of the half-life, never decreasing."""
        if self._reference is None:
            self._reference = time
        elapsed = (time - self._reference) * self._rate
        if elapsed >= _REBASE_AT:
            self.scores *= 2.0**-elapsed
            self._reference, elapsed = time, 0.0
        self.scores[item] += 2.0**elapsed

    def learn_many(self, items: NDArray[np.integer], times: NDArray[np.float64]) -> None:
        """`learn` for events in time order, before any other."""
        if len(items):
            self._reference = float(times[-1])
            weights = np.exp2((times - times[-1]) * self._rate)
            self.scores = np.bincount(items, weights, minlength=len(self.scores)).astype(np.float64)


class Transitions:
    """How often item j followed item i within `lags` events of one user, each time weighing 1 / lag.

    The row of an item is a dictionary while it has few entries and an array when it has many.
    """

    def __init__(self, items: int, lags: int) -> None:
        self.lags = lags
        self._items = items
        self._sparse_up_to = max(32, items // 32)  # about where an array takes less memory than a dictionary
        self._rows: dict[int, dict[int, float] | NDArray[np.float64]] = {}

    def learn(self, recent: Iterable[int], item: int) -> None:
        """Count the transitions from a user's recent items (newest first) to the item that followed them."""
        rows = self._rows
        for lag, source in zip(range(1, self.lags + 1), recent, strict=False):
            row = rows.get(source)
            if row is None:
                rows[source] = {item: 1 / lag}
            elif isinstance(row, dict):
                row[item] = row.get(item, 0.0) + 1 / lag
                if len(row) > self._sparse_up_to:
                    dense = np.zeros(self._items, np.float64)
                    dense[list(row)] = list(row.values())
                    rows[source] = dense
            else:
                row[item] += 1 / lag

    def scores(self, recent: Iterable[int]) -> NDArray[np.float64]:
        """Sum over the recent items (newest first) of their row / lag: float64[items]."""
        total = np.zeros(self._items, np.float64)
        for lag, source in zip(range(1, self.lags + 1), recent, strict=False):
            row = self._rows.get(source)
            if isinstance(row, dict):
                weights = np.fromiter(row.values(), np.float64, len(row))
                total[np.fromiter(row, np.int64, len(row))] += weights / np.float64(lag)
            elif row is not None:
                total += row / np.float64(lag)
        return total


class CountRules:
    """Rules that rank by transitions from the user's recent items, then (ties, and items never reached) by
    popularity.

    They share the transitions and differ in the popularity; without transitions they rank by popularity
    alone. Transition scores are multiplied by count ** -damping of the item they reach, so that what follows
    everything is not preferred.
    """

    def __init__(
        self,
        items: int,
        half_lives: Sequence[float],
        transitions: Transitions | None = None,
        damping: float = 0.0,
        frozen: bool = False,
    ) -> None:
        self.popularities = [Popularity(items, half_life) for half_life in half_lives]
        self.frozen = frozen  # learns from the training part only
        self._transitions = transitions
        self._damping = damping
        self._counts = Popularity(items, float("inf"))

    def begin(self, items: NDArray[np.integer], times: Sequence[NDArray[np.float64]]) -> None:
        """Count items[n] in order; `times` has an array [n] for each popularity."""
        for popularity, on in zip(self.popularities, times, strict=True):
            popularity.learn_many(items, on)
        self._counts.learn_many(items, np.zeros(len(items)))

    def learn_popularity(self, item: int, times: Sequence[float]) -> None:
        """Count one event; `times` has a time for each popularity."""
        for popularity, time in zip(self.popularities, times, strict=True):
            popularity.learn(item, time)
        self._counts.learn(item, 0.0)

    def learn_transitions(self, recent: Iterable[int], item: int) -> None:
        """Count that an item followed a user's recent items (newest first)."""
        if self._transitions is not None:
            self._transitions.learn(recent, item)

    def not_below(self, recent: Iterable[int], item: int, candidates: int) -> Iterator[NDArray[np.bool_]]:
        """Yield for each rule which candidates rank no lower than `item`, itself too: bool[candidates]."""
        if self._transitions is None:
            for popularity in self.popularities:
                score = popularity.scores[:candidates]
                yield score >= score[item]
            return
        scores = self._transitions.scores(recent)[:candidates]
        if self._damping:
            scores *= np.maximum(self._counts.scores[:candidates], 1.0) ** -self._damping
        scores = np.round(scores, _TIE_DECIMALS)
        ahead = scores > scores[item]
        level = np.flatnonzero(scores == scores[item])
        for popularity in self.popularities:
            not_below = ahead.copy()
            not_below[level[popularity.scores[level] >= popularity.scores[item]]] = True
            yield not_below
