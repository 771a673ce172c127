"""The events that the workers live through: in order, late, too late, re-sent, and some that are no
events at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
from kafka import KafkaProducer

from stream.clients import client_config
from stream.settings import Settings
from tests.engines import item_id

START_MS = 1_380_000_000_000
LATE, RESENT, BAD = 0.05, 0.05, 0.001


def traffic(events: int, users: int, seed: int) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of each record: `events` of them in all."""
    rng = np.random.default_rng(seed)
    who = rng.zipf(1.3, events) % users  # a few users with long histories, many with short ones
    items, gaps, chance = rng.integers(0, 230, events), rng.integers(0, 2000, events), rng.random((events, 3))
    clock, last = START_MS, dict[int, bytes]()
    for i in range(events):
        clock += int(gaps[i])
        user = int(who[i])
        key = f"user-{user}".encode()
        if chance[i, 0] < BAD:
            yield key, b'{"user_id": "user-%d", "item_id": 7}' % user
            continue
        if chance[i, 1] < RESENT and user in last:
            yield key, last[user]
            continue
        late = int(chance[i, 0] * 1e9) if chance[i, 2] < LATE else 0
        rated = i % 3 == 0
        event = {
            "user_id": f"user-{user}",
            "item_id": item_id(int(items[i])),
            "timestamp": clock - late,
            "event_id": f"event-{i}",
            "event_type": "rating" if rated else "view",
            "value": float(items[i] % 10 + 1) if rated else None,
        }
        last[user] = json.dumps(event).encode()
        yield key, last[user]


class Feeder:
    """Sends the traffic in slices, in one order per partition, whatever happens to the broker meanwhile."""

    def __init__(self, settings: Settings, events: int, users: int, seed: int) -> None:
        self._topic = settings.topics.events
        self._producer = KafkaProducer(
            **client_config(settings), acks="all", enable_idempotence=True, delivery_timeout_ms=300_000,
            linger_ms=5, batch_size=128 << 10,
        )  # fmt: skip
        self._records = traffic(events, users, seed)
        self.sent = 0

    def send(self, count: int) -> None:
        """Send the next records and return when they are confirmed."""
        futures = []
        for (key, value), _ in zip(self._records, range(count), strict=False):
            futures.append(self._producer.send(self._topic, key=key, value=value))
        self._producer.flush()
        for future in futures:
            future.get(timeout=300)
        self.sent += len(futures)

    def close(self) -> None:
        self._producer.close()
