"""Writes records to `events` and tells where they are, as soon as Kafka has acknowledged them (acks=all, by
an idempotent producer).

Each partition has a lane: records wait in it while the batch before them is on its way, and then go together.
So many small requests cost few batches, a user's records stay in order, and a record that was given up before
its turn is never written. The lanes hold a bounded number of bytes, and of the requests that a server takes
at once only half may wait for them: while Kafka does not answer, there is room for lists.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from aiokafka import AIOKafkaProducer

from eddy.models.errors import EddyError
from eddy.serving.request_context import carried_headers
from eddy.stream.kafka.producers import new_producer, stop_producers
from eddy.stream.records.messages import Message
from eddy.stream.records.partitioner import partition_of
from eddy.stream.records.settings import Settings
from eddy.stream.records.trace_context import Headers

log = logging.getLogger("eddy.serving")

WITHIN_S = 5.0
"""Records that are not acknowledged in this time are given up."""

MAX_WAITING_BYTES = 32 << 20
"""The most bytes of records that wait for their acknowledgement."""

RECORD_OVERHEAD = 200
"""What a waiting record takes beside its key, value and headers, roughly."""

REST_S = 0.5
"""After a failure records are refused at once for so long, before the cluster is tried again."""

_STOP_S = 5.0


class Unwritten(EddyError):
    """Kafka has not acknowledged a record; the message says what is known of it."""


class Position(NamedTuple):
    """Where a record of `events` is."""

    partition: int
    offset: int

    @property
    def token(self) -> str:
        """How callers name it (`wait_for`); `of_token` reads it."""
        return f"{self.partition}:{self.offset}"

    @classmethod
    def of_token(cls, token: str) -> "Position":
        """The position that a token of the form TOKEN names."""
        return cls(*map(int, token.split(":")))


TOKEN = r"^[0-9]{1,5}:[0-9]{1,18}$"
"""The form of a position's token, as a regular expression."""


@dataclass
class _Waiting:
    """A record, and the future of its position."""

    message: Message
    headers: Headers
    size: int
    position: "asyncio.Future[Position]"


@dataclass
class _Lane:
    """The records of a partition that are not on their way yet."""

    records: deque[_Waiting] = field(default_factory=deque)
    running: "asyncio.Task[None] | None" = None


_Connection = asyncio.Task[AIOKafkaProducer]
"""A producer that starts, or has started."""


