"""How much of the time live prequential ranks may take.

A rank looks at every item, so its cost grows with the catalogue, while that of the rest of an event does not.
The budget is saved up as time goes by and spent as ranks are made; where it does not pay for all sampled
events, the sample is thinned to a smaller share of the same users.
"""

import math
import time
from collections.abc import Callable

MOST_SAVED_S = 0.1
"""Seconds that may be saved up: a quiet stream's ranks must not make a later batch wait for them."""

FIRST_RANKS = 16
"""Ranks that are made to learn what a rank costs."""


class RankBudget:
    """A share of the time; None is no limit."""

    def __init__(self, share: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._share, self._clock = share, clock
        self._saved_s, self._at = 0.0, clock()

    def pays_for(self, rank_s: float | None) -> float:
        """How many ranks may be made now, at so many seconds each (None: nobody knows yet)."""
        if self._share is None:
            return math.inf
        now = self._clock()
        self._saved_s = min(self._saved_s + self._share * (now - self._at), MOST_SAVED_S)
        self._at = now
        if self._saved_s < 0:
            return 0.0
        return FIRST_RANKS if rank_s is None else self._saved_s / rank_s

    def spend(self, seconds: float) -> None:
        """Ranks took so many seconds; the part that was not saved up delays the next ranks."""
        self._saved_s -= seconds
