"""The consumer group of `events` in memory: what Faust and aiokafka are to a real worker, and what the
group's coordinator is to them.

A rebalance is eager, as there: whoever answers gives up all partitions, a new generation begins, and each
member is told all that it owns from now on, goes back to the committed offsets, and reads on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from aiokafka import TopicPartition

from eddy.stream.records.chunk import Chunk
from eddy.stream.records.settings import Settings
from eddy.stream.tracing import Tracer
from eddy.stream.worker.metrics import WorkerMetrics
from eddy.stream.worker.transport import Reading
from eddy.stream.worker.worker import Worker
from tests.support.memory_kafka import MemoryKafka

CHUNK_RECORDS = 8
"""Records that a fetch brings of a partition at most: few, so that a short test has many chunks."""


class Killed(Exception):
    """The worker's process ends here."""


@dataclass
class Coordinator:
    """The generation of the group, who is in it, and what it has committed."""

    generation: int = 0
    members: dict[str, Member] = field(default_factory=dict)
    committed: dict[int, int] = field(default_factory=dict)
    on_commit: Callable[[dict[int, int]], None] = lambda _: None
    """called with offsets before they are committed"""

    async def rebalance(self, assignment: dict[str, set[int]]) -> None:
        """Give each member the partitions that are named for it; those that answer give up theirs before."""
        answering = [member for member in self.members.values() if member.answers]
        await asyncio.gather(*(member.give_up() for member in answering))
        self.generation += 1
        answering = [member for member in answering if member.alive]
        await asyncio.gather(*(member.own(assignment.get(member.name, set())) for member in answering))


class Member:
    """A worker's process; to its worker, the consumer of `events`."""

    worker: Worker

    def __init__(self, name: str, client: str, kafka: MemoryKafka, coordinator: Coordinator) -> None:
        self.name, self.client = name, client
        self.alive = True
        self.answers = True
        """whether it takes part in rebalances; one that does not is left out, and hears nothing of it"""
        self.dies_at: str | None = None
        """the step of a checkpoint at which the process ends"""
        self.refuses = False
        """whether the group refuses its commits"""
        self.loses_chunk = False
        """whether the next chunk is lost between the consumer and the worker"""
        self.metrics = WorkerMetrics()
        self._kafka, self._coordinator = kafka, coordinator
        self._generation = -1
        self._position: dict[int, int] = {}
        self._read: set[int] = set()
        self._handed: dict[int, int] = {}
        self._seeks = 0
        self._flowing = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, settings: Settings, topic_id: bytes, tracer: Tracer | None = None) -> None:
        """Start the worker; it owns nothing yet."""
        self._topic = settings.topics.events
        self.worker = await Worker.start(settings, topic_id, self, self.metrics, self._on_step, tracer)
        self._tasks = [asyncio.create_task(self._hand_out()), asyncio.create_task(self._watch())]
        self._coordinator.members[self.name] = self

    def figure(self, name: str) -> float:
        """The value of one of the worker's metrics without labels."""
        return self.metrics.registry.get_sample_value(name) or 0.0

    # -- the consumer that the worker sees --------------------------------------------------------------

    def start_reading(self, number: int) -> None:
        self._read.add(number)
        self._kafka.wake_readers()

    def stop_reading(self, number: int) -> None:
        self._read.discard(number)

    async def commit(self, offsets: dict[int, int]) -> bool:
        await self._kafka.called("commit offsets", self.client)
        belongs = self._coordinator.members.get(self.name) is self
        if self.refuses or not belongs or self._generation != self._coordinator.generation:
            return False
        owned = {number: offset for number, offset in offsets.items() if number in self._position}
        self._coordinator.on_commit(owned)
        self._coordinator.committed |= owned
        return True

    async def read_again(self, seeks: int) -> None:
        if seeks == self._seeks and self._flowing.is_set():
            self._seek(self._position)

    def reading(self, number: int) -> Reading | None:
        if number not in self._position:
            return None
        end = self._kafka.stable_end(TopicPartition(self._topic, number))
        return Reading(self._position[number], end, self._handed.get(number), self._seeks)

    def take_gone(self, number: int, start: int) -> int:
        return 0

    # -- rebalances -------------------------------------------------------------------------------------

    async def give_up(self) -> None:
        """Hear that all partitions are revoked."""
        self._flowing.clear()
        self._read.clear()
        try:
            await self.worker.revoked(set(self._position))
        except Killed:
            await self.kill()

    async def own(self, numbers: set[int]) -> None:
        """Hear of the partitions of a new generation, and read on where the group has committed."""
        self._generation = self._coordinator.generation
        await self.worker.assigned(set(numbers), self._generation)
        self._seek(numbers)
        self._flowing.set()

    def _seek(self, numbers: Iterable[int]) -> None:
        self._position = {number: self._coordinator.committed.get(number, 0) for number in numbers}
        self._handed.clear()
        self._seeks += 1
        self._kafka.wake_readers()

    async def _hand_out(self) -> None:
        while True:
            await self._flowing.wait()
            chunks = self._fetch()
            for chunk in chunks:
                if (chunk.generation, chunk.seeks) != (self._generation, self._seeks):
                    break  # a seek came between: what was fetched is fetched again
                if not self._flowing.is_set():
                    break
                self._handed[chunk.partition] = chunk.end
                if self.loses_chunk:
                    self.loses_chunk = False
                else:
                    await self.worker.put(chunk)
            if not chunks:
                await self._kafka.grown()

    def _fetch(self) -> list[Chunk]:
        fetched = {}
        for number in sorted(self._read & self._position.keys()):
            start = self._position[number]
            tp = TopicPartition(self._topic, number)
            records, self._position[number] = self._kafka.read(tp, start, CHUNK_RECORDS, committed=True)
            if records:
                fetched[number] = records
        return [
            Chunk(
                number,
                records,
                self._generation,
                self._handed.get(number),
                self._seeks,
                number == max(fetched),
            )
            for number, records in fetched.items()
        ]

    # -- the end ----------------------------------------------------------------------------------------

    def _on_step(self, step: str) -> None:
        if step == self.dies_at:
            self._kafka.cut_off(self.client)
            raise Killed(step)

    async def _watch(self) -> None:
        try:
            await asyncio.shield(self.worker.background.failed)
        except Killed:
            await self.kill()

    async def kill(self) -> None:
        """End the process: what it had in memory is gone, and what it had begun is never finished."""
        self._kafka.cut_off(self.client)
        self._leave()
        await self.worker.background.cancel()

    async def stop(self) -> None:
        """End the worker in order, and leave the group."""
        self._flowing.clear()
        await self.worker.stop()
        self._leave()

    def _leave(self) -> None:
        self.alive = self.answers = False
        self._flowing.clear()
        if self._coordinator.members.get(self.name) is self:
            del self._coordinator.members[self.name]
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