class EventWriter:
    """See the module. Use as: `start()`, `await write(…)`, `await stop()`."""

    def __init__(
        self, settings: Settings, within_s: float = WITHIN_S, max_bytes: int = MAX_WAITING_BYTES
    ) -> None:
        self._settings, self._within_s, self._max_bytes = settings, within_s, max_bytes
        self._lanes = [_Lane() for _ in range(settings.partitions)]
        self._waiting_bytes = self._waiting_writes = 0
        self._max_writes = max(1, settings.http_max_concurrent // 2)
        self._rest_until = 0.0
        self._last_failure = ""
        self._starting: _Connection | None = None
        self._stopping: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to connect, so that the first write need not wait for it."""
        self._connect()

    async def stop(self) -> None:
        """Give what is on its way some seconds, and disconnect."""
        running = [lane.running for lane in self._lanes if lane.running is not None]
        if running:
            await asyncio.wait(running, timeout=_STOP_S)
        for task in running:
            task.cancel()
        if self._starting is not None:
            self._disconnect(self._starting)
        await asyncio.gather(*running, *self._stopping, return_exceptions=True)

    async def write(self, messages: Sequence[Message]) -> list[Position | Unwritten]:
        """Write records, each to the partition of its key; those of one partition in order. Their headers
        carry on the trace of the request that is being answered. Returns where each is, or why it may not be
        there, within about `within_s`.
        """
        # 1. Room, and a cluster that has not failed a moment ago.
        if asyncio.get_running_loop().time() < self._rest_until:
            return [Unwritten(self._last_failure)] * len(messages)
        headers = carried_headers()
        overhead = RECORD_OVERHEAD + sum(len(value) for _, value in headers)
        sizes = [overhead + len(key or b"") + len(value or b"") for key, value in messages]
        if self._waiting_writes >= self._max_writes or self._waiting_bytes + sum(sizes) > self._max_bytes:
            full = Unwritten("not written: too many events wait for Kafka already")
            return [full] * len(messages)
        # 2. Into the lanes.
        keys = [key or b"" for key, _ in messages]
        partitions = partition_of(keys, self._settings.partitions, self._settings.partitioner)
        loop = asyncio.get_running_loop()
        waiting = [
            _Waiting(message, headers, size, loop.create_future())
            for message, size in zip(messages, sizes, strict=True)
        ]
        self._waiting_bytes += sum(sizes)
        for record, partition in zip(waiting, partitions.tolist(), strict=True):
            self._lanes[partition].records.append(record)
        for partition in set(partitions.tolist()):
            self._run(partition)
        # 3. Their acknowledgements. Those that have not gone yet are given up with their futures.
        self._waiting_writes += 1
        try:
            if waiting:
                await asyncio.wait([record.position for record in waiting], timeout=self._within_s)
            return [self._outcome(record) for record in waiting]
        finally:
            self._waiting_writes -= 1
            for record in waiting:
                record.position.cancel()
            for partition in set(partitions.tolist()):
                self._drop_given_up(self._lanes[partition])

    def _outcome(self, record: _Waiting) -> Position | Unwritten:
        if not record.position.done():
            return Unwritten(
                f"Kafka did not acknowledge it within {self._within_s:g} s, so it may be written or not: "
                "send it again (an event with the same event_id)"
            )
        error = record.position.exception()
        return error if isinstance(error, Unwritten) else record.position.result()

    # -- lanes --------------------------------------------------------------------------------------------

    def _run(self, partition: int) -> None:
        """See to it that a partition's records are sent."""
        lane = self._lanes[partition]
        if lane.running is None or lane.running.done():
            lane.running = asyncio.create_task(self._send_waiting(partition, lane))

    async def _send_waiting(self, partition: int, lane: _Lane) -> None:
        while lane.records:
            batch: list[_Waiting] = []
            connection = self._connect()
            try:
                await self._send_batch(connection, partition, lane.records, batch)
            except Exception as error:
                log.warning("%s: %r", self._settings.topics.events, error)
                reason = str(error) if isinstance(error, EddyError) else type(error).__name__
                self._last_failure = f"not written, as far as is known ({reason})"
                self._rest_until = asyncio.get_running_loop().time() + REST_S
                # Without a producer nothing was taken out of the lane.
                _fail(batch or lane.records, self._last_failure)
                self._disconnect(connection)
            finally:
                self._waiting_bytes -= sum(record.size for record in batch)
                self._drop_given_up(lane)

    def _drop_given_up(self, lane: _Lane) -> None:
        """Take the records out of a lane for which nobody waits any more. All wait equally long, so that
        these are the first ones.
        """
        while lane.records and lane.records[0].position.done():
            self._waiting_bytes -= lane.records.popleft().size

    async def _send_batch(
        self, connection: _Connection, partition: int, records: deque[_Waiting], batch: list[_Waiting]
    ) -> None:
        """Move as many records as a batch takes from `records` to `batch`, and send it.

        Errors: Unwritten, and those of the producer.
        """
        # 1. A producer, for a topic that is as the settings say.
        producer = await asyncio.shield(connection)  # other lanes wait for it, too
        topic, partitions = self._settings.topics.events, self._settings.partitions
        actual = len(await producer.partitions_for(topic))
        if actual != partitions:
            raise Unwritten(
                f"{topic} has {actual} partitions, this server expects {partitions}: restart it with "
                f"EDDY_PARTITIONS={actual}"
            )
        # 2. A batch.
        builder = producer.create_batch()
        sent: list[_Waiting] = []
        while records:
            record = records[0]
            if not record.position.done():
                key, value = record.message
                if builder.append(key=key, value=value, timestamp=None, headers=record.headers) is None:
                    break
                sent.append(record)
            batch.append(records.popleft())
        if not sent:
            return
        # 3. Its acknowledgement.
        builder.close()
        acknowledged = await producer.send_batch(builder, topic, partition=partition)
        first = (await acknowledged).offset
        for number, record in enumerate(sent):
            if not record.position.done():
                record.position.set_result(Position(partition, first + number))

    # -- the producer -------------------------------------------------------------------------------------

    def _connect(self) -> _Connection:
        if self._starting is None:
            self._starting = asyncio.create_task(self._started())
            self._starting.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._starting

    async def _started(self) -> AIOKafkaProducer:
        producer = new_producer(self._settings)
        try:
            await producer.start()
        except BaseException:
            await stop_producers([producer], 1.0)
            raise
        return producer

    def _disconnect(self, starting: _Connection) -> None:
        """Let the next batch have a new producer; the one that failed is closed aside, unless another lane
        has seen to that already.
        """
        if self._starting is not starting:
            return
        self._starting = None

        async def close() -> None:
            with suppress(Exception):
                await stop_producers([await starting], _STOP_S)

        if not starting.done():
            starting.cancel()
        closing = asyncio.create_task(close())
        self._stopping.add(closing)
        closing.add_done_callback(self._stopping.discard)


def _fail(records: Iterable[_Waiting], reason: str) -> None:
    for record in records:
        if not record.position.done():
            record.position.set_exception(Unwritten(reason))
            record.position.exception()  # somebody looks at it, but perhaps too late
