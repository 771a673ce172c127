"""A Kafka cluster in memory: logs with transactions, and what a test can do to those who use it.

| here | as in Kafka |
| --- | --- |
| `append`, `read`, `ends` | offsets; a marker takes one at the end of a transaction; "read_committed" stops at the first open transaction and leaves aborted records out |
| `init_producer` | an epoch per transactional id; a newer producer fences the older one and aborts its transaction |
| `hold` | a call that takes long: it waits until the test lets it go |
| `cut_off` | a process that was killed: no call of its clients ever ends, and what they had begun stays as it is |

Not here: compaction, retention, timeouts of transactions. The group is in `tests.support.memory_group`. A real
broker keeps the same rules: `tests.support.kafka_contract`.
"""  # noqa: E501

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import InvalidProducerEpoch, InvalidProducerIdMapping, KafkaError

from tests.support.records import NOW

Call = Literal["start producer", "produce", "end transaction", "fetch", "commit offsets"]
Record: TypeAlias = "ConsumerRecord[bytes, bytes]"
Headers = Sequence[tuple[str, bytes]]


@dataclass
class Transaction:
    """What becomes of its records is decided when it ends."""

    outcome: Literal["open", "committed", "aborted"] = "open"
    partitions: set[TopicPartition] = field(default_factory=set)


@dataclass(frozen=True)
class Entry:
    """What lies at one offset."""

    record: Record | None
    """None: a marker"""
    transaction: Transaction | None


@dataclass
class Hold:
    """A call that is held back."""

    call: Call
    client: str | None
    topic: str | None
    partition: int | None
    woken: Callable[[], None]
    offset: int = 0
    """fetches from this offset on are held back"""
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def release(self) -> None:
        """Let the call go on, and all that follow it."""
        self.released.set()
        self.woken()

    def meets(
        self, call: Call, client: str, topic: str | None, partition: int | None, offset: int = 0
    ) -> bool:
        """Whether it holds such a call back, of which it takes note."""
        held = (
            self.call == call
            and self.client in (None, client)
            and self.topic in (None, topic)
            and self.partition in (None, partition)
            and self.offset <= offset
            and not self.released.is_set()
        )
        if held:
            self.reached.set()
        return held


