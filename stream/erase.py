"""Erasing a user: a tombstone on `events`, and the date by which nothing of them is left anywhere.

The owner of the partition drops the row and writes tombstones to `user-state` and `recommendations`;
snapshots with the row are discarded, the next export removes the user's events from the event log,
compaction removes what the tombstones cover, and retention the rest (`events`, `dead-letters`).
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from kafka import KafkaProducer
from kafka.errors import KafkaError
from kafka.errors import KafkaTimeoutError as SendTimeoutError

from models.errors import EddyError
from stream.clients import admin_client, client_config
from stream.murmur import murmur2
from stream.settings import Settings
from stream.topics import committed_offsets

_SEND_TIMEOUT_S = 30
_POLL_S = 0.2
SEGMENT_DAYS = 1
"""Retention and compaction work on closed segments; `stream.topics` closes them after a day."""


@dataclass(frozen=True)
class Erased:
    """What was done."""

    partition: int
    offset: int
    """of the tombstone"""
    applied: bool
    """whether a worker has made it durable by now"""
    gone_by: datetime
    """when retention and compaction have removed the last bytes"""


def erase(settings: Settings, user: str, wait_s: float = 15) -> Erased:
    """Write the tombstone and wait up to `wait_s` for a worker to apply it. Errors: EddyError."""
    if not user:
        raise EddyError("erase: the user id is empty")
    topic = settings.topics.events
    key = user.encode()
    partition = int(murmur2([key])[0] % settings.partitions)
    try:
        producer = KafkaProducer(**client_config(settings), acks="all")
        try:
            sent = producer.send(topic, key=key, value=None, partition=partition).get(timeout=_SEND_TIMEOUT_S)
        finally:
            producer.close()
    except (KafkaError, SendTimeoutError, OSError) as error:
        raise EddyError(f"erase: {topic} took no tombstone ({type(error).__name__}): {error}") from None
    days = max(settings.events_retention_days, settings.recommendations_retention_days)
    gone_by = datetime.now(UTC) + timedelta(days=days + SEGMENT_DAYS)
    return Erased(partition, sent.offset, _applied(settings, partition, sent.offset, wait_s), gone_by)


def _applied(settings: Settings, partition: int, offset: int, wait_s: float) -> bool:
    """Whether the workers' committed offset passes the tombstone in time."""
    deadline = time.monotonic() + wait_s
    with admin_client(settings) as admin:
        while True:
            with suppress(KafkaError):  # a cluster that has seen no group yet has no coordinator for it
                offsets = committed_offsets(admin, settings.group, settings.topics.events)
                if offsets.get(partition, -1) > offset:
                    return True
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
