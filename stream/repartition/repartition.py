"""`eddy repartition`: another partition count for `events`, with every row, sum and unread event moved along.

Kafka can neither rename a topic nor remove partitions. So whatever is to last is copied to a topic first:

1. Workers and `eddy ingest` must be stopped. `events` is closed to writers: it takes no record of more than
   one byte, so a program that goes on writing gets an error, and nothing is lost silently. Former owners of
   partitions are fenced.
2. All rows, the item statistics and the events that no row includes yet are copied to the topic
   `repartition`, and then a plan. From here on that topic is all that is needed.
3. The four topics by user are deleted and created anew. Rows and statistics are written to them under the new
   topic id, and the group's offsets are set to the beginning. Then the plan is marked as switched.
4. `events` is opened, the unread events are appended to it, and the topic `repartition` is deleted.

Guarantee: whenever it is killed, running the same command again ends the same. Before the plan is complete
nothing has been deleted, and it starts over. Before the plan is marked, step 3 is done again from its start:
`events` is still closed, so there is nothing to lose. After that, the unread events that are in `events`
already are recognised by a header. Each event stays applied once: events that rows include are not moved.

The preview says what is lost: events that were applied and are still retained (the event log, `eddy export`,
is their history), and emitted lists (the next event of a user makes a new one).
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import numpy as np
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError as ClientError
from kafka.errors import KafkaError

from eddy.models.errors import EddyError
from eddy.models.locks import locked_at_once
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.vocabulary import Catalogue
from eddy.stream.kafka.clients import admin_client
from eddy.stream.kafka.producers import new_producer
from eddy.stream.kafka.reader import Records, read_to_end
from eddy.stream.kafka.security.granted import require_permissions
from eddy.stream.kafka.topics import topic_specs
from eddy.stream.kafka.versions import live_announcement, open_version
from eddy.stream.records.partitioner import partition_of
from eddy.stream.records.settings import Settings
from eddy.stream.repartition.moved_rows import moved_rows, moved_statistics
from eddy.stream.repartition.staging import ROWS, STATISTICS, Notes, Plan, Staging
from eddy.stream.repartition.topics import CLOSED, SIZE, Topics
from eddy.stream.state.item_statistics import StatisticsReader
from eddy.stream.state.rows import decode_rows

log = logging.getLogger("eddy.repartition")

STEPS = ("closed", "copied", "planned", "deleted", "created", "moved", "switched", "opened", "appended")
MOVED_HEADER = "eddy-carried"
"""Marks an unread event that a repartition has moved."""


@dataclass(frozen=True)
class Preview:
    """What a repartition would do."""

    old: int
    """number of partitions now"""
    new: int
    retained: int
    """records in `events`, of which all are deleted that are applied already"""
    unfinished: bool
    """whether an earlier run was interrupted, so that this one will finish it"""

    def __str__(self) -> str:
        if self.unfinished:
            return f"The repartition to {self.new} partitions that was begun before will be finished."
        return (
            f"From {self.old} to {self.new} partitions.\n"
            "All users' states, the item statistics and the events not applied yet are moved along.\n"
            f"The rest of the {self.retained} records that `events` retains is deleted (`eddy export` keeps\n"
            "them in an event log; export to a new one afterwards), and so are the lists on\n"
            "`recommendations` (a user's next event makes a new one).\n"
            "Producers of `events` get errors until it is done; restart them afterwards, since they choose\n"
            "partitions by the old count."
        )


@dataclass(frozen=True)
class _Rows:
    """The newest rows of one partition of `user-state`."""

    values: dict[bytes, bytes]
    included: dict[bytes, int]
    """by user: the offset up to which their row includes the partition of `events` as it is now"""
    foreign: bool
    """whether a row is of another topic: `events` was created anew since"""


async def preview(settings: Settings, partitions: int) -> Preview:
    """What `repartition` would do; changes nothing. Errors: EddyError when there is nothing to do, or it
    cannot be done now.
    """
    with admin_client(settings) as admin:
        require_permissions(admin, settings, "repartition")
        topics = Topics(settings, admin)
        if topics.partitions(topics.staging):
            return Preview(0, partitions, 0, unfinished=True)
        topics.require_stopped()
        topic_id, old = topics.event_topic_id(), topics.partitions(topics.events)
        if all(topics.partitions(name) == partitions for name in topics.by_user):
            rows = [await _rows(settings, number, topic_id) for number in range(old)]
            targets = [partition_of(list(part.values), partitions, settings.partitioner) for part in rows]
            misplaced = any(np.any(target != number) for number, target in enumerate(targets))
            if not misplaced and not any(part.foreign for part in rows):
                raise EddyError(f"{topics.events} has {partitions} partitions already: nothing to do")
        first, end = topics.bounds()
        retained = sum(end[number] - first[number] for number in end)
        return Preview(old, partitions, retained, unfinished=False)


async def repartition(
    settings: Settings, partitions: int, on_step: Callable[[str], None] = lambda _: None
) -> Plan:
    """Give `events`, and the topics that are partitioned like it, `partitions` partitions; see the module.

    `on_step` is told each of STEPS when it is done. Returns what was moved. Errors: EddyError when workers
    run, when another repartition is unfinished or at work on this machine, or when Kafka or a row's format
    stop it; it can always be run again.
    """
    try:
        with ExitStack() as alone, admin_client(settings) as admin:
            require_permissions(admin, settings, "repartition")
            _keep_others_out(settings, alone)
            producer = new_producer(settings)
            await producer.start()
            try:
                topics = Topics(settings, admin)
                staging = Staging(settings, topics, producer, partitions)
                return await _Repartition(settings, topics, staging, on_step).run()
            finally:
                await producer.stop()
    except (KafkaError, ClientError) as error:
        raise EddyError(f"repartition: {type(error).__name__}: {error}; run it again") from error


def _keep_others_out(settings: Settings, until: ExitStack) -> None:
    """Let no other repartition of this installation begin on this machine until the stack is closed: of two
    at once, or of one that was only paused, each deletes what the other has made. Errors: EddyError.
    """
    installation = f"{settings.bootstrap_servers} {settings.topic_prefix}"
    name = f"repartition-{hashlib.sha256(installation.encode()).hexdigest()[:16]}.lock"
    try:
        settings.cache_dir.mkdir(parents=True, exist_ok=True)
        refusal = "an `eddy repartition` of these topics is at work on this machine: wait for it, or end it"
        until.enter_context(locked_at_once(settings.cache_dir / name, refusal))
    except OSError as error:
        raise EddyError(
            f"{settings.cache_dir / name}: cannot be written ({error}); set EDDY_CACHE_DIR to a folder of "
            "yours"
        ) from None


async def _rows(settings: Settings, number: int, topic_id: bytes) -> _Rows:
    newest: dict[bytes, bytes] = {}

    async def take(_: TopicPartition, records: Records) -> None:
        for record in records:
            if record.key is not None and record.value is None:
                newest.pop(record.key, None)
            elif record.key is not None and record.value is not None:
                newest[record.key] = record.value

    await read_to_end(settings, settings.topics.user_state, [number], take)
    groups = decode_rows(list(newest), list(newest.values())) if newest else []
    of_topic = [group for group in groups if group.topic_id == topic_id]
    included = {
        user: offset
        for group in of_topic
        for user, offset, partition in zip(
            group.user, group.offset.tolist(), group.partition.tolist(), strict=True
        )
        if partition == number
    }
    return _Rows(newest, included, foreign=len(of_topic) < len(groups))


class _Repartition:
    """One run of the four steps; `run` begins at the step at which an earlier run was interrupted."""

    def __init__(
        self, settings: Settings, topics: Topics, staging: Staging, on_step: Callable[[str], None]
    ) -> None:
        self.settings, self.topics, self.staging, self.on_step = settings, topics, staging, on_step
        self.partitions = staging.partitions
        self.specs = {spec.name: spec for spec in topic_specs(settings.replace(partitions=self.partitions))}

    async def run(self) -> Plan:
        notes = await self.staging.notes()
        plan = notes.plan
        if not (plan and notes.switched):
            self.topics.require_stopped()
            if not (plan and notes.complete) or self._is_there(plan.events_id):
                plan = await self._stage(plan)
            await self._switch(plan)
        await self._finish(plan)
        return plan

    def _is_there(self, events_id: str) -> bool:
        exists = self.topics.partitions(self.topics.events) > 0
        return exists and self.topics.event_topic_id().hex() == events_id

    def _config(self, plan: Plan, topic: str) -> dict[str, str]:
        """The settings of a new topic: as specified, but for those that an operator has set."""
        config = {**self.specs[topic].config, **plan.configs[topic]}
        if config.get(SIZE) == CLOSED:
            config[SIZE] = self.specs[topic].config[SIZE]
        return config

    # -- steps 1 and 2 ----------------------------------------------------------------------------------

    async def _stage(self, before: Plan | None) -> Plan:
        """Close `events` and copy what is to last; when that fails, everything is as it was before."""
        topics = self.topics
        topic_id = topics.event_topic_id()
        plan = Plan(topic_id.hex(), before.configs if before else topics.configs())
        self.staging.create()
        await self.staging.write_notes(Notes(plan))
        try:
            topics.set_size(CLOSED)
            self.on_step("closed")
            topics.require_stopped()
            await self._copy(plan, topic_id)
        except (EddyError, KafkaError, ClientError, asyncio.CancelledError):  # the last one by Ctrl-C
            topics.set_size(self._config(plan, topics.events)[SIZE])
            self.staging.delete()
            raise
        self.on_step("copied")
        await self.staging.write_notes(Notes(plan, complete=True))
        self.on_step("planned")
        return plan

    async def _copy(self, plan: Plan, topic_id: bytes) -> None:
        """Fence former owners (the end of step 1) and copy; counts in `plan` what was copied."""
        names = self.settings.topics
        old_rows, old_events = self.topics.partitions(names.user_state), self.topics.partitions(names.events)
        for number in range(max(old_rows, old_events, self.partitions)):
            await self._fence(number)
        first, end = self.topics.bounds()
        committed = self.topics.committed()
        for number in range(max(old_rows, old_events)):
            rows = _Rows({}, {}, foreign=False)
            if number < old_rows:
                rows = await _rows(self.settings, number, topic_id)
            await self.staging.put_rows(list(rows.values.items()))
            plan.rows += len(rows.values)
            if number < old_events:
                start = committed.get(number, -1)  # everything before it is in rows of this topic
                if rows.foreign or not first[number] <= start <= end[number]:
                    start = first[number]
                plan.unread_moved += await self._copy_unread(number, start, rows.included)
        await self._copy_statistics()

    async def _fence(self, number: int) -> None:
        """End a transaction that a former owner left open; a paused owner can write no more."""
        fence = new_producer(self.settings, f"{self.settings.group}-{number}")
        await fence.start()
        await fence.stop()

    async def _copy_unread(self, number: int, start: int, included: dict[bytes, int]) -> int:
        """The events of a partition from `start` on that no row includes; returns how many."""
        copied = 0

        async def take(_: TopicPartition, records: Records) -> None:
            nonlocal copied
            unread = [record for record in records if record.offset > included.get(record.key or b"", -1)]
            await self.staging.put_events(number, unread)
            copied += len(unread)

        await read_to_end(self.settings, self.topics.events, [number], take, {number: start})
        return copied

    async def _copy_statistics(self) -> None:
        announced = live_announcement(self.settings)
        if announced is None:
            return  # no worker has ever counted
        config = open_version(announced, self.settings.registry).recommender.config
        reader = StatisticsReader(Statistics(config.half_lives_ms, config.successors), Catalogue())

        async def take(tp: TopicPartition, records: Records) -> None:
            for reason in reader.apply_records(
                tp.partition, [(record.key, record.value) for record in records]
            ):
                log.warning("%s; passed over", reason)

        topic = self.settings.topics.item_stats
        await read_to_end(self.settings, topic, range(self.topics.partitions(topic)), take)
        moved = moved_statistics(reader.statistics, reader.catalogue, self.partitions)
        for number, messages in moved.items():
            await self.staging.put(STATISTICS, number, messages)

    # -- steps 3 and 4 ----------------------------------------------------------------------------------

    async def _switch(self, plan: Plan) -> None:
        """Step 3: the new topics, with all rows and statistics."""
        topics, names = self.topics, self.settings.topics
        # `events` first: while it is there, a run that begins again takes the others for whole.
        topics.delete([topics.events])
        topics.delete(topics.by_user)
        self.on_step("deleted")
        configs = {name: self._config(plan, name) for name in topics.by_user}
        configs[topics.events][SIZE] = CLOSED
        topics.create(self.partitions, configs)
        self.on_step("created")
        topic_id = topics.event_topic_id()
        for number in range(self.partitions):
            to_new_topic = partial(moved_rows, topic_id=topic_id, partition=number)
            await self.staging.move(ROWS, number, names.user_state, to_new_topic)
            await self.staging.move(STATISTICS, number, names.item_stats, list)
        topics.reset_committed(self.partitions)
        self.on_step("moved")
        await self.staging.write_notes(Notes(plan, complete=True, switched=True))
        self.on_step("switched")

    async def _finish(self, plan: Plan) -> None:
        """Step 4: `events` is open again, with the unread events."""
        self.topics.set_size(self._config(plan, self.topics.events)[SIZE])
        self.on_step("opened")
        for number in range(self.partitions):
            await self.staging.move_events(number, MOVED_HEADER)
        self.on_step("appended")
        self.staging.delete()
        log.info(
            "%d rows and %d unread events moved to %d partitions",
            plan.rows,
            plan.unread_moved,
            self.partitions,
        )


__all__ = ["MOVED_HEADER", "STEPS", "Preview", "preview", "repartition"]
