"""Freshness: from an event's append to its recommendation in a consumer's hands, at a steady rate.

    python -m tests.bench.freshness BOOTSTRAP PREFIX PARTITIONS ANSWERS POSITIONAL RATE WARM_S SECONDS SEED

Needs a running program that answers every event on the topic ANSWERS: with messages that name the event's
partition and offset, or (POSITIONAL 1) in the order of the events of the same partition, none left out, all
earlier ones answered. One thread appends events in slices of 5 ms, one reads the answers; both through
librdkafka, since a client in Python would take a third of a core from what is measured. Append time: the
broker's LogAppendTime of the event's batch, read afterwards; arrival: the wall clock when the consumer hands
the answer over; one answer in `STRIDE` is looked at. Prints JSON: percentiles in ms, the rate reached, and
the answers that never came.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from numpy.typing import NDArray

from eddy.models.errors import EddyError
from eddy.stream.records.settings import Settings, load_settings
from tests.bench.workload import Workload, message

SLICE_S = 0.005
STRIDE = 4
GRACE_S = 30.0
POLL_S = 0.1
AT_ONCE = 10_000


class Answer(msgspec.Struct, gc=False):
    """The fields of a recommendation that are read: the record that it answers."""

    partition: int
    offset: int


decode_answer = msgspec.json.Decoder(Answer).decode


class Meter:
    """Appends events and notes when their answers arrive."""

    def __init__(self, settings: Settings, answers: str, positional: bool) -> None:
        self.settings = settings
        self.arrived: list[tuple[int, int, float]] = []
        """(partition, offset, ms)"""
        self.sent = 0
        self.answers = 0
        self._events = self._from_end(settings.topics.events)
        self._answers = self._from_end(answers)
        self._first = [partition.offset for partition in self._events[1]]
        ahead = [
            partition.offset - first for partition, first in zip(self._answers[1], self._first, strict=True)
        ]
        self._ahead = ahead if positional else None
        """by partition, how much larger an answer's offset is than its event's, where no name is needed"""
        self._ended = threading.Event()

    def _from_end(self, topic: str) -> tuple[Consumer, list[TopicPartition]]:
        """A consumer, and where the topic ends now."""
        config = {"group.id": "freshness", "enable.auto.commit": False, "fetch.wait.max.ms": 50}
        consumer = Consumer({"bootstrap.servers": self.settings.bootstrap_servers, **config})
        partitions = [TopicPartition(topic, number) for number in range(self.settings.partitions)]
        for partition in partitions:
            partition.offset = consumer.get_watermark_offsets(partition)[1]
        return consumer, partitions

    def produce(self, rate: float, seconds: float, seed: int) -> None:
        """Append events at the rate; returns when all are confirmed."""
        workload, topic = Workload(), self.settings.topics.events
        user, item = workload.draw(round(rate * seconds), seed)
        home = workload.home(self.settings.partitions)[user].tolist()
        columns = list(zip(home, user.tolist(), item.tolist(), strict=True))
        producer = Producer(
            {
                "bootstrap.servers": self.settings.bootstrap_servers,
                "compression.type": "snappy",
                "linger.ms": 1000 * SLICE_S,
            }
        )
        producer.list_topics(topic)  # connected before the clock starts
        started = time.monotonic()
        while self.sent < len(columns):
            due = min(round((time.monotonic() - started + SLICE_S) * rate), len(columns))
            at = time.time_ns() // 1_000_000
            for partition, user_number, item_number in columns[self.sent : due]:
                key, value = message(user_number, item_number, at)
                producer.produce(topic, value, key, partition)
            producer.poll(0)
            self.sent = due
            time.sleep(max(0.0, started + due / rate - time.monotonic()))
        if producer.flush(GRACE_S):
            raise EddyError("the cluster did not confirm all events")

    def consume(self) -> None:
        """Note arrivals until `end`."""
        consumer, partitions = self._answers
        consumer.assign(partitions)
        while not self._ended.is_set():
            records = poll_records(consumer)
            at = time.time() * 1000
            self.answers += len(records)
            for record in records:
                if record.offset() % STRIDE == 0:
                    self.arrived.append((*self._event(record), at))
        consumer.close()

    def _event(self, record: Message) -> tuple[int, int]:
        """(partition, offset) of the event that a record answers."""
        if self._ahead is None:
            answer = decode_answer(record.value())
            return answer.partition, answer.offset
        number = record.partition()
        return number, record.offset() - self._ahead[number]

    def end(self) -> None:
        """Let `consume` return."""
        self._ended.set()

    def append_times(self) -> list[NDArray[np.int64]]:
        """By partition: ms of each event that was appended, from the first one's offset on."""
        consumer, partitions = self._events
        consumer.assign(partitions)
        times: list[list[int]] = [[] for _ in partitions]
        deadline, left = time.monotonic() + GRACE_S, self.sent
        while left > 0 and time.monotonic() < deadline:
            records = poll_records(consumer)
            left -= len(records)
            for record in records:
                times[record.partition()].append(record.timestamp()[1])
        consumer.close()
        if left:
            raise EddyError(f"{left} of the events that were appended are not in the log")
        return [np.array(of_partition, np.int64) for of_partition in times]

    def delays(self, seconds: float) -> NDArray[np.float64]:
        """ms of the answers to events appended in the last `seconds`; an event's first answer counts."""
        times = self.append_times()
        since = max(int(of_partition[-1]) for of_partition in times if len(of_partition)) - seconds * 1000
        first_delays: dict[tuple[int, int], float] = {}
        for partition, offset, at in self.arrived:
            index = offset - self._first[partition]
            if index >= 0 and times[partition][index] >= since:
                first_delays.setdefault((partition, offset), at - float(times[partition][index]))
        return np.array(list(first_delays.values()), np.float64)


