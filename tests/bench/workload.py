"""The workload that every program of the comparison is given: events as JSON, Zipf over users and items, one
seed.

Written with the project's own producer code. Keys are user ids and partitions are those of Kafka's default
partitioner. Event times grow by `STEP_MS` and end now, so that recent events are what a live log would hold.
"""

import asyncio
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eddy.stream.kafka.producers import new_producer, send_all
from eddy.stream.records.messages import Message
from eddy.stream.records.partitioner import partition_of
from eddy.stream.records.settings import Settings
from tests.support.engines import item_id

SEED = 1
STEP_MS = 20
"""Event time from one event to the next: a million events are five and a half hours."""

_AT_ONCE = 20_000


@dataclass(frozen=True)
class Workload:
    """A number of users and of items; how often each occurs follows Zipf's law with exponent 1.0."""

    users: int = 20_000
    items: int = 10_000

    def draw(self, events: int, seed: int = SEED) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """User and item number of each event: int64[n] each. It is random which numbers are popular."""
        rng = np.random.default_rng(seed)
        user, item = rng.permutation(self.users), rng.permutation(self.items)
        return user[_zipf(rng, self.users, events)], item[_zipf(rng, self.items, events)]

    def home(self, partitions: int) -> NDArray[np.int64]:
        """The partition of each user number, by Kafka's default partitioner."""
        keys = [user_id(number).encode() for number in range(self.users)]
        return partition_of(keys, partitions).astype(np.int64)


def _zipf(rng: np.random.Generator, n: int, size: int) -> NDArray[np.int64]:
    """Ranks 0 … n - 1 with probability proportional to 1 / (1 + rank)."""
    cumulative = np.cumsum(1.0 / np.arange(1, n + 1))
    return np.asarray(np.searchsorted(cumulative, rng.random(size) * cumulative[-1]), np.int64)


def user_id(number: int) -> str:
    return f"user-{number}"


def message(user: int, item: int, timestamp: int) -> Message:
    """(key, value) of one event."""
    key = user_id(user)
    value = f'{{"user_id":"{key}","item_id":"{item_id(item)}","timestamp":{timestamp},"event_type":"view"}}'
    return key.encode(), value.encode()


async def write_events(settings: Settings, events: int, workload: Workload, seed: int = SEED) -> None:
    """Append so many events of the workload to the topic as fast as possible; returns when all are
    confirmed.
    """
    user, item = workload.draw(events, seed)
    partition = workload.home(settings.partitions)[user]
    start = time.time_ns() // 1_000_000 - events * STEP_MS
    producer = new_producer(settings)
    await producer.start()
    try:
        for begin in range(0, events, _AT_ONCE):
            chunk = slice(begin, min(begin + _AT_ONCE, events))
            times = range(start + begin * STEP_MS, start + chunk.stop * STEP_MS, STEP_MS)
            by_partition: list[list[Message]] = [[] for _ in range(settings.partitions)]
            columns = zip(
                partition[chunk].tolist(), user[chunk].tolist(), item[chunk].tolist(), times, strict=True
            )
            for home, user_number, item_number, time_ms in columns:
                by_partition[home].append(message(user_number, item_number, time_ms))
            futures = []
            for number, messages in enumerate(by_partition):
                futures += await send_all(producer, settings.topics.events, number, messages)
            await asyncio.gather(*futures)
    finally:
        await producer.stop()
