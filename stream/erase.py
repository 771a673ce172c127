"""Erasing a user: a tombstone on `events`, and the date by which nothing of them is left anywhere.

The partition's owner drops the row, writes tombstones to `user-state` and `recommendations` and discards
snapshots with the row. The next export, or one that follows, removes the user's events from the event log.
Compaction removes the records that the tombstones cover, and later the tombstones. Retention removes the
rest, on `events` and `dead-letters`.
"""

from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from kafka.errors import KafkaTimeoutError as SendTimeoutError

from eddy.models.errors import EddyError
from eddy.models.event_limits import MAX_ID
from eddy.stream.kafka.clients import admin_client, new_consumer, new_sync_producer, records_to_end
from eddy.stream.kafka.security.granted import require_permissions
from eddy.stream.kafka.topics import TOMBSTONE_DAYS, committed_offsets, require_topics
from eddy.stream.kafka.waiting import wait_until
from eddy.stream.records.partitioner import partition_of
from eddy.stream.records.settings import Settings

_SEND_TIMEOUT_S = 30
_POLL_S = 0.2
SEGMENT_DAYS = 1
"""Retention and compaction wait for a segment to close; `eddy.stream.kafka.topics` closes each after a
day.
"""

COMPACTED_DAYS = SEGMENT_DAYS + 1 + TOMBSTONE_DAYS
"""The age at which the tombstone on a compacted topic, which names the user, is gone: its segment is
closed, then compacted within a day, and from then on the tombstone is kept for readers that were away.
"""


@dataclass(frozen=True)
class Erased:
    """What an erasure has done."""

    partition: int
    offset: int
    """the tombstone's"""
    applied: bool
    """whether a worker has made the erasure durable by now"""
    gone_by: datetime
    """the time by which retention and compaction have removed the last bytes"""


def erase(settings: Settings, user: str, wait_s: float = 15) -> Erased:
    """Write the tombstone and wait up to `wait_s` for a worker to apply it.

    Errors: EddyError, also when the workers did not take the tombstone for an erasure.
    """
    # 1. Write the tombstone to the user's own partition, and remember where `user-state` ended before.
    key = key_of(user)
    partition = int(partition_of([key], settings.partitions, settings.partitioner)[0])
    with admin_client(settings) as admin:
        require_permissions(admin, settings, "erase")
        require_topics(admin, [settings.topics.events])
    row = _Row(settings, key, partition)
    try:
        state_end = row.end()
        offset = _send_tombstone(settings, key, partition)
    except (KafkaError, SendTimeoutError, OSError) as error:
        raise EddyError(
            f"erase: {settings.topics.events} took no tombstone ({type(error).__name__}): {error}"
        ) from None
    # 2. Wait for a worker's commit, and check that it has erased the row.
    at = f"partition {partition}, offset {offset}"
    try:
        applied = _applied(settings, partition, offset, wait_s)
        if applied and not row.erased(since=state_end):
            raise EddyError(
                f"erase: the workers took the tombstone ({at}) for no erasure, and nothing of {user} was "
                f"erased; {settings.topics.dead_letters} has the reason: are EDDY_PARTITIONS and "
                "EDDY_PARTITIONER here those of the workers?"
            )
    except (KafkaError, OSError) as error:
        raise EddyError(
            f"erase: the tombstone is written ({at}), but whether a worker has applied it is not known "
            f"({type(error).__name__}: {error}); run it again"
        ) from None
    # 3. Say when the last bytes are gone.
    return Erased(partition, offset, applied, gone_by(settings))


def gone_by(settings: Settings) -> datetime:
    """The time by which nothing is left of a user whose tombstone is written now: when the topic that keeps
    its records for longest has removed them.
    """
    days = max(settings.events_retention_days, settings.recommendations_retention_days, COMPACTED_DAYS)
    return datetime.now(UTC) + timedelta(days=days + SEGMENT_DAYS)


def _send_tombstone(settings: Settings, key: bytes, partition: int) -> int:
    """Write the tombstone; returns its offset. Errors: EddyError when `events` has another partition
    count.
    """
    topic = settings.topics.events
    with closing(new_sync_producer(settings)) as producer:
        actual = len(producer.partitions_for(topic) or ())
        if actual != settings.partitions:
            raise EddyError(
                f"erase: {topic} has {actual} partitions, {settings.partitions} are expected, so the user's "
                f"would not be found: set EDDY_PARTITIONS={actual}"
            )
        sent = producer.send(topic, key=key, value=None, partition=partition)
        return int(sent.get(timeout=_SEND_TIMEOUT_S).offset)


def key_of(user: str) -> bytes:
    """The key of a user's tombstone. Errors: EddyError for a text that cannot be a user_id."""
    if not 1 <= len(user) <= MAX_ID:
        raise EddyError(f"erase: a user id has 1 to {MAX_ID} characters, this one {len(user)}")
    try:
        return user.encode()
    except UnicodeEncodeError:
        raise EddyError("erase: the user id is not UTF-8, so no user can have it") from None


def _applied(settings: Settings, partition: int, offset: int, wait_s: float) -> bool:
    """Whether the workers' committed offset passes the tombstone within `wait_s`."""
    with admin_client(settings) as admin:

        def committed() -> bool:
            with suppress(KafkaError):  # a cluster that has seen no group yet has no coordinator for it
                offsets = committed_offsets(admin, settings.group, settings.topics.events)
                return offsets.get(partition, -1) > offset
            return False

        return wait_until(committed, wait_s, _POLL_S)


class _Row:
    """Reads what `user-state` says of a user."""

    def __init__(self, settings: Settings, key: bytes, partition: int) -> None:
        self._settings, self._key = settings, key
        self._tp = TopicPartition(settings.topics.user_state, partition)

    def _consumer(self) -> KafkaConsumer:
        # It reads uncommitted records, too: the marker that makes a transaction's records committed may come
        # to the partition later than the worker's offset, which it commits only after the transaction.
        return new_consumer(self._settings, group_id=None, enable_auto_commit=False)

    def end(self) -> int:
        """The end offset of the partition now; 0 before the topic exists."""
        with closing(self._consumer()) as consumer:
            if self._tp.partition not in (consumer.partitions_for_topic(self._tp.topic) or ()):
                return 0
            return int(consumer.end_offsets([self._tp])[self._tp])

    def erased(self, since: int) -> bool:
        """Whether a worker has written a tombstone for the user at this offset or after it."""
        with closing(self._consumer()) as consumer:
            consumer.assign([self._tp])
            consumer.seek(self._tp, since)
            records = records_to_end(consumer, consumer.end_offsets([self._tp]))
            return any(record.key == self._key and record.value is None for record in records)