class MemoryKafka:
    """All topics have as many partitions as anybody asks for. Clients are known by the name of their process,
    which they give as their `bootstrap_servers`.
    """

    partitions = 4
    """what it says when it is asked for a topic's partitions"""

    def __init__(self) -> None:
        self._logs: defaultdict[TopicPartition, list[Entry]] = defaultdict(list)
        self._epochs: dict[str, int] = {}
        self._forgotten = set[str]()
        self._open: dict[str, Transaction] = {}
        self._holds: list[Hold] = []
        self._cut_off: set[str] = set()
        self._grown = asyncio.Event()
        self.fetched: Counter[str] = Counter()
        """records that were read of each topic, by anybody"""
        self.on_committed: Callable[[Sequence[Record]], None] = lambda _: None
        """called with records as they become readable for everybody"""

    # -- logs -------------------------------------------------------------------------------------------

    def append(
        self,
        tp: TopicPartition,
        messages: Iterable[tuple[bytes | None, bytes | None, Headers]],
        transaction: Transaction | None = None,
    ) -> int:
        """Write messages (key, value, headers); returns the first one's offset."""
        log = self._logs[tp]
        first = len(log)
        for offset, (key, value, headers) in enumerate(messages, first):
            sizes = len(key or b""), len(value or b"")
            record = ConsumerRecord(*tp, offset, NOW, 1, key, value, None, *sizes, headers)
            log.append(Entry(record, transaction))
        if transaction is not None:
            transaction.partitions.add(tp)
        else:
            self.on_committed([entry.record for entry in log[first:] if entry.record is not None])
        self.wake_readers()
        return first

    def end(self, tp: TopicPartition) -> int:
        """The offset after the last entry."""
        return len(self._logs[tp])

    def stable_end(self, tp: TopicPartition) -> int:
        """The offset of the first entry of an open transaction, or else the end."""
        log = self._logs[tp]
        opened = (
            i for i, entry in enumerate(log) if entry.transaction and entry.transaction.outcome == "open"
        )
        return next(opened, len(log)) if self._open else len(log)

    def read(self, tp: TopicPartition, start: int, most: int, committed: bool) -> tuple[list[Record], int]:
        """Up to `most` records from an offset on, and the offset to go on from."""
        position, records, end = start, list[Record](), self.stable_end(tp) if committed else self.end(tp)
        while position < end and len(records) < most:
            entry = self._logs[tp][position]
            aborted = entry.transaction is not None and entry.transaction.outcome == "aborted"
            if entry.record is not None and not (aborted and committed):
                records.append(entry.record)
            position += 1
        self.fetched[tp.topic] += len(records)
        return records, position

    def records(self, topic: str) -> Iterator[Record]:
        """All committed records of a topic, partition by partition."""
        for tp in sorted(tp for tp in self._logs if tp.topic == topic):
            yield from self.read(tp, 0, self.end(tp), committed=True)[0]

    async def grown(self) -> None:
        """Wait until a log has grown, or a reader has to look again."""
        await self._grown.wait()

    def wake_readers(self) -> None:
        """Have those that wait for more look again."""
        self._grown.set()
        self._grown = asyncio.Event()

    # -- transactions -----------------------------------------------------------------------------------

    def init_producer(self, transactional_id: str) -> int:
        """Begin a new epoch of the id; what the one before had begun is aborted."""
        if transactional_id in self._open:
            self._finish(transactional_id, commit=False)
        self._forgotten.discard(transactional_id)
        self._epochs[transactional_id] = self._epochs.get(transactional_id, -1) + 1
        return self._epochs[transactional_id]

    def forget_producer(self, transactional_id: str) -> None:
        """Forget an id of which nothing was heard for a week."""
        self._forgotten.add(transactional_id)

    def transaction(self, transactional_id: str, epoch: int) -> Transaction:
        """The open transaction of the id, or a new one. Errors: InvalidProducerEpoch for an older epoch, and
        what aiokafka makes of a forgotten id.
        """
        if transactional_id in self._forgotten:
            raise KafkaError("Unexpected error during batch delivery") from InvalidProducerIdMapping()
        self._require_epoch(transactional_id, epoch)
        return self._open.setdefault(transactional_id, Transaction())

    def end_transaction(self, transactional_id: str, epoch: int, commit: bool) -> None:
        """Errors: InvalidProducerEpoch for an older epoch; then nothing happens."""
        self._require_epoch(transactional_id, epoch)
        self._finish(transactional_id, commit)

    def _require_epoch(self, transactional_id: str, epoch: int) -> None:
        if epoch != self._epochs[transactional_id]:
            raise InvalidProducerEpoch

    def _finish(self, transactional_id: str, commit: bool) -> None:
        transaction = self._open.pop(transactional_id)
        transaction.outcome = "committed" if commit else "aborted"
        for tp in transaction.partitions:
            log = self._logs[tp]
            if commit:
                written = (entry.record for entry in log if entry.transaction is transaction)
                self.on_committed([record for record in written if record is not None])
            log.append(Entry(None, None))
        self.wake_readers()

    # -- what a test does to clients --------------------------------------------------------------------

    def hold(
        self,
        call: Call,
        client: str | None = None,
        topic: str | None = None,
        partition: int | None = None,
        offset: int = 0,
    ) -> Hold:
        """Hold back such calls, of one process or of all, until the test releases them; of fetches those that
        begin at this offset or behind it.
        """
        self._holds.append(Hold(call, client, topic, partition, self.wake_readers, offset))
        return self._holds[-1]

    def brings_nothing(self, client: str, tp: TopicPartition, offset: int) -> bool:
        """Whether fetches from this offset of a partition on are held back."""
        return any(hold.meets("fetch", client, tp.topic, tp.partition, offset) for hold in self._holds)

    def release_all(self) -> None:
        """Let everything go on that is held back."""
        for hold in self._holds:
            hold.release()

    def cut_off(self, client: str) -> None:
        """Let no call of this process end any more, nor have an effect."""
        self._cut_off.add(client)

    async def called(self, call: Call, client: str, topic: str | None = None) -> None:
        """Every call but a fetch passes here before it has its effect."""
        for hold in self._holds:
            if hold.meets(call, client, topic, None):
                await hold.released.wait()
        if client in self._cut_off:
            await asyncio.Event().wait()
