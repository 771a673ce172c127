"""The reading side of `eddy ingest`: a member of a consumer group that knows, when it takes partitions over,
which of their records are in `events` already.

It is synchronous and used from one thread. Guarantee: `map_records` returns the events of all records, except
those that a process wrote to `events` before it died without a commit; see eddy.stream.ingest.ingest for the
one exception.

A topic of which nothing can be mapped was most likely misunderstood: `--map` is wrong, or it is not JSON.
Therefore the first records that a group ever reads are held back, neither written nor committed, until one of
them can be mapped. A note beside the group's committed offsets says whether that is so, so a restarted
process keeps to the rule.
"""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from kafka import ConsumerRebalanceListener, OffsetAndMetadata, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import CommitFailedError, RebalanceInProgressError

from eddy.models.errors import EddyError
from eddy.stream.ingest.doubts import Doubt, Name, SourceTopic
from eddy.stream.ingest.mapping import FieldMap, Unmappable
from eddy.stream.kafka.clients import new_consumer
from eddy.stream.records.clock import wall_ms
from eddy.stream.records.dead_letters import Letter, dead_letter
from eddy.stream.records.decode import Rejected
from eddy.stream.records.schema import Event
from eddy.stream.records.settings import Settings

log = logging.getLogger("eddy.ingest")

Polled: TypeAlias = dict[TopicPartition, list[ConsumerRecord]]
"""Records by partition of the source, in offset order."""

BATCH_RECORDS = 5_000
"""So many records are read, written and committed at once. A crash can leave these in doubt, and the group's
first records, which may have been held back before them.
"""

_POLL_MS = 200
_RECOMMIT_S = 60.0
"""A quiet source is committed again this often, so that the tail of `events` that a successor reads is short.
"""

FIRST_RECORDS = 1_000
"""When none of so many first records of a group can be mapped, ingest stops."""

MOST_IN_DOUBT = FIRST_RECORDS + BATCH_RECORDS
"""So many records of a partition can have been written without a commit."""

_UNPROVEN = " unproven"
"""Stands behind the time in a commit's note while the group has mapped no record. Offsets that somebody sets
by hand come without it, so a user who knows what the first records are can go on behind them.
"""

_LOST = (CommitFailedError, RebalanceInProgressError)


def group_of(settings: Settings, topic: str) -> str:
    """The consumer group that ingests this topic."""
    return f"{settings.group}-ingest-{topic}"


@dataclass(frozen=True)
class Mapped:
    """What became of records."""

    events: list[Event]
    letters: list[Letter]
    known: int
    """how many records were in `events` already"""
    held_back: bool = False
    """whether nothing is to be written or committed yet"""


