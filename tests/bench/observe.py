"""How a run is measured: its outputs by the broker's append times, and the offsets that its group has
committed.

Nothing here comes from the measured program itself, so that all programs are measured alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from kafka import KafkaConsumer, TopicPartition
from numpy.typing import NDArray

from eddy.stream.kafka.clients import client_config
from eddy.stream.records.settings import Settings
from tests.chaos.cluster import Cluster

POLL_S = 0.1


@dataclass(frozen=True)
class Window:
    """The part of a run that counts: from `start` (s since 1970, by the wall clock) for at most `seconds`."""

    start: float
    seconds: float


@dataclass
class Curve:
    """The number of events done over time; between two points it is taken to grow evenly."""

    times: list[float] = field(default_factory=list)
    """s since 1970, increasing"""
    counts: list[int] = field(default_factory=list)
    """not decreasing"""

    def add(self, at: float, count: int) -> None:
        self.times.append(at)
        self.counts.append(count)

    def rate(self, window: Window) -> float:
        """Events per second inside the window, which ends with the last event if that falls into it.

        Errors: ValueError when nothing was done in it.
        """
        times, counts = np.array(self.times), np.array(self.counts, np.float64)
        done = float(times[np.searchsorted(counts, counts[-1])])  # the first time that everything was there
        end = min(window.start + window.seconds, done)
        before, after = np.interp((window.start, end), times, counts)
        if end <= window.start or after <= before:
            raise ValueError("nothing was done in the window: the backlog is too short, or the program stood")
        return float((after - before) / (end - window.start))


class Observer:
    """Looks at one installation's topics and group."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.cluster = Cluster(settings)
        self._consumer = KafkaConsumer(**client_config(settings))

    def close(self) -> None:
        self._consumer.close()
        self.cluster.close()

    def _partitions(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, number) for number in range(self.settings.partitions)]

    def count(self, topic: str) -> int:
        """Records in a topic."""
        return int(sum(self._consumer.end_offsets(self._partitions(topic)).values()))

    def committed(self) -> int:
        """Records of `events` that the group has committed."""
        return sum(self.cluster.committed().values())

    def appended(self, topic: str, times: NDArray[np.float64]) -> list[int]:
        """How many records the topic had at each of `times` (s), by their LogAppendTime (ms, one per
        batch).
        """
        tps = self._partitions(topic)
        ends = self._consumer.end_offsets(tps)
        counts = []
        for at in times.tolist():
            offsets = self._consumer.offsets_for_times({tp: int(at * 1000) for tp in tps})
            counts.append(sum(ends[tp] if offsets[tp] is None else int(offsets[tp].offset) for tp in tps))
        return counts

    def appended_curve(self, topic: str, window: Window) -> Curve:
        """The curve of a topic from the window's start to its end, every tenth of a second."""
        times = np.arange(window.start, window.start + window.seconds + POLL_S, POLL_S)
        return Curve(times.tolist(), self.appended(topic, times))


def follow(
    count: Callable[[], int], alive: Callable[[], None], total: int, window: Callable[[], Window | None]
) -> tuple[Curve, Window]:
    """Poll `count` until the window is over or `total` is reached; returns the curve of counts and the
    window.

    `window` returns None as long as it is not known when the window begins; `alive` raises if the program has
    ended.
    """
    curve = Curve()
    while True:
        alive()
        curve.add(time.time(), count())
        current = window()
        if current is not None and (
            curve.counts[-1] >= total or curve.times[-1] > current.start + current.seconds
        ):
            return curve, current
        time.sleep(POLL_S)
