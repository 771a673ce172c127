"""Users that have rows before anything is measured, and events of theirs at a steady rate.

Rows are written straight into `user-state`, as a worker would have left them: of the live version, in their
users' partitions, with windows of about 20 events, as of the first record of their partition of `events`. So
a million users are there within a minute, without an event of theirs being applied.
"""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from confluent_kafka import Producer
from numpy.typing import NDArray

from eddy.models.errors import EddyError
from eddy.models.registry import Version
from eddy.stream.kafka.clients import admin_client
from eddy.stream.kafka.producers import new_producer, send_all
from eddy.stream.kafka.topics import topic_ids
from eddy.stream.records.partitioner import partition_of
from eddy.stream.records.settings import Settings
from eddy.stream.state.rows import keyed
from tests.bench.background import meanwhile
from tests.bench.window_rows import first_rows, window_rows
from tests.bench.workload import message, user_id

SLICE_S = 0.01
FLUSH_S = 60.0
_BLOCK = 5_000
_AGE_MS = 3_600_000
"""How long ago the windows' last events were."""


@dataclass(frozen=True)
class Crowd:
    """Users by their partition."""

    users: list[NDArray[np.int64]]
    """the numbers of each partition's users"""
    items: int

    @classmethod
    def of(cls, rows: int, partitions: int, items: int) -> "Crowd":
        """The users 0 … rows - 1."""
        home = partition_of([user_id(number).encode() for number in range(rows)], partitions)
        return cls([np.flatnonzero(home == partition) for partition in range(partitions)], items)

    def events(self, seed: int) -> Iterator[tuple[int, int, int]]:
        """(partition, user, item) of one event after another, without end: partitions take turns, users and
        items are drawn evenly.
        """
        rng, partitions = np.random.default_rng(seed), len(self.users)
        while True:
            drawn = [rng.choice(users, _BLOCK).tolist() for users in self.users]
            items = iter(rng.integers(0, self.items, _BLOCK * partitions).tolist())
            for of_partitions in zip(*drawn, strict=True):
                for partition, user in enumerate(of_partitions):
                    yield partition, user, next(items)


async def write_rows(settings: Settings, crowd: Crowd, version: Version) -> None:
    """Append a first event to each partition of `events`, and all users' rows as of it to `user-state`;
    returns when all are confirmed.
    """
    with admin_client(settings) as admin:
        topic_id = topic_ids(admin, [settings.topics.events])[settings.topics.events].bytes
    last_ms = time.time_ns() // 1_000_000 - _AGE_MS
    block = window_rows(_BLOCK, version, topic_id, last_ms, crowd.items)
    producer = new_producer(settings)
    await producer.start()
    try:
        for partition, users in enumerate(crowd.users):
            first = message(int(users[0]), 0, last_ms)
            futures = await send_all(producer, settings.topics.events, partition, [first])
            for start in range(0, len(users), _BLOCK):
                keys = [user_id(number).encode() for number in users[start : start + _BLOCK].tolist()]
                rows = replace(first_rows(block, len(keys)), user=keys)
                rows.partition[:] = partition
                futures += await send_all(producer, settings.topics.user_state, partition, keyed(rows))
            await asyncio.gather(*futures)
    finally:
        await producer.stop()


class Appender:
    """Appends a crowd's events, from one thread at a time; through librdkafka, as `freshness` does."""

    def __init__(self, settings: Settings, crowd: Crowd, seed: int = 1) -> None:
        self._topic, self._events = settings.topics.events, crowd.events(seed)
        self._producer = Producer(
            {
                "bootstrap.servers": settings.bootstrap_servers,
                "compression.type": "snappy",
                "linger.ms": 5,
                "queue.buffering.max.messages": 1_000_000,
            }
        )
        self._producer.list_topics(self._topic)  # connected before anything is measured

    def append(self, n: int) -> None:
        """Hand over the next n events."""
        at = time.time_ns() // 1_000_000
        for partition, user, item in islice(self._events, n):
            key, value = message(user, item, at)
            self._producer.produce(self._topic, value, key, partition)
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until all are confirmed. Errors: EddyError."""
        if self._producer.flush(FLUSH_S):
            raise EddyError("the cluster did not confirm all events")

    @contextmanager
    def steady(self, rate: float) -> Iterator[None]:
        """Append so many events per second as long as the block lasts."""

        def run(ended: threading.Event) -> None:
            started, sent = time.monotonic(), 0
            while not ended.wait(SLICE_S):
                due = int((time.monotonic() - started) * rate)
                self.append(due - sent)
                sent = due

        with meanwhile(run):
            yield
        self.flush()
