"""The reading side of `eddy ingest`: a member of a consumer group that knows, when it takes partitions over,
which of their records are in `events` already.

Synchronous, and all of it on one thread. Guarantee: what `events` returns is neither in `events` by a writer
that died before its commit, nor left out; see stream.ingest for the one exception.
"""

import logging
import time
from collections.abc import Sequence
from typing import TypeAlias

import msgspec
from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import CommitFailedError, RebalanceInProgressError

from stream.clients import client_config
from stream.clock import wall_ms
from stream.dead_letters import Letter, dead_letter
from stream.decoding import Unreadable, decoded
from stream.events import Rejected
from stream.mapping import FieldMap, Unmappable
from stream.schema import Event
from stream.settings import Settings

log = logging.getLogger("eddy.ingest")

Polled: TypeAlias = dict[TopicPartition, list[ConsumerRecord]]
"""Records by partition of the source, in offset order."""

BATCH_RECORDS = 5_000
"""Records read, written and committed at once, and so what a crash can leave in doubt."""

_POLL_MS = 200
_RECOMMIT_S = 60.0
"""A quiet source is committed again this often, so that the tail of `events` to read stays short."""

_CLOCK_MARGIN_MS = 60_000
"""By how much the clocks of hosts and brokers may differ."""

_decode_event = msgspec.json.Decoder(Event).decode
_LOST = (CommitFailedError, RebalanceInProgressError)


def group_of(settings: Settings, topic: str) -> str:
    """The consumer group that ingests this topic."""
    return f"{settings.group}-ingest-{topic}"


class Source(ConsumerRebalanceListener):  # type: ignore[misc]
    """See the module. Partitions gained inside `poll` are looked into before it returns."""

    def __init__(self, settings: Settings, topic: str, topic_id: str, fields: FieldMap) -> None:
        self.settings, self.topic, self.topic_id, self.fields = settings, topic, topic_id, fields
        self._gained: set[TopicPartition] = set()
        self._in_doubt: dict[int, int] = {}
        """by partition: how many of the next records may be in `events` already"""
        self._written: set[tuple[str, str]] = set()
        self._consumer = KafkaConsumer(
            **client_config(settings),
            group_id=group_of(settings, topic),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            max_poll_records=BATCH_RECORDS,
            session_timeout_ms=round(settings.session_timeout_s * 1000),
            heartbeat_interval_ms=round(settings.session_timeout_s * 250),
        )
        numbers = self._consumer.partitions_for_topic(topic) or ()
        self._ends = self._consumer.end_offsets([TopicPartition(topic, number) for number in numbers])
        self._consumer.subscribe([topic], listener=self)
        self._committed_at = time.monotonic()

    def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        """Nothing to do: `poll` is only called when everything before is written and committed."""

    def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        """Only noted: the client would swallow an error here."""
        self._gained.update(assigned)

    def poll(self) -> Polled:
        """The next records, none if there are none now."""
        polled: Polled = self._consumer.poll(timeout_ms=_POLL_MS)
        try:
            self._look_into_gained()
        except _LOST:
            self.rejoin()
            return {}
        return polled

    def _look_into_gained(self) -> None:
        since: list[int] = []
        for tp in sorted(self._gained & self._consumer.assignment()):
            committed = self._consumer.committed(tp, metadata=True)
            if committed is None:  # a first commit before the first write: from then on the time is known
                start = self._consumer.beginning_offsets([tp])[tp]
                self._consumer.commit({tp: OffsetAndMetadata(start, str(wall_ms()))})
            else:
                since.append(int(committed.metadata or 0) - _CLOCK_MARGIN_MS)
                self._in_doubt[tp.partition] = BATCH_RECORDS
        self._gained.clear()
        if since:
            self._written |= self._tail_of_events(max(min(since), 0))

    def _tail_of_events(self, since: int) -> set[tuple[str, str]]:
        """(user_id, event_id) of events appended at or after `since` (ms) that may come from this source."""
        topic = self.settings.topics.events
        own = b"" if "event_id" in self.fields.paths else f'"{self.topic_id}:'.encode()
        found: set[tuple[str, str]] = set()
        consumer = KafkaConsumer(**client_config(self.settings), group_id=None, enable_auto_commit=False)
        try:
            tps = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
            consumer.assign(tps)
            end = consumer.end_offsets(tps)
            for tp, start in consumer.offsets_for_times(dict.fromkeys(tps, since)).items():
                consumer.seek(tp, end[tp] if start is None else start.offset)
            while any(consumer.position(tp) < end[tp] for tp in tps):
                for records in consumer.poll(timeout_ms=_POLL_MS).values():
                    for record in records:
                        if record.value is not None and own in record.value:
                            found.update(_name(record.value))
        finally:
            consumer.close()
        return found

    def events(self, polled: Polled) -> tuple[list[Event], list[Letter]]:
        """What records become, in their order; leaves out what is in `events` already."""
        events: list[Event] = []
        letters: list[Letter] = []
        for tp, records in polled.items():
            number, doubt = tp.partition, self._in_doubt.get(tp.partition, 0)
            for i, record in enumerate(records):
                try:
                    event = self.fields.event(record.value, f"{self.topic_id}:{number}:{record.offset}")
                except Unmappable as reason:
                    letters.append(dead_letter(self.topic, number, Rejected(record, str(reason))))
                    continue
                if i >= doubt or (event.user_id, event.event_id) not in self._written:
                    events.append(event)
            self._in_doubt[number] = max(doubt - len(records), 0)
        if not any(self._in_doubt.values()):
            self._written.clear()
        return events, letters

    def commit(self) -> None:
        """Everything polled is durable. Losing partitions is no error: their next owner looks into them."""
        now = str(wall_ms())
        positions = {tp: self._consumer.position(tp) for tp in self._consumer.assignment()}
        try:
            self._consumer.commit({tp: OffsetAndMetadata(at, now) for tp, at in positions.items()})
        except _LOST:
            log.warning("%s: the group is being rebalanced; joining again", self.topic)
            self.rejoin()
        self._committed_at = time.monotonic()

    def commit_if_old(self) -> None:
        """Keep the time in the commit's metadata young while nothing comes."""
        if time.monotonic() - self._committed_at > _RECOMMIT_S:
            self.commit()

    def rejoin(self) -> None:
        """Give all partitions up and go on from the committed offsets of those that come back."""
        self._consumer.unsubscribe()
        self._consumer.subscribe([self.topic], listener=self)

    def at_end(self) -> bool:
        """Whether the group is past all that was there at the start; right after a `poll` that gave nothing.

        Of our partitions the position counts: it passes what retention has removed and the markers of
        transactions, which are nothing to commit.
        """
        ours = self._consumer.assignment()
        return all(
            (self._consumer.position(tp) if tp in ours else self._consumer.committed(tp) or 0) >= end
            for tp, end in self._ends.items()
            if end > 0
        )

    def close(self) -> None:
        """Leave the group at once."""
        self._consumer.close()


def _name(value: bytes) -> list[tuple[str, str]]:
    """(user_id, event_id) of a record of `events`, if it has both."""
    try:
        event = decoded(_decode_event, value)
    except Unreadable:
        return []
    return [(event.user_id, event.event_id)] if event.event_id is not None else []


__all__ = ["BATCH_RECORDS", "Polled", "Source", "group_of"]
