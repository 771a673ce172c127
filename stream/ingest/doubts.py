"""What an earlier owner of a partition of the source may have written to `events` and not committed: which
records that can be, and which of them are there.

Only the names of the records in doubt are kept in memory, whose number is bounded, not those of all that is
in `events` since the last commit: where somebody has set a group's offsets back by hand, that can be
everything.
"""

import logging
from collections.abc import Set
from dataclasses import dataclass

import msgspec
from kafka import TopicPartition

from eddy.models.untrusted import Unreadable, decoded
from eddy.stream.ingest.mapping import FieldMap, Unmappable
from eddy.stream.kafka.clients import new_consumer, records_to_end
from eddy.stream.records.schema import Event
from eddy.stream.records.settings import Settings

log = logging.getLogger("eddy.ingest")

Name = tuple[str, str]
"""(user_id, event_id) of an event"""

_CLOCK_MARGIN_MS = 60_000
"""By how much the clocks of hosts and brokers may differ."""

_decode_event = msgspec.json.Decoder(Event).decode


@dataclass
class Doubt:
    """The records of a partition that are in doubt."""

    since_ms: int
    """when they can have been written first: after the last commit, or after they came into the source where
    somebody has set its offset by hand; commits keep this time until the doubt is over, so that whoever takes
    the partition over after one more crash looks as far back
    """
    records: int
    """at most so many of the next records"""
    end: int
    """none from this offset on: the source ended there when the partition was taken over"""


@dataclass(frozen=True)
class SourceTopic:
    """The topic that is ingested, and what its records mean."""

    settings: Settings
    name: str
    id: str
    fields: FieldMap

    def event(self, partition: int, offset: int, value: bytes | None) -> Event:
        """The event of a record. Errors: Unmappable."""
        return self.fields.event(value, f"{self.id}:{partition}:{offset}")

    def doubt(
        self, tp: TopicPartition, start: int, most: int, since_ms: int | None
    ) -> tuple[Doubt, set[Name]]:
        """The doubt about at most so many records of a partition from an offset on, and their names.
        since_ms: when it was committed; None where somebody has set the offset by hand.
        """
        names, came = set[Name](), set[int]()
        consumer = new_consumer(
            self.settings,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )
        try:
            consumer.assign([tp])
            end = consumer.end_offsets([tp])[tp]
            consumer.seek(tp, start)
            for number, record in enumerate(records_to_end(consumer, {tp: end})):
                if number == most:
                    break
                try:
                    event = self.event(tp.partition, record.offset, record.value)
                except Unmappable:
                    continue
                if event.event_id is not None:
                    names.add((event.user_id, event.event_id))
                    came.add(max(record.timestamp, 0))
        finally:
            consumer.close()
        return Doubt(min(came, default=0) if since_ms is None else since_ms, most, end), names

    def written(self, names: Set[Name], since_ms: int) -> set[Name]:
        """Those of these events that are in `events` since a time, ms."""
        topic = self.settings.topics.events
        marker = b"" if "event_id" in self.fields.paths else f'"{self.id}:'.encode()
        found = set[Name]()
        consumer = new_consumer(self.settings, group_id=None, enable_auto_commit=False)
        try:
            tps = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
            consumer.assign(tps)
            end = consumer.end_offsets(tps)
            since = max(since_ms - _CLOCK_MARGIN_MS, 0)
            for tp, start in consumer.offsets_for_times(dict.fromkeys(tps, since)).items():
                consumer.seek(tp, end[tp] if start is None else start.offset)
            for record in records_to_end(consumer, end):
                if record.value is not None and marker in record.value:
                    found |= names & _name(record.value)
        finally:
            consumer.close()
        log.info("%s: %d of %d records in doubt are in %s", self.name, len(found), len(names), topic)
        return found


def _name(value: bytes) -> set[Name]:
    """The name of a record of `events`, as a set of one; empty where it has no event_id."""
    try:
        event = decoded(_decode_event, value)
    except Unreadable:
        return set()
    return {(event.user_id, event.event_id)} if event.event_id is not None else set()
