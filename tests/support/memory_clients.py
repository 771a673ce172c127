"""The parts of aiokafka's producer and consumer that Eddy uses, on a cluster in memory. States and errors of
transactions are aiokafka's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from aiokafka import TopicPartition
from aiokafka.errors import IllegalOperation, InvalidProducerEpoch, ProducerFenced
from aiokafka.producer.producer import TransactionContext
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.structs import OffsetAndTimestamp

from eddy.stream.kafka.producers import fatal_error
from tests.support.memory_kafka import Headers, MemoryKafka, Record, Transaction


@dataclass
class MemoryBatch:
    """Messages of a partition that are sent at once."""

    most_bytes: int
    messages: list[tuple[bytes | None, bytes | None, Headers]] = field(default_factory=list)
    size: int = 0

    def append(
        self, *, key: bytes | None, value: bytes | None, timestamp: int | None, headers: Headers | None = None
    ) -> object | None:
        """Add a message; None when there is no room for it."""
        assert isinstance(headers, list | None), "aiokafka takes no other sequence"
        size = len(key or b"") + len(value or b"")
        if self.messages and self.size + size > self.most_bytes:
            return None
        self.size += size
        self.messages.append((key, value, headers or []))
        return size

    def record_count(self) -> int:
        return len(self.messages)

    def close(self) -> None:
        """Nothing is to be done."""


class MemoryProducer:
    """aiokafka's producer: a task of its own sends what was queued, in order. It ends when it is fenced, and
    all that is queued fails with it.
    """

    def __init__(
        self, kafka: MemoryKafka, *, bootstrap_servers: str, max_batch_size: int,
        transactional_id: str | None = None, transaction_timeout_ms: int = 0, **_: Any,
    ) -> None:  # fmt: skip
        self._kafka, self._client, self._most_bytes = kafka, bootstrap_servers, max_batch_size
        self._id = transactional_id
        self._txn_manager = TransactionManager(transactional_id, transaction_timeout_ms)
        self._queue: asyncio.Queue[tuple[Callable[[], Any], str, str | None, asyncio.Future[Any]]] = (
            asyncio.Queue()
        )
        self._sender: asyncio.Task[None] | None = None
        self._transaction: Transaction | None = None

    async def start(self) -> None:
        await self._kafka.called("start producer", self._client)
        self._txn_manager.set_pid_and_epoch(1, self._kafka.init_producer(self._id) if self._id else 0)
        self._sender = asyncio.create_task(self._send_queued())

    async def stop(self) -> None:
        if self._sender is None:
            return
        queued = asyncio.ensure_future(self._queue.join())
        try:
            await asyncio.wait([queued, self._sender], return_when=asyncio.FIRST_COMPLETED)
        finally:
            queued.cancel()
            self._sender.cancel()

    async def partitions_for(self, topic: str) -> set[int]:
        return set(range(self._kafka.partitions))

    def create_batch(self) -> MemoryBatch:
        return MemoryBatch(self._most_bytes)

    async def send_batch(self, batch: MemoryBatch, topic: str, *, partition: int) -> asyncio.Future[Any]:
        if self._id and not self._txn_manager.is_in_transaction():
            raise IllegalOperation("Can't send messages while not in transaction")
        tp = TopicPartition(topic, partition)
        return self._queued(lambda: self._append(tp, batch), "produce", topic)

    async def send(
        self, topic: str, value: bytes | None = None, key: bytes | None = None, headers: Headers | None = None
    ) -> asyncio.Future[Any]:
        """To partition 0: what Eddy sends this way goes to topics of one partition."""
        return await self.send_batch(MemoryBatch(0, [(key, value, headers or [])]), topic, partition=0)

    def transaction(self) -> Any:
        return TransactionContext(self)

    async def begin_transaction(self) -> None:
        self._txn_manager.begin_transaction()

    async def commit_transaction(self) -> None:
        self._txn_manager.committing_transaction()
        await self._end_transaction(commit=True)

    async def abort_transaction(self) -> None:
        self._txn_manager.aborting_transaction()
        await self._end_transaction(commit=False)

    async def _end_transaction(self, commit: bool) -> None:
        def end() -> None:
            if self._transaction is not None:
                self._transaction = None
                self._kafka.end_transaction(self._id or "", self._txn_manager.producer_epoch, commit)
            self._txn_manager.complete_transaction()

        self._queued(end, "end transaction", None)
        await asyncio.shield(self._txn_manager.wait_for_transaction_end())

    def _queued(self, act: Callable[[], Any], call: str, topic: str | None) -> asyncio.Future[Any]:
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        done.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody has to look at it
        if self._sender is None or self._sender.done():
            done.set_exception(fatal_error(cast(Any, self)) or IllegalOperation("the producer is stopped"))
        else:
            self._queue.put_nowait((act, call, topic, done))
        return done

    def _append(self, tp: TopicPartition, batch: MemoryBatch) -> Any:
        if self._id:
            self._transaction = self._kafka.transaction(self._id, self._txn_manager.producer_epoch)
        return SimpleNamespace(offset=self._kafka.append(tp, batch.messages, self._transaction))

    async def _send_queued(self) -> None:
        while True:
            act, call, topic, done = await self._queue.get()
            await self._kafka.called(call, self._client, topic)  # type: ignore[arg-type]
            try:
                answer = act()
                if not done.done():
                    done.set_result(answer)
            except Exception as error:
                self._fail(ProducerFenced() if isinstance(error, InvalidProducerEpoch) else error, done)
                return
            finally:
                self._queue.task_done()

    def _fail(self, error: Exception, under_way: asyncio.Future[Any]) -> None:
        if self._id:
            self._txn_manager.fatal_error(error)
        failed = [under_way]
        while not self._queue.empty():
            failed.append(self._queue.get_nowait()[-1])
        for done in failed:
            if not done.done():
                done.set_exception(error)


class MemoryConsumer:
    """aiokafka's consumer of partitions that it is told."""

    def __init__(self, kafka: MemoryKafka, *, bootstrap_servers: str, isolation_level: str, **_: Any) -> None:
        self._kafka, self._client = kafka, bootstrap_servers
        self._committed = isolation_level == "read_committed"
        self._position: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()

    async def start(self) -> None:
        """Nothing is to be done."""

    async def stop(self) -> None:
        """Nothing is to be done."""

    def assign(self, tps: Iterable[TopicPartition]) -> None:
        self._position = dict.fromkeys(tps, 0)

    async def seek_to_beginning(self, *tps: TopicPartition) -> None:
        self._position |= dict.fromkeys(tps, 0)

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self._position[tp] = offset

    def pause(self, *tps: TopicPartition) -> None:
        self._paused |= set(tps)

    def resume(self, *tps: TopicPartition) -> None:
        self._paused -= set(tps)

    async def position(self, tp: TopicPartition) -> int:
        return self._position[tp]

    async def beginning_offsets(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(tps, 0)

    async def end_offsets(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: self._kafka.stable_end(tp) if self._committed else self._kafka.end(tp) for tp in tps}

    async def offsets_for_times(
        self, times: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        return {tp: self._first_since(tp, time) for tp, time in times.items()}

    def _first_since(self, tp: TopicPartition, time: int) -> OffsetAndTimestamp | None:
        records, _ = self._kafka.read(tp, 0, self._kafka.end(tp), committed=False)
        since = (record for record in records if record.timestamp >= time)
        return next((OffsetAndTimestamp(record.offset, record.timestamp) for record in since), None)

    async def getmany(self, *, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Record]]:
        """Returns as soon as a position moves, be it only over what is not for this reader."""
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                while True:
                    fetched, moved = self._fetch(max_records)
                    if moved:
                        return fetched
                    await self._kafka.grown()
        except TimeoutError:
            return {}

    def _fetch(self, most: int) -> tuple[dict[TopicPartition, list[Record]], bool]:
        fetched, moved = {}, False
        for tp, start in list(self._position.items()):
            if tp not in self._paused and not self._kafka.brings_nothing(self._client, tp, start):
                records, self._position[tp] = self._kafka.read(tp, start, most, self._committed)
                moved |= self._position[tp] > start
                if records:
                    fetched[tp] = records
        return fetched, moved
