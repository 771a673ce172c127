"""Freshness: from an event's append to its recommendation in a consumer's hands, at a steady rate.

    python -m tests.bench.freshness BOOTSTRAP TOPIC_PREFIX PARTITIONS RATE WARM_S SECONDS SEED

Needs running workers that answer every event. One loop appends events in slices of 5 ms and reads
`recommendations` beside it. Append time: the broker's LogAppendTime of the event's batch; arrival: the wall
clock when the consumer hands the answer over; one answer in `STRIDE` is looked at. Prints JSON: percentiles
in ms, the rate reached, and the answers that never came.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition

from stream.clients import aiokafka_config
from stream.producers import Message, new_producer, send_all
from stream.settings import Settings, load_settings
from tests.bench.workload import Workload, message

SLICE_S = 0.005
STRIDE = 4
GRACE_S = 30.0


class Answer(msgspec.Struct, gc=False):
    """What is looked at of a recommendation: the record that it answers."""

    partition: int
    offset: int


class Meter:
    """Append times by partition and offset, arrivals likewise."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.appended: dict[int, tuple[list[int], list[int]]] = {
            n: ([], []) for n in range(settings.partitions)
        }
        """by partition: (first offset of each batch, its LogAppendTime in ms), increasing"""
        self.arrived: list[tuple[int, int, float]] = []
        """(partition, offset, ms)"""
        self.sent = 0
        self.answers = 0

    async def produce(self, rate: float, seconds: float, seed: int) -> None:
        """Append events at the rate; returns when all are confirmed."""
        settings, workload = self.settings, Workload()
        user, item = workload.draw(round(rate * seconds), seed)
        home = workload.home(settings.partitions)[user].tolist()
        columns = list(zip(home, user.tolist(), item.tolist(), strict=True))
        producer = new_producer(settings)
        await producer.start()
        confirmed: list[asyncio.Task[None]] = []
        try:
            started, done = time.monotonic(), 0
            while done < len(columns):
                due = min(round((time.monotonic() - started + SLICE_S) * rate), len(columns))
                by_partition: dict[int, list[Message]] = {}
                at = time.time_ns() // 1_000_000
                for number, who, what in columns[done:due]:
                    by_partition.setdefault(number, []).append(message(who, what, at))
                for number, messages in by_partition.items():
                    for future in await send_all(producer, settings.topics.events, number, messages):
                        confirmed.append(asyncio.create_task(self._confirm(number, future)))
                done = due
                await asyncio.sleep(max(0.0, started + done / rate - time.monotonic()))
            await asyncio.gather(*confirmed)
            self.sent = done
        finally:
            await producer.stop()

    async def _confirm(self, number: int, future: asyncio.Future[object]) -> None:
        batch = await future
        offsets, times = self.appended[number]
        offsets.append(batch.offset)  # type: ignore[attr-defined]
        times.append(batch.timestamp)  # type: ignore[attr-defined]

    async def consume(self, ready: asyncio.Event) -> None:
        """Note arrivals until cancelled."""
        decode = msgspec.json.Decoder(Answer).decode
        consumer = AIOKafkaConsumer(
            **aiokafka_config(self.settings), enable_auto_commit=False, fetch_max_wait_ms=50
        )
        await consumer.start()
        try:
            topic = self.settings.topics.recommendations
            tps = [TopicPartition(topic, number) for number in range(self.settings.partitions)]
            consumer.assign(tps)
            await consumer.seek_to_end(*tps)
            ready.set()
            while True:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    at = time.time() * 1000
                    self.answers += len(records)
                    for record in records:
                        if record.offset % STRIDE == 0:
                            answer = decode(record.value)
                            self.arrived.append((answer.partition, answer.offset, at))
        finally:
            await consumer.stop()

    def delays(self, seconds: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """ms of the answers to events appended in the last `seconds`; an event's first answer counts."""
        first = max(times[-1] for _, times in self.appended.values() if times) - seconds * 1000
        known = {n: (np.array(o), np.array(t)) for n, (o, t) in self.appended.items()}
        found: dict[tuple[int, int], float] = {}
        for partition, offset, at in self.arrived:
            offsets, times = known[partition]
            place = int(np.searchsorted(offsets, offset, side="right")) - 1
            if place >= 0 and times[place] >= first:
                found.setdefault((partition, offset), at - float(times[place]))
        return np.array(list(found.values()), np.float64)


async def measure(
    settings: Settings, rate: float, warm_s: float, seconds: float, seed: int
) -> dict[str, float]:
    """Percentiles in ms of the steady part, after `warm_s`."""
    meter, ready = Meter(settings), asyncio.Event()
    consuming = asyncio.create_task(meter.consume(ready))
    await ready.wait()
    started = time.monotonic()
    await meter.produce(rate, warm_s + seconds, seed)
    took = time.monotonic() - started
    deadline = (
        time.monotonic() + GRACE_S
    )  # late answers count as well: without them the tail would look short
    while meter.answers < meter.sent and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    consuming.cancel()
    await asyncio.gather(consuming, return_exceptions=True)
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
    bootstrap, prefix, partitions, rate, warm_s, seconds, seed = sys.argv[1:8]
    own = load_settings(bootstrap_servers=bootstrap, topic_prefix=prefix, partitions=int(partitions))
    print(json.dumps(asyncio.run(measure(own, float(rate), float(warm_s), float(seconds), int(seed)))))
