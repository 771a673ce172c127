"""A whole installation of Eddy in memory: real workers on a cluster and a group in memory, on which a test
brings about what it likes in milliseconds. What Eddy promises is checked at every write and every commit, and
`require_promises` has the judge of the chaos runs look at all that is left in the end.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import msgspec
from aiokafka import TopicPartition

from eddy.models.registry import Version
from eddy.stream.engine.engine import Engine
from eddy.stream.kafka import producers, reader
from eddy.stream.records.decode import decode_events
from eddy.stream.records.messages import Message
from eddy.stream.records.partitioner import partition_of
from eddy.stream.records.schema import Announcement, DictionaryEntry, Recommendation, encode
from eddy.stream.records.settings import Settings
from eddy.stream.records.trace_context import Headers
from eddy.stream.state.rows import decode_rows
from eddy.stream.tracing import Tracer
from tests.chaos.cluster import Cluster
from tests.chaos.traffic import endless
from tests.chaos.verify import Verdict, verify
from tests.support.engines import TOPIC_ID
from tests.support.memory_clients import MemoryConsumer, MemoryProducer
from tests.support.memory_group import Coordinator, Member
from tests.support.memory_kafka import MemoryKafka, Record

PARTITIONS = 4
ALL = frozenset(range(PARTITIONS))
USERS = 25
NO_OFFSET = -1

FIRST_LOOK_S, LAST_LOOK_S = 0.01, 0.1
"""Seconds of the leaping clock between the first two looks at a condition that is awaited, and at most: an
interval between two checkpoints would pass in no time, but for these looks.
"""

COLLECT_EVERY = 10
"""Stages after which garbage is collected: engines are few objects and many megabytes, so that Python would
wait for long. It takes a tenth of the time of a test.
"""

_ENDED = count(1)

_decode_name = msgspec.json.Decoder(DictionaryEntry).decode
_decode_answer = msgspec.json.Decoder(Recommendation).decode


class MemoryStage:
    """One installation; made by `memory_stage`."""

    def __init__(self, folder: Path, version: Version) -> None:
        self.kafka, self.group = MemoryKafka(), Coordinator()
        self.folder = folder
        self.settings = Settings(
            bootstrap_servers="nobody", registry=version.location.parent, cache_dir=folder,
            partitions=PARTITIONS, k=3, threads=1, prequential_sample=0.0, device="cpu", precision="float32",
        )  # fmt: skip
        self.announced: list[Version] = []
        self._traffic = endless(500, USERS, seed=1)
        self._started = 0
        self._due: dict[int, list[tuple[int, str, bool]]] = {number: [] for number in ALL}
        """by partition: offset and user of each accepted record, and whether it erases the user"""
        self._rows: dict[str, tuple[int, int]] = {}
        """by user: offset and epoch of the newest row"""
        self._answered: dict[str, int] = {}
        self._items = set[str]()
        """that events name"""
        self.broken: list[str] = []
        """promises that a write or a commit has broken"""
        self.kafka.on_committed = self._note_readable
        self.group.on_commit = self._check_commit
        self.announce(version)

    # -- what happens outside ---------------------------------------------------------------------------

    def announce(self, version: Version) -> None:
        """Make a version the live one."""
        self.announced.append(version)
        epoch = len(self.announced)
        value = encode(Announcement(epoch, version.id, str(version.path), 0))
        for key in (b"epoch-%d" % epoch, b"live"):
            self.kafka.append(TopicPartition(self.settings.topics.model_versions, 0), [(key, value, ())])

    def produce(self, events: int) -> None:
        """Write so many records to `events`: in order, late, too late, re-sent, and some that are none."""
        self.send(islice(self._traffic, events))

    def send(self, messages: Iterable[Message], headers: Headers | None = None) -> None:
        """Write records to `events`, all with these headers."""
        messages = list(messages)
        homes = partition_of([key or b"" for key, _ in messages], PARTITIONS).tolist()
        for number in sorted(set(homes)):
            sent = [
                (*message, headers or [])
                for message, home in zip(messages, homes, strict=True)
                if home == number
            ]
            self.kafka.append(TopicPartition(self.settings.topics.events, number), sent)

    def fence(self, *numbers: int) -> None:
        """Have another process fence whoever owns the partitions."""
        for number in numbers:
            self.kafka.init_producer(f"{self.settings.group}-{number}")

    def forget(self, *numbers: int) -> None:
        """Have the cluster forget whoever owns the partitions, as if nothing had come for a week."""
        for number in numbers:
            self.kafka.forget_producer(f"{self.settings.group}-{number}")

    # -- workers ----------------------------------------------------------------------------------------

    async def start(self, name: str, tracer: Tracer | None = None, **settings: Any) -> Member:
        """Start a worker that owns nothing yet. One that is started again under its name finds its files."""
        self._started += 1
        client = f"{name}-{self._started}"
        folder = self.folder / name
        values = {"bootstrap_servers": client, "cache_dir": folder, **settings}
        member = Member(name, client, self.kafka, self.group)
        await member.start(self.settings.model_copy(update=values), TOPIC_ID, tracer)
        return member

    async def start_owner(self, name: str, tracer: Tracer | None = None, **settings: Any) -> Member:
        """Start a worker that is given all partitions."""
        member = await self.start(name, tracer, **settings)
        await self.rebalance(**{name: ALL})
        return member

    async def rebalance(self, **assignment: Iterable[int]) -> None:
        """A rebalance that gives the named workers these partitions."""
        await self.group.rebalance({name: set(numbers) for name, numbers in assignment.items()})

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until the condition holds. Errors: the first broken promise, or what a worker failed with."""
        pause_s = FIRST_LOOK_S
        while True:
            assert not self.broken, self.broken[0]
            for member in list(self.group.members.values()):
                if member.worker.background.failed.done():
                    member.worker.background.failed.result()
            if condition():
                return
            await asyncio.sleep(pause_s)
            pause_s = min(1.25 * pause_s, LAST_LOOK_S)

    async def until_durable(self) -> None:
        """Wait until everything that is on `events` is committed, and every row is of the newest epoch."""
        epoch = len(self.announced)
        await self.until(
            lambda: (
                self.committed() == self.ends(self.settings.topics.events, PARTITIONS)
                and all(row[1] == epoch for row in self._rows.values())
            )
        )

    async def make_durable(self, events: int) -> None:
        """Write so many records, and wait until they are durable."""
        self.produce(events)
        await self.until_durable()

    async def require_promises(self) -> Verdict:
        """Wait until all is durable; then everything in the cluster must be as if nothing had happened."""
        await self.until_durable()
        swapped = len(self.announced) > 1
        verdict = verify(cast(Cluster, self), self.announced[-1], TOPIC_ID, len(self.announced), swapped)
        verdict.must(self._items <= self._named(), "every item that a row may hold has its name on items")
        assert [*self.broken, *verdict.problems] == []
        assert (verdict.missing, verdict.doubled) == (0, 0)
        return verdict

    def _named(self) -> set[str]:
        names = self.kafka.records(self.settings.topics.items)
        named = {_decode_name(record.value).item_id for record in names if record.value is not None}
        return named.union(*(version.vocabulary.items for version in self.announced))

    async def pass_time(self, seconds: float) -> None:
        """Let so much time pass, of which the leaping clock needs none."""
        await asyncio.sleep(seconds)

    # -- the cluster as the judge sees it: `tests.chaos.cluster.Cluster` ----------------------------------

    def read(self, topic: str, partitions: int) -> Iterator[Record]:
        return self.kafka.records(topic)

    def ends(self, topic: str, partitions: int) -> dict[int, int]:
        return {number: self.kafka.end(TopicPartition(topic, number)) for number in range(partitions)}

    def committed(self) -> dict[int, int]:
        return dict.fromkeys(ALL, 0) | self.group.committed

    def changelog_records(self) -> int:
        """How many records were written to `user-state`, transaction markers among them."""
        return sum(self.ends(self.settings.topics.user_state, PARTITIONS).values())

    def changelog_records_read(self) -> int:
        """How many were read from it so far, by all workers."""
        return self.kafka.fetched[self.settings.topics.user_state]

    # -- promises at every moment -----------------------------------------------------------------------

    def _must(self, holds: bool, promise: str) -> None:
        if not holds:
            self.broken.append(promise)

    def _note_readable(self, records: Sequence[Record]) -> None:
        topics = self.settings.topics
        if records and records[0].topic == topics.events:
            self._note_events(records)
        for record in records:
            if record.topic == topics.user_state:
                self._note_row((record.key or b"").decode(), record)
            elif record.topic == topics.recommendations:
                user = (record.key or b"").decode()
                if record.value is None:
                    self._answered.pop(user, None)
                else:  # the list of a worker that was replaced may come later than a newer one
                    offset = _decode_answer(record.value).offset
                    self._answered[user] = max(offset, self._answered.get(user, NO_OFFSET))

    def _note_events(self, records: Sequence[Record]) -> None:
        decoded = decode_events(records, records[0].partition, self.settings.admission)
        events = zip(decoded.events.offset.tolist(), decoded.events.user, strict=True)
        erasures = [(erasure.offset, erasure.user, True) for erasure in decoded.erasures]
        accepted = [*((offset, user, False) for offset, user in events), *erasures]
        self._items.update(decoded.events.item)
        self._due[records[0].partition] += sorted(accepted)

    def _note_row(self, user: str, record: Record) -> None:
        if record.value is None:
            self._rows.pop(user, None)
            return
        (rows,) = decode_rows([user.encode()], [record.value])
        offset, epoch = int(rows.offset[0]), int(rows.epoch[0])
        before_offset, before_epoch = self._rows.get(user, (NO_OFFSET, 0))
        self._must(epoch >= before_epoch, f"{user}: the epoch went back from {before_epoch} to {epoch}")
        self._must(offset >= before_offset, f"{user}: the row went back from {before_offset} to {offset}")
        self._rows[user] = offset, epoch

    def _check_commit(self, offsets: dict[int, int]) -> None:
        for number, end in offsets.items():
            before = self.group.committed.get(number, 0)
            self._must(end >= before, f"partition {number}: the commit went back from {before} to {end}")
            last = {user: (offset, gone) for offset, user, gone in self._due[number] if offset < end}
            for user, (offset, gone) in last.items():
                row = self._rows.get(user, (NO_OFFSET, 0))[0]
                answer = self._answered.get(user, NO_OFFSET)
                if gone:
                    self._must(
                        row == answer == NO_OFFSET, f"{user}: the erasure at {offset} is committed only"
                    )
                else:
                    self._must(row >= offset, f"{user}: {end} is committed, but the row is as of {row}")
                    self._must(answer >= offset, f"{user}: {end} is committed, the answer is as of {answer}")


def sentence(value: object) -> str:
    """A rule's part as an id of its test: the name of a function."""
    return getattr(value, "__name__", str(value)).replace("_", " ")


@asynccontextmanager
async def memory_stage(folder: Path, version: Version) -> AsyncIterator[MemoryStage]:
    """An installation whose first announced version this is. All workers are ended afterwards."""
    stage = MemoryStage(folder, version)
    with (
        patch.object(producers, "AIOKafkaProducer", partial(MemoryProducer, stage.kafka)),
        patch.object(reader, "AIOKafkaConsumer", partial(MemoryConsumer, stage.kafka)),
        patch.object(Engine, "warm_up", lambda _: None),  # once is enough for all workers of this process
    ):
        try:
            yield stage
        finally:
            for member in list(stage.group.members.values()):
                await member.kill()
            if next(_ENDED) % COLLECT_EVERY == 0:
                gc.collect()
