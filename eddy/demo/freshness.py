"""Freshness as a downstream team would measure it: the time from an event's append to a list that includes
it.

Plain kafka-python consumers read both ends: the broker's append time of the event's record, and the wall
clock when a poll returned a list made from it, or from a later event of the same user. Broker and demo
share one clock.
"""

import threading
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from kafka import TopicPartition
from numpy.typing import NDArray

from eddy.models.errors import EddyError
from eddy.models.untrusted import Unreadable, decoded
from eddy.stream.kafka.clients import new_consumer
from eddy.stream.records.schema import Recommendation
from eddy.stream.records.settings import Settings

_POLL_MS = 100
_decode = msgspec.json.Decoder(Recommendation).decode

RecordAt = tuple[int, int]
"""(partition, offset) on `events`"""


@dataclass
class Freshness:
    """Reads `events` and `recommendations`, in threads of its own, between `start` and `stop`."""

    settings: Settings
    on_list: Callable[[Recommendation], None]
    appended: dict[RecordAt, tuple[bytes, int]] = field(default_factory=dict)
    """(user, append time in ms) of each event"""
    readable: dict[RecordAt, float] = field(default_factory=dict)
    """the time, ms, at which the list as of that record was first read"""
    failure: Exception | None = None

    def start(self) -> None:
        """Start reading; returns when both topics' ends are known, so that every later event is measured."""
        self._stop = threading.Event()
        topics = self.settings.topics
        self._consumers = [self._at_end(topics.events), self._at_end(topics.recommendations)]
        takes: list[Callable[[Any, float], None]] = [self._take_event, self._take_list]
        self._threads = [
            threading.Thread(target=self._follow, args=pair, daemon=True)
            for pair in zip(self._consumers, takes, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the reading. Errors: EddyError when it had failed before."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self.failure is not None:
            raise EddyError(f"the topics cannot be read: {type(self.failure).__name__}: {self.failure}")

    def _at_end(self, topic: str) -> Any:
        consumer = new_consumer(self.settings, enable_auto_commit=False, group_id=None)
        tps = [TopicPartition(topic, number) for number in range(self.settings.partitions)]
        consumer.assign(tps)
        for tp, end in consumer.end_offsets(tps).items():
            consumer.seek(tp, end)
        return consumer

    def _follow(self, consumer: Any, take: Callable[[Any, float], None]) -> None:
        try:
            while not self._stop.is_set():
                polled = consumer.poll(timeout_ms=_POLL_MS)
                now = time.time() * 1000
                for records in polled.values():
                    for record in records:
                        take(record, now)
        except Exception as error:
            self.failure = error
        finally:
            consumer.close()

    def _take_event(self, record: Any, _: float) -> None:
        self.appended[record.partition, record.offset] = (record.key or b"", record.timestamp)

    def _take_list(self, record: Any, now: float) -> None:
        try:
            answer = decoded(_decode, record.value)
        except Unreadable:  # a tombstone, or not of these workers
            return
        self.readable.setdefault((answer.partition, answer.offset), now)
        self.on_list(answer)

    def milliseconds(self) -> NDArray[np.float64]:
        """Freshness of every event that was answered, [n] ms; call after `stop`."""
        of_user: dict[tuple[bytes, int], list[int]] = {}
        for (partition, offset), (user, _) in sorted(self.appended.items()):
            if (partition, offset) in self.readable:
                of_user.setdefault((user, partition), []).append(offset)
        delays = []
        for (partition, offset), (user, appended) in self.appended.items():
            answered = of_user.get((user, partition), [])
            # Two events of one user in one micro-batch have one list: that of the later one.
            later = answered[bisect_left(answered, offset) :]
            if later:
                delays.append(min(self.readable[partition, at] for at in later) - appended)
        return np.array(delays, np.float64)