class Source(ConsumerRebalanceListener):  # type: ignore[misc]
    """See the module. When `poll` gains partitions, it first reads what of them is in `events` already."""

    def __init__(self, settings: Settings, topic: str, topic_id: str, fields: FieldMap) -> None:
        self.settings, self.topic = settings, topic
        self._source = SourceTopic(settings, topic, topic_id, fields)
        self._gained: set[TopicPartition] = set()
        self._doubts: dict[TopicPartition, Doubt] = {}
        self._written: set[Name] = set()
        self._held_back: list[Letter] = []
        """the group's first records, as long as none could be mapped"""
        self._read_again = False
        """whether the next `poll` must go back to the committed offsets"""
        self._consumer = new_consumer(
            settings,
            group_id=group_of(settings, topic),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            max_poll_records=BATCH_RECORDS,
            session_timeout_ms=round(settings.session_timeout_s * 1000),
            heartbeat_interval_ms=round(settings.session_timeout_s * 250),
        )
        self._numbers = sorted(self._consumer.partitions_for_topic(topic) or ())
        self._ends = self._consumer.end_offsets([TopicPartition(topic, number) for number in self._numbers])
        self._proven = self._group_is_proven()
        self._consumer.subscribe([topic], listener=self)
        self._committed_at = time.monotonic()

    def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        """Before each `poll` all records are written and committed, or held back. Those that are held back
        must be read again, since the client goes on where it was with the partitions that it keeps.
        """
        self._read_again = self._read_again or bool(self._held_back)
        self._held_back.clear()

    def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        """Only notes the partitions: the client would swallow an error here."""
        self._gained.update(assigned)

    def poll(self) -> Polled:
        """The next records; empty when there are none now."""
        polled: Polled = self._consumer.poll(timeout_ms=_POLL_MS)
        try:
            self._look_into_gained()
            if self._read_again:
                self._read_again = False
                for tp in self._consumer.assignment():
                    self._consumer.seek(tp, self._consumer.committed(tp) or 0)
                return {}
        except _LOST:
            self.rejoin()
            return {}
        return polled

    def _look_into_gained(self) -> None:
        assignment = self._consumer.assignment()
        gained = sorted(self._gained & assignment)
        self._doubts = {tp: doubt for tp, doubt in self._doubts.items() if tp in assignment}
        names = set[Name]()
        for tp in gained:
            committed = self._consumer.committed(tp, metadata=True)
            if committed is None:  # a first commit before the first write: from then on the time is known
                start = self._consumer.beginning_offsets([tp])[tp]
                self._consumer.commit({tp: OffsetAndMetadata(start, self._note(tp))})
            else:
                since_ms = _committed_ms(committed.metadata)
                doubt, of_records = self._source.doubt(tp, committed.offset, MOST_IN_DOUBT, since_ms)
                if of_records:
                    self._doubts[tp] = doubt
                    names |= of_records
        if names:
            since_ms = min(self._doubts[tp].since_ms for tp in gained if tp in self._doubts)
            self._written |= self._source.written(names, since_ms)
        self._gained.clear()

    def map_records(self, polled: Polled) -> Mapped:
        """The events and dead letters of records, in their order, without those that are in `events` already.

        Errors: EddyError when none of the group's first records could be mapped.
        """
        events: list[Event] = []
        letters: list[Letter] = []
        records_read = sum(map(len, polled.values()))
        for tp, records in polled.items():
            number, doubt = tp.partition, self._doubts.get(tp)
            doubtful = doubt.records if doubt else 0
            for i, record in enumerate(records):
                try:
                    event = self._source.event(number, record.offset, record.value)
                except Unmappable as reason:
                    letters.append(dead_letter(self.topic, number, Rejected(record, str(reason))))
                    continue
                if i >= doubtful or (event.user_id, event.event_id) not in self._written:
                    events.append(event)
            if doubt:
                doubt.records -= len(records)
                if doubt.records <= 0:
                    del self._doubts[tp]
        if not self._doubts:
            self._written.clear()
        known = records_read - len(events) - len(letters)
        self._proven = self._proven or len(letters) < records_read
        if not self._proven:
            return self._hold_back(letters)
        return Mapped(events, self._released() + letters, known)

    # -- a group's first records ------------------------------------------------------------------------

    def _group_is_proven(self) -> bool:
        """Whether a member of the group has mapped a record, or somebody has set its offsets."""
        tps = [TopicPartition(self.topic, number) for number in self._numbers]
        committed = [self._consumer.committed(tp, metadata=True) for tp in tps]
        return any(at is not None and not (at.metadata or "").endswith(_UNPROVEN) for at in committed)

    def _hold_back(self, letters: list[Letter]) -> Mapped:
        if not self._held_back and letters:
            log.warning(
                "%s: none of the first records can be mapped so far (%s); they are neither written nor "
                "committed until one can",
                self.topic, _reason(letters[0]),
            )  # fmt: skip
        self._held_back += letters
        if len(self._held_back) < FIRST_RECORDS:
            return Mapped([], [], 0, held_back=True)
        self._require_proven()
        return Mapped([], self._released(), 0)

    def _released(self) -> list[Letter]:
        released, self._held_back = self._held_back, []
        return released

    def rest_at_end(self) -> Mapped:
        """The records held back, once our partitions are read up to where they ended at the start.

        Errors: EddyError when no member of the group could map any record.
        """
        assigned = self._consumer.assignment()
        if self._held_back and all(self._consumer.position(tp) >= self._ends.get(tp, 0) for tp in assigned):
            self._require_proven()
            return Mapped([], self._released(), 0)
        return Mapped([], [], 0)

    def _require_proven(self) -> None:
        self._proven = self._group_is_proven()  # by another member meanwhile
        if self._proven:
            return
        reasons = Counter(map(_reason, self._held_back))
        ((reason, count),) = reasons.most_common(1)
        group = group_of(self.settings, self.topic)
        raise EddyError(
            f"{self.topic}: none of the first {len(self._held_back)} records can be mapped; {count} of them: "
            f"{reason}. Nothing was written or committed: check --map and --time-unit. If they are right and "
            f"these records are not, set the offsets of group {group} behind them by kafka-consumer-groups"
        )

    # -- commits ----------------------------------------------------------------------------------------

    def _note(self, tp: TopicPartition) -> str:
        """What a commit says beside its offset: the time from which on `events` must be looked through."""
        time_ms = self._doubts[tp].since_ms if tp in self._doubts else wall_ms()
        return f"{time_ms}{'' if self._proven else _UNPROVEN}"

    def commit(self) -> None:
        """Commit: everything polled is durable. Lost partitions are no error: their next owner looks into
        them.
        """
        positions = {tp: self._consumer.position(tp) for tp in self._consumer.assignment()}
        self._doubts = {tp: doubt for tp, doubt in self._doubts.items() if positions.get(tp, 0) < doubt.end}
        try:
            self._consumer.commit({tp: OffsetAndMetadata(at, self._note(tp)) for tp, at in positions.items()})
        except _LOST:
            log.warning("%s: the group is being rebalanced; joining again", self.topic)
            self.rejoin()
        self._committed_at = time.monotonic()

    def commit_if_old(self) -> None:
        """Commit again after a while without records, so that the time in the commit's note stays recent."""
        if not self._held_back and time.monotonic() - self._committed_at > _RECOMMIT_S:
            self.commit()

    def rejoin(self) -> None:
        """Give all partitions up and go on from the committed offsets of those that come back."""
        self._held_back.clear()
        self._consumer.unsubscribe()
        self._consumer.subscribe([self.topic], listener=self)

    def at_end(self) -> bool:
        """Whether the group has read all that was there at the start; call it after an empty `poll`.

        Of our own partitions the position counts, and not the commit: it also passes the records that
        retention has removed and the markers of transactions.
        """
        assigned = self._consumer.assignment()
        return all(
            (self._consumer.position(tp) if tp in assigned else self._consumer.committed(tp) or 0) >= end
            for tp, end in self._ends.items()
            if end > 0
        )

    def close(self) -> None:
        """Leave the group at once."""
        self._consumer.close()


def _reason(letter: Letter) -> str:
    return dict(letter["headers"])["reason"].decode()


def _committed_ms(note: str | None) -> int | None:
    """The time in a commit's note, ms; None for offsets set by hand."""
    time_ms = (note or "").removesuffix(_UNPROVEN)
    return int(time_ms) if time_ms.isascii() and time_ms.isdigit() else None


__all__ = ["BATCH_RECORDS", "FIRST_RECORDS", "Mapped", "Polled", "Source", "group_of"]
