"""Reading `metrics`: the ranks of all workers, each interval once."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from kafka import TopicPartition
from numpy.typing import NDArray

from eddy.models.untrusted import Unreadable
from eddy.stream.kafka.clients import new_consumer, records_to_end
from eddy.stream.records.rank_counts import SUMS, CountedIntervals, RankedBy, Told, decode_ranks
from eddy.stream.records.schema import GROUPS
from eddy.stream.records.settings import Settings
from eddy.stream.records.worker_reports import is_report

log = logging.getLogger("eddy.metrics")

_TIMEOUT_S = 30


class RankReader:
    """Reads what workers have told since a moment; then, whenever it is asked, what they told meanwhile."""

    def __init__(self, settings: Settings, since_ms: int = 0) -> None:
        """since_ms: by the time at which the cluster took a record in. Errors: kafka-python's, of a cluster
        that does not answer.
        """
        self._topic = TopicPartition(settings.topics.metrics, 0)
        self._counted = CountedIntervals()
        self._consumer = new_consumer(settings, enable_auto_commit=False, auto_offset_reset="earliest")
        try:
            self._consumer.assign([self._topic])
            end = self._consumer.end_offsets([self._topic])[self._topic]  # first: what comes meanwhile counts
            first = self._consumer.offsets_for_times({self._topic: max(since_ms, 0)})[self._topic]
            self._consumer.seek(self._topic, end if first is None else first.offset)
        except BaseException:
            self._consumer.close()
            raise

    def read_on(self) -> Iterator[tuple[int, Told]]:
        """When each record came (ms), and what it says, up to the topic's present end. Unreadable records are
        passed over with a warning, and without one those that were written a second time.

        Errors: NotReadInTime and kafka-python's; the reader is of no use then.
        """
        end = self._consumer.end_offsets([self._topic])
        for record in records_to_end(self._consumer, end, _TIMEOUT_S):
            if is_report(record.key):
                continue
            try:
                told = decode_ranks(record.key, record.value)
            except Unreadable as reason:
                log.warning("%s offset %d: %s; passed over", self._topic.topic, record.offset, reason)
                continue
            if self._counted.is_new(told):
                yield record.timestamp, told

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()


@dataclass(frozen=True)
class LiveRanks:
    """The sums over ranked events of all workers."""

    by: list[RankedBy]
    """[versions] by epoch, then by version"""
    sums: NDArray[np.float64]
    """[versions, len(SUMS), GROUPS]"""

    def of(self, name: str) -> NDArray[np.float64]:
        """One of the SUMS: [versions, GROUPS]."""
        return np.asarray(self.sums[:, SUMS.index(name)], np.float64)


def read_live_ranks(settings: Settings, since_ms: int = 0, epoch: int | None = None) -> LiveRanks:
    """What all workers have told of since a moment (ms), at every epoch or at one.

    Errors: NotReadInTime, and kafka-python's of a cluster that does not answer.
    """
    by_version: dict[RankedBy, NDArray[np.float64]] = {}
    reader = RankReader(settings, since_ms)
    try:
        for _, told in reader.read_on():
            for by, sums in told.sums.items():
                if epoch in (None, by.epoch):
                    by_version[by] = by_version.get(by, 0.0) + sums
    finally:
        reader.close()
    versions = sorted(by_version)
    tables = np.array([by_version[version] for version in versions])
    return LiveRanks(versions, tables.reshape(-1, len(SUMS), GROUPS))
