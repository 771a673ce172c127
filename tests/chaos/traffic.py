"""The traffic of a chaos run: events in order, late, too late and re-sent, with and without an event_id,
records that are no events at all, and tombstones in between.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from itertools import count, islice

import numpy as np
from kafka import KafkaProducer

from eddy.stream.kafka.clients import client_config
from eddy.stream.records.partitioner import partition_of
from eddy.stream.records.settings import Settings
from tests.support.engines import item_id

START_MS = 1_380_000_000_000
LATE, RESENT, BAD = 0.05, 0.05, 0.001
ITEMS = 230
MAX_GAP_MS = 2_000
"""The longest time from one event to the next."""


def sends_ids(user: int) -> bool:
    """Whether the events of a user have an event_id. Those of every second user have none: only their offsets
    tell whether they were applied, and one that is re-sent is another event.
    """
    return user % 2 == 0


def traffic(
    events: int, users: int, seed: int, start_ms: int = START_MS, late_share: float = LATE, habit: float = 0.0
) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of each record, of which there are `events`.

    habit: the share of events on the item that follows the user's last one in the catalogue, which is what a
    model can learn of them; the others are on any item.
    """
    rng = np.random.default_rng(seed)
    users_of_events = rng.zipf(1.3, events) % users  # a few users with long histories, many with short ones
    items, gaps, chance = (
        rng.integers(0, ITEMS, events),
        rng.integers(0, MAX_GAP_MS, events),
        rng.random((events, 3)),
    )
    clock, last, last_item = start_ms, dict[int, bytes](), dict[int, int]()
    by_habit = rng.random(events) < habit if habit else np.zeros(events, np.bool_)
    for i in range(events):
        clock += int(gaps[i])
        user = int(users_of_events[i])
        key = f"user-{user}".encode()
        if chance[i, 0] < BAD:
            yield key, b'{"user_id": "user-%d", "item_id": 7}' % user
            continue
        if chance[i, 1] < RESENT and user in last:
            yield key, last[user]
            continue
        late = int(chance[i, 0] * 1e9) if chance[i, 2] < late_share else 0
        rated = i % 3 == 0
        item = (last_item.get(user, 0) + 1) % ITEMS if by_habit[i] else int(items[i])
        last_item[user] = item
        event = {
            "user_id": f"user-{user}",
            "item_id": item_id(item),
            "timestamp": clock - late,
            "event_id": f"event-{seed}-{i}" if sends_ids(user) else None,
            "event_type": "rating" if rated else "view",
            "value": float(items[i] % 10 + 1) if rated else None,
        }
        last[user] = json.dumps(event).encode()
        yield key, last[user]


def endless(
    events: int, users: int, seed: int, late_share: float = LATE, habit: float = 0.0
) -> Iterator[tuple[bytes, bytes]]:
    """The same kind of traffic without end, in parts of so many events: nobody knows how often a test has to
    send some more.
    """
    for part in count():
        start = START_MS + part * events * MAX_GAP_MS
        yield from traffic(events, users, seed + 10_000 * part, start, late_share, habit)


class Feeder:
    """Sends the traffic in slices, in one order per partition, whatever happens to the broker meanwhile."""

    def __init__(self, settings: Settings, events: int, users: int, seed: int) -> None:
        self._settings = settings
        self._producer = KafkaProducer(
            **client_config(settings), acks="all", enable_idempotence=True, delivery_timeout_ms=300_000,
            linger_ms=5, batch_size=128 << 10,
        )  # fmt: skip
        self._random = random.Random(seed)
        self._records = endless(events, users, seed)
        self._users: dict[bytes, None] = {}
        """users who have sent something and are not gone, in the order of their first events"""
        self.sent = 0
        self.gone: set[bytes] = set()
        """users who were erased and never come back"""

    def go_on(self, records: Iterator[tuple[bytes, bytes]]) -> None:
        """Send these records from now on."""
        self._records = records

    def send(self, number: int) -> None:
        """Send so many of the next records, less those of users who are gone; returns when they are
        confirmed.
        """
        records = [record for record in islice(self._records, number) if record[0] not in self.gone]
        self._users.update(dict.fromkeys(key for key, _ in records))
        self._confirmed([(key, value, None) for key, value in records])

    def erase(self) -> None:
        """Three tombstones: for a user who never comes back, for one who may, and for one in another
        partition than theirs, which must erase nothing. Returns when they are confirmed.
        """
        gone, back, spared = self._random.sample(list(self._users), 3)
        del self._users[gone]
        self.gone.add(gone)
        partitions = self._settings.partitions
        home = int(partition_of([spared], partitions, self._settings.partitioner)[0])
        self._confirmed([(gone, None, None), (back, None, None), (spared, None, (home + 1) % partitions)])

    def _confirmed(self, records: Sequence[tuple[bytes, bytes | None, int | None]]) -> None:
        topic = self._settings.topics.events
        futures = [
            self._producer.send(topic, key=key, value=value, partition=partition)
            for key, value, partition in records
        ]
        self._producer.flush()
        for future in futures:
            future.get(timeout=300)
        self.sent += len(futures)

    def close(self) -> None:
        self._producer.close()