def poll_records(consumer: Consumer) -> list[Message]:
    """The records that have come, as soon as there are any; waits at most POLL_S. Errors that the client
    reports in place of records are left out.
    """
    first = consumer.poll(POLL_S)
    records = [] if first is None else [first, *consumer.consume(AT_ONCE, 0)]
    return [record for record in records if record.error() is None]


def measure(meter: Meter, rate: float, warm_s: float, seconds: float, seed: int) -> dict[str, Any]:
    """Percentiles in ms of the steady part, after `warm_s`."""
    consuming = threading.Thread(target=meter.consume)
    consuming.start()
    try:
        started = time.monotonic()
        meter.produce(rate, warm_s + seconds, seed)
        took = time.monotonic() - started
        deadline = time.monotonic() + GRACE_S  # late answers count: without them the tail would look short
        while meter.answers < meter.sent and time.monotonic() < deadline:
            time.sleep(POLL_S)
    finally:
        meter.end()
        consuming.join()
    delays = meter.delays(seconds)
    expected = meter.sent * seconds / (warm_s + seconds) / STRIDE
    return {
        "rate": round(meter.sent / took, 1),
        "wanted": round(rate, 1),
        "missing": max(meter.sent - meter.answers, 0),
        "answers": len(delays),
        "expected": round(expected),
        **{
            f"p{name}_ms": round(float(np.percentile(delays, p)), 2) for name, p in PERCENTILES if len(delays)
        },
    }


PERCENTILES: Sequence[tuple[str, float]] = (("50", 50), ("99", 99), ("999", 99.9))

if __name__ == "__main__":
    bootstrap, prefix, partitions, topic, positional, rate, warm_s, seconds, seed = sys.argv[1:10]
    own = load_settings(bootstrap_servers=bootstrap, topic_prefix=prefix, partitions=int(partitions))
    meter = Meter(own, topic, positional == "1")
    print(json.dumps(measure(meter, float(rate), float(warm_s), float(seconds), int(seed))))
