"""How often something is done that takes its time: the longer it took, the later it is done again."""

import time
from collections.abc import Callable


class Pace:
    """Bounds what something takes to a share of the time, and how soon it is done again."""

    def __init__(
        self, share: float, least_period_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._share, self._least_period_s, self._clock = share, least_period_s, clock
        self._not_before = float("-inf")

    def is_due(self) -> bool:
        """Whether it may be done now."""
        return self._clock() >= self._not_before

    def took(self, seconds: float) -> None:
        """It was done just now, and took so long."""
        self._not_before = self._clock() + max(seconds / self._share, self._least_period_s)

    def hurry(self) -> None:
        """It may be done at once."""
        self._not_before = float("-inf")
