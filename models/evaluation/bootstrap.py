"""Confidence intervals of means over events, by the bootstrap over users (Efron 1979).

The events of one user are not independent of each other, so users are drawn with replacement, each with all
of their events: the cluster bootstrap. A difference between two recommenders is paired, since both ranked the
same events.
"""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2_000
LEVEL = 0.95
_SEED = 1


@dataclass(frozen=True)
class Interval:
    """A mean over events, and the ends of its interval of confidence LEVEL."""

    mean: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.mean:+.4f} ({self.low:+.4f} … {self.high:+.4f})"


def interval(gain: NDArray[np.float64], user: NDArray[np.integer], resamples: int = RESAMPLES) -> Interval:
    """The mean of gain[m], which are the gains at m ≥ 1 events of these users [m], with its interval.

    The interval is the percentile interval; with a single user it is as wide as a point.
    """
    _, number = np.unique(user, return_inverse=True)
    total = np.bincount(number, gain)
    events = np.bincount(number).astype(np.float64)
    users = len(total)
    rng = np.random.default_rng(_SEED)
    means = np.empty(resamples)
    for resample in range(resamples):
        drawn = np.bincount(rng.integers(users, size=users), minlength=users)
        means[resample] = (drawn @ total) / (drawn @ events)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(np.mean(gain)), float(low), float(high))
