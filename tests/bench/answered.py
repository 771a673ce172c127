"""When events were appended and when they were answered: gaps, delays and rates."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]


@dataclass(frozen=True)
class Answered:
    """The events that were appended after a mark, by partition, in the order of their offsets."""

    appended: list[Times]
    """s since 1970"""
    answered: list[Times]
    """s since 1970; NaN without an answer"""
    advanced: list[Times]
    """s since 1970: when there was an answer to a later event than ever before, events before the mark
    included; lists that are sent again count as nothing
    """
    until: float
    """s since 1970, up to which answers count"""

    def gap(self, partitions: Collection[int]) -> float | None:
        """The longest time, in s, in which no event of a partition was answered, from the first append on,
        and until the end where some never were. None without partitions.
        """
        return _longest([self._gap(number) for number in partitions])

    def delay(self, partitions: Collection[int]) -> float | None:
        """The longest time, in s, from an event's append to its answer's. None without partitions."""
        return _longest([float(self._delays(number).max(initial=0)) for number in partitions])

    def p99(self, partitions: Collection[int]) -> float | None:
        """The 99th percentile of these times, in s. None without partitions."""
        if not partitions:
            return None
        return float(np.percentile(np.concatenate([self._delays(number) for number in partitions]), 99))

    def late_until(self, late_s: float) -> float:
        """s since 1970 of the last answer that took longer than `late_s`; 0 without one."""
        answered = np.nan_to_num(np.concatenate(self.answered), nan=self.until)
        late = answered - np.concatenate(self.appended) > late_s
        return float(answered[late].max(initial=0))

    @property
    def rate(self) -> float:
        """Answers per second, from the first to the last one."""
        answered = np.concatenate(self.answered)
        answered = answered[~np.isnan(answered)]
        return len(answered) / max(float(np.ptp(answered)), 1e-3) if len(answered) else 0.0

    @property
    def unanswered(self) -> int:
        return int(sum(np.isnan(answered).sum() for answered in self.answered))

    def _gap(self, number: int) -> float:
        end = [self.until] if np.isnan(self.answered[number]).any() else []
        times = np.concatenate((self.appended[number][:1], self.advanced[number], end))
        return float(np.diff(times).max(initial=0))

    def _delays(self, number: int) -> Times:
        return np.nan_to_num(self.answered[number], nan=self.until) - self.appended[number]


def _longest(seconds: list[float]) -> float | None:
    return max(seconds) if seconds else None
