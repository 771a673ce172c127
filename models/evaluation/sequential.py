"""Two versions that are live side by side, compared again and again while ranks come in, at a fixed rate of
false alarms.

**What is compared.** Each version has users of its own, dealt at random, so that a version may be lucky with
its users. The gain of an event is its reciprocal rank by the version less that by decayed popularity on the
same event, a control variate (Lavenberg & Welch 1981): it takes out how hard the events of a version's users
are, and has the same mean for two equal versions. Mean gains per event are compared.

**Variance.** Events of one user are alike, so users are counted in groups, and a mean gain is a ratio of two
sums over groups: its variance is that of the delete-a-group jackknife (Kott 2001), which is rather too large
where groups have unequal counts. The groups in effect, (Σ n)² / Σ n², less one are its degrees of freedom,
and the difference of two means has those of Welch (1947). The version is credited with at least the variance
per event of the live one, which has more events: gains are skewed, so that a sample which by chance lacks the
rare large ones has both a mean and a variance that are too small, and looks certainly worse. On real users
this takes false alarms from 11 % of canaries of a tenth of the users to 1 % (tests/reproduce/canaries.py).

**Repeated looks.** After a share t of the time (or of the events), all looks together may have spent the
share t of the allowed error (Lan & DeMets 1983, with a linear spending function). Each look may spend what
was not spent before, and its interval is as wide as if it was the only look, at that level. The levels add up
to the allowed error, so the rate of false alarms is bounded however the looks depend on each other
(Bonferroni). The tighter bounds of group-sequential designs (O'Brien & Fleming 1979) assume independent
increments, but the increments here are events of the same users.
"""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

ALLOWED_ERROR = 0.05
"""The greatest probability that a version that is not worse is found worse, at any of the looks; and that one
that is not better is found better.
"""

LOOKS = tuple(2.0 ** (-half / 2) for half in range(16, -1, -1))
"""Shares of the time, or of the events, after which the versions are compared, the last is 1. Looks that
follow each other by a factor cost little of the error, and find what is much worse early.
"""

LEAST_GROUPS = 8.0
"""Groups in effect that each version must have to be compared: with fewer, nobody knows the variance."""

LEAST_HITS = 60
"""So often must the version or decayed popularity have ranked an event of each version among the first 20.
Other events have no gain, and of few gains nobody knows the variance.
"""

Outcome = Literal["worse", "better", "not worse", "undecided", "too few"]


@dataclass(frozen=True)
class GroupSums:
    """What is known of one version: sums over its ranked events, by group of users; all float64[G]."""

    events: NDArray[np.float64]
    hits: NDArray[np.float64]
    """of the version and of decayed popularity together"""
    gain: NDArray[np.float64]


@dataclass(frozen=True)
class Finding:
    """What one look says of a version beside the live one."""

    outcome: Outcome
    """"worse" and "better": beyond the noise; at the last look "not worse", or "too few" events to tell"""
    share: float
    """of the time, or of the events, that had passed"""
    difference: float = 0.0
    """mean gain less that of the live version"""
    low: float = -np.inf
    high: float = np.inf
    """the interval of the difference, at the levels that this look could spend"""
    level: float = 0.0
    """what this look may be wrong with, on each side"""
    events: int = 0
    live_events: int = 0


class SequentialTest:
    """The looks at one version beside the live one, in their order.

    allowed_error: of all looks together, on each side.
    """

    def __init__(self, allowed_error: float = ALLOWED_ERROR) -> None:
        self._allowed_error = allowed_error
        self._spent_until = 0.0

    def look(self, share: float, version: GroupSums, live: GroupSums) -> Finding:
        """Compare all that was counted until now, when this share of the time or of the events has passed,
        greater than at the look before. A look that can tell nothing spends nothing.
        """
        last = share >= 1.0
        counted = int(version.events.sum()), int(live.events.sum())
        if not (_enough(version) and _enough(live)):
            return Finding("too few" if last else "undecided", share, 0.0, -np.inf, np.inf, 0.0, *counted)
        level = self._allowed_error * (share - self._spent_until)
        self._spent_until = share
        difference, low, high = difference_interval(version, live, level)
        outcome: Outcome = "not worse" if last else "undecided"
        if high < 0.0:
            outcome = "worse"
        elif low > 0.0:
            outcome = "better"
        return Finding(outcome, share, difference, low, high, level, *counted)


def difference_interval(version: GroupSums, live: GroupSums, level: float) -> tuple[float, float, float]:
    """The difference of two versions' mean gains per event, and an interval that lies above, and below, the
    true difference with the probability `level` each.
    """
    mean, variance, degrees = _mean_gain(version)
    live_mean, live_variance, live_degrees = _mean_gain(live)
    per_event = live_variance * float(live.events.sum())
    variance = max(variance, per_event / float(version.events.sum()))
    both = variance + live_variance
    difference = mean - live_mean
    if both == 0.0:
        return difference, difference, difference
    welch = both**2 / (variance**2 / degrees + live_variance**2 / live_degrees)
    margin = t_quantile(1.0 - level, welch) * float(np.sqrt(both))
    return difference, difference - margin, difference + margin


def _mean_gain(sums: GroupSums) -> tuple[float, float, float]:
    """Mean gain per event, its variance by the delete-a-group jackknife, and that variance's degrees of
    freedom.
    """
    counted = sums.events > 0
    events, gain = sums.events[counted], sums.gain[counted]
    groups = len(events)
    without = (gain.sum() - gain) / (events.sum() - events)
    variance = (groups - 1) / groups * np.sum((without - without.mean()) ** 2)
    return float(gain.sum() / events.sum()), float(variance), _groups_in_effect(events) - 1.0


def _groups_in_effect(events: NDArray[np.float64]) -> float:
    return float(events.sum() ** 2 / np.sum(events**2)) if events.any() else 0.0


def _enough(sums: GroupSums) -> bool:
    return bool(_groups_in_effect(sums.events) >= LEAST_GROUPS and sums.hits.sum() >= LEAST_HITS)


def t_quantile(probability: float, degrees: float) -> float:
    """The quantile of Student's t (Abramowitz & Stegun 1964, 26.7.5): within 1 % from 7 degrees of freedom
    on, up to a probability of 0.9999.
    """
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / degrees ** (power + 1) for power, term in enumerate(terms))
