"""`eddy ingest`: copies a topic that users already have onto `events`, as a consumer group of its own.

Guarantee, for a source with any key, partitioner and partition count:

- No record is lost: offsets of the source are committed only after its events and dead letters were
  confirmed.
- No record is applied twice because of a crash. Records that the last commit does not cover may have been
  written already. So the process that takes a partition over first reads the tail of `events` since that
  commit, and leaves out the events that it finds there. It tells events apart by user and event_id; an event
  without an event_id gets `topicid:partition:offset` of its source record.
- One user's events from one source partition keep their order.

One exception remains: a process that is suspended for longer than the session timeout while a write is on its
way (milliseconds for each batch) may write up to one batch again when it wakes. The worker drops those events
for as long as their event_id is in the user's window.

Transactions would put their markers and aborted records into `events`, and all its readers would have to cope
with them; each batch would wait for two more round trips, and fencing would take a producer for each source
partition. Reading a tail costs something only after a crash.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError as ProducerError
from aiokafka.errors import MessageSizeTooLargeError
from kafka.errors import KafkaError

from eddy.models.errors import EddyError
from eddy.stream.ingest.mapping import FieldMap
from eddy.stream.ingest.source import Source
from eddy.stream.kafka.clients import admin_client
from eddy.stream.kafka.preparing import told_by_signals
from eddy.stream.kafka.producers import new_producer, send_all
from eddy.stream.kafka.security.granted import require_permissions
from eddy.stream.kafka.starting import started
from eddy.stream.kafka.topics import ensure_topics, topic_ids, topic_specs
from eddy.stream.records.dead_letters import Letter
from eddy.stream.records.messages import Message
from eddy.stream.records.partitioner import partition_of
from eddy.stream.records.schema import Event, encode
from eddy.stream.records.settings import Settings

log = logging.getLogger("eddy.ingest")
T = TypeVar("T")


@dataclass
class Counts:
    """What became of the records read."""

    written: int = 0
    rejected: int = 0
    known: int = 0
    """written by an earlier process, before it crashed"""


async def ingest(settings: Settings, topic: str, fields: FieldMap, until_end: bool = False) -> Counts:
    """Copy `topic` onto `events` until SIGTERM or SIGINT, or up to where its partitions end now.

    Errors: EddyError for a topic that does not exist or is Eddy's own, for one of whose first records none
    can be mapped, and when Kafka refuses to go on.
    """
    stop = asyncio.Event()
    with told_by_signals(stop.set):
        topic_id = await asyncio.to_thread(_check_topics, settings, topic)
        try:
            async with AsyncExitStack() as stack:
                producer = await started(partial(new_producer, settings))
                stack.push_async_callback(producer.stop)
                thread = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="eddy-ingest"))
                source = await _run_on(thread, lambda: Source(settings, topic, topic_id, fields))
                stack.push_async_callback(_run_on, thread, source.close)
                return await _copy(settings, source, producer, thread, stop, until_end)
        except MessageSizeTooLargeError:
            raise EddyError(
                f"topic {settings.topics.events} takes no records: if `eddy repartition` is at work, start "
                "ingest again after it; otherwise give the topic back its max.message.bytes"
            ) from None
        except (KafkaError, ProducerError) as error:
            raise EddyError(f"ingesting {topic}: {type(error).__name__}: {error}") from error


def _check_topics(settings: Settings, topic: str) -> str:
    """Check the source and create Eddy's topics where they are missing; returns the source's topic id."""
    if topic in {spec.name for spec in topic_specs(settings)}:
        raise EddyError(f"{topic} is one of Eddy's own topics: name the one that holds your events")
    with admin_client(settings) as admin:
        require_permissions(admin, settings, "ingest", topic)
        if topic not in admin.list_topics():
            raise EddyError(f"topic {topic} does not exist on {settings.bootstrap_servers}: check --topic")
        ensure_topics(admin, settings)
        return str(topic_ids(admin, [topic])[topic])


async def _run_on(thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(thread, work)


async def _copy(
    settings: Settings,
    source: Source,
    producer: AIOKafkaProducer,
    thread: ThreadPoolExecutor,
    stop: asyncio.Event,
    until_end: bool,
) -> Counts:
    """Poll, map, write and commit, one batch after another."""
    counts = Counts()
    while not stop.is_set():
        # 1. Poll, and map the records to events and dead letters.
        polled_at = time.monotonic()
        polled = await _run_on(thread, source.poll)
        if polled:
            mapped = await _run_on(thread, partial(source.map_records, polled))
            if mapped.held_back:
                continue
        else:
            await _run_on(thread, source.commit_if_old)
            if not until_end:
                continue
            mapped = await _run_on(thread, source.rest_at_end)
            if not mapped.letters:
                if await _run_on(thread, source.at_end):
                    break
                continue
        # 2. Is it still right to write? Another process may have repartitioned, or taken our partitions over.
        if len(await producer.partitions_for(settings.topics.events)) != settings.partitions:
            raise EddyError(
                f"topic {settings.topics.events} no longer has {settings.partitions} partitions: set "
                "EDDY_PARTITIONS as `eddy repartition` said, and start ingest again"
            )
        if time.monotonic() - polled_at > settings.session_timeout_s:
            log.warning("suspended for longer than the session timeout; joining the group again")
            await _run_on(thread, source.rejoin)
            continue
        # 3. Write, and commit when all of it is confirmed.
        await _write(producer, settings, mapped.events, mapped.letters)
        await _run_on(thread, source.commit)
        counts.written += len(mapped.events)
        counts.rejected += len(mapped.letters)
        counts.known += mapped.known
    log.info("%d events written, %d dead letters, %d known", counts.written, counts.rejected, counts.known)
    return counts


async def _write(
    producer: AIOKafkaProducer, settings: Settings, events: Sequence[Event], letters: Sequence[Letter]
) -> None:
    """Write events to the partitions of their users, and dead letters; returns when all are confirmed."""
    messages: dict[int, list[Message]] = {}
    if events:
        keys = [event.user_id.encode() for event in events]
        targets = partition_of(keys, settings.partitions, settings.partitioner).tolist()
        for number, key, event in zip(targets, keys, events, strict=True):
            messages.setdefault(number, []).append((key, encode(event)))
    sent: list[asyncio.Future[object]] = []
    for number, of_partition in messages.items():
        sent += await send_all(producer, settings.topics.events, number, of_partition)
    sent += [await producer.send(settings.topics.dead_letters, **letter) for letter in letters]
    await asyncio.gather(*sent)
