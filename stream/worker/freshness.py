"""How fresh a worker's rows are: the time from a record's append to `events` until its row is durable."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Metric
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from eddy.stream.records.worker_reports import DURATIONS_MS, count_durations

_SHOWN = 4
"""Every fourth class is a bucket for Prometheus: one per doubling."""


class Freshness(Collector):
    """Counts records by their freshness, a checkpoint at a time, from the worker's start. Records that are
    read again after a crash count again.
    """

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(len(DURATIONS_MS) + 1, np.int64)
        """by DURATIONS_MS"""
        self._sum_ms = 0

    def observe(self, appended: NDArray[np.int64], durable: int) -> None:
        """Records that were appended at these times have become durable now; all in ms."""
        durations = np.maximum(durable - appended, 0)
        self.counts = self.counts + count_durations(durations)
        self._sum_ms += int(durations.sum())

    def collect(self) -> Iterator[Metric]:
        """The histogram as Prometheus reads it."""
        reached = np.cumsum(self.counts)
        buckets = [
            (f"{end / 1000:g}", float(count))
            for end, count in zip(DURATIONS_MS[::_SHOWN], reached[::_SHOWN], strict=False)
        ]
        buckets.append(("+Inf", float(reached[-1])))
        yield HistogramMetricFamily(
            "eddy_freshness_seconds",
            "From a record's append to events until its row is durable",
            buckets=buckets,
            sum_value=self._sum_ms / 1000,
        )
