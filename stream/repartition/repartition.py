"""`eddy repartition`: another partition count for `events`, with every row, sum and unread event taken along.

Topics cannot be renamed and partitions not be removed, so what is to last is first copied aside:

1. workers and `eddy ingest` must be stopped; `events` is closed to writers (it takes no record of more than
   one byte: a program that writes on gets an error, nothing is lost silently), former owners are fenced;
2. all rows, the item statistics and the events that no row includes yet are copied to the topic
   `repartition`, and then a plan: from here on that topic is enough;
3. the four topics by user are deleted and made again, rows and statistics written to them under the new
   topic id, the group's offsets set to the beginning; then the plan is marked as switched;
4. `events` is opened, the unread events are written to it, and `repartition` is deleted.

Guarantee: whenever it is killed, running the same command again ends the same. Before the plan is complete
nothing was deleted, and it starts over; before it is marked, step 3 is done again from its start (`events`
is still closed, so there is nothing to lose); after it, the unread events that are in `events` already are
recognised by a header. Each event stays applied once: what rows include is not taken along.

Lost, and therefore said before it begins: events that were applied and are still retained (the event log,
`eddy export`, is their history), and emitted lists (the next event of a user makes a new one).
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError as ClientError
from kafka.errors import KafkaError

from eddy.models.errors import EddyError
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.vocabulary import Catalogue
from eddy.stream.kafka.clients import admin_client
from eddy.stream.kafka.producers import new_producer
from eddy.stream.kafka.reader import Records, read_to_end
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

STEPS = ("closed", "copied", "planned", "deleted", "created", "moved", "switched", "opened", "carried")
CARRIED = "eddy-carried"
"""Header of an unread event that was taken along."""


@dataclass(frozen=True)
class Preview:
    """What a repartition would do."""

    old: int
    """partitions now"""
    new: int
    retained: int
    """records in `events`: deleted, but for those that are not applied yet"""
    unfinished: bool
    """it was begun before and will be finished"""

    def __str__(self) -> str:
        if self.unfinished:
            return f"The repartition to {self.new} partitions that was begun before will be finished."
        return (
            f"From {self.old} to {self.new} partitions.\n"
            "Taken along: all users' states, the item statistics, the events not yet applied.\n"
            f"Deleted: the rest of the {self.retained} records that `events` retains (`eddy export` keeps\n"
            "them in an event log; export to a new one afterwards), and the lists on `recommendations` (a\n"
            "user's next event makes a new one).\n"
            "Writers to `events` get errors until it is done; restart them afterwards, since they choose\n"
            "partitions by the old count."
        )


@dataclass(frozen=True)
class _Rows:
    """The newest rows of one partition of `user-state`."""

    values: dict[bytes, bytes]
    included: dict[bytes, int]
    """by user: the offset up to which a row holds the partition of `events` as it is now"""
    foreign: bool
    """whether a row is from another topic: `events` was made again since"""


async def preview(settings: Settings, partitions: int) -> Preview:
    """Look only. Errors: EddyError when there is nothing to do, or it cannot be done now."""
    with admin_client(settings) as admin:
        topics = Topics(settings, admin)
        if topics.partitions(topics.aside):
            return Preview(0, partitions, 0, unfinished=True)
        topics.require_stopped()
        topic_id, old = topics.event_topic_id(), topics.partitions(topics.events)
        if all(topics.partitions(name) == partitions for name in topics.by_user):
            rows = [await _rows(settings, number, topic_id) for number in range(old)]
            homes = [partition_of(list(one.values), partitions, settings.partitioner) for one in rows]
            moved = any(np.any(home != number) for number, home in enumerate(homes))  # another partitioner
            if not moved and not any(one.foreign for one in rows):
                raise EddyError(f"{topics.events} has {partitions} partitions already: nothing to do")
        first, end = topics.ends()
        retained = sum(end[number] - first[number] for number in end)
        return Preview(old, partitions, retained, unfinished=False)


async def repartition(
    settings: Settings, partitions: int, on_step: Callable[[str], None] = lambda _: None
) -> Plan:
    """Give `events` and what is partitioned like it `partitions` partitions; see the module.

    Returns what was moved. Errors: EddyError when workers run, another repartition is unfinished, or Kafka
    or a row's format do not let it go on; it can always be run again.
    """
    try:
        with admin_client(settings) as admin:
            producer = new_producer(settings)
            await producer.start()
            try:
                topics = Topics(settings, admin)
                aside = Staging(settings, topics, producer, partitions)
                return await _Repartition(settings, topics, aside, on_step).run()
            finally:
                await producer.stop()
    except (KafkaError, ClientError) as error:
        raise EddyError(f"repartition: {type(error).__name__}: {error}; run it again") from error


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
    own = [group for group in groups if group.topic_id == topic_id]
    included = {
        user: offset
        for group in own
        for user, offset, home in zip(
            group.user, group.offset.tolist(), group.partition.tolist(), strict=True
        )
        if home == number
    }
    return _Rows(newest, included, foreign=len(own) < len(groups))


class _Repartition:
    """One run."""

    def __init__(
        self, settings: Settings, topics: Topics, aside: Staging, on_step: Callable[[str], None]
    ) -> None:
        self.settings, self.topics, self.aside, self.on_step = settings, topics, aside, on_step
        self.partitions = aside.partitions
        self.specs = {spec.name: spec for spec in topic_specs(settings.replace(partitions=self.partitions))}

    async def run(self) -> Plan:
        notes = await self.aside.notes()
        plan = notes.plan
        if not (plan and notes.switched):
            self.topics.require_stopped()
            if not (plan and notes.complete) or self._is_there(plan.events_id):
                plan = await self._set_aside(plan)
            await self._switch(plan)
        await self._finish(plan)
        return plan

    def _is_there(self, events_id: str) -> bool:
        exists = self.topics.partitions(self.topics.events) > 0
        return exists and self.topics.event_topic_id().hex() == events_id

    def _config(self, plan: Plan, topic: str) -> dict[str, str]:
        """What a new topic is made with: as specified, but for what an operator set."""
        config = {**self.specs[topic].config, **plan.configs[topic]}
        if config.get(SIZE) == CLOSED:
            config[SIZE] = self.specs[topic].config[SIZE]
        return config

    # -- steps 1 and 2 ----------------------------------------------------------------------------------

    async def _set_aside(self, before: Plan | None) -> Plan:
        topics = self.topics
        topic_id = topics.event_topic_id()
        plan = Plan(topic_id.hex(), before.configs if before else topics.configs())
        self.aside.create()
        await self.aside.note(Notes(plan))
        try:
            topics.set_size(CLOSED)
            self.on_step("closed")
            topics.require_stopped()
            await self._copy(plan, topic_id)
        except (EddyError, KafkaError, ClientError):
            topics.set_size(self._config(plan, topics.events)[SIZE])
            self.aside.delete()
            raise
        self.on_step("copied")
        await self.aside.note(Notes(plan, complete=True))
        self.on_step("planned")
        return plan

    async def _copy(self, plan: Plan, topic_id: bytes) -> None:
        names = self.settings.topics
        old_rows, old_events = self.topics.partitions(names.user_state), self.topics.partitions(names.events)
        for number in range(max(old_rows, old_events, self.partitions)):
            await self._fence(number)
        first, end = self.topics.ends()
        committed = self.topics.committed()
        for number in range(max(old_rows, old_events)):
            rows = _Rows({}, {}, foreign=False)
            if number < old_rows:
                rows = await _rows(self.settings, number, topic_id)
            await self.aside.put_rows(list(rows.values.items()))
            plan.rows += len(rows.values)
            if number < old_events:
                start = committed.get(number, -1)
                if rows.foreign or not first[number] <= start <= end[number]:
                    start = first[number]
                plan.carried += await self._copy_unread(number, start, rows.included)
        await self._copy_statistics()

    async def _fence(self, number: int) -> None:
        """End what a former owner left open; one that was only paused cannot write any more."""
        fence = new_producer(self.settings, f"{self.settings.group}-{number}")
        await fence.start()
        await fence.stop()

    async def _copy_unread(self, number: int, start: int, included: dict[bytes, int]) -> int:
        """The events of a partition from `start` on that no row includes; returns how many."""
        copied = 0

        async def take(_: TopicPartition, records: Records) -> None:
            nonlocal copied
            unread = [one for one in records if one.offset > included.get(one.key or b"", -1)]
            await self.aside.put_events(number, unread)
            copied += len(unread)

        await read_to_end(self.settings, self.topics.events, [number], take, start=start)
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
            await self.aside.put(STATISTICS, number, messages)

    # -- steps 3 and 4 ----------------------------------------------------------------------------------

    async def _switch(self, plan: Plan) -> None:
        topics, names = self.topics, self.settings.topics
        topics.delete(topics.by_user)
        self.on_step("deleted")
        configs = {name: self._config(plan, name) for name in topics.by_user}
        configs[topics.events][SIZE] = CLOSED
        topics.create(self.partitions, configs)
        self.on_step("created")
        topic_id = topics.event_topic_id()
        for number in range(self.partitions):
            at_home = partial(moved_rows, topic_id=topic_id, partition=number)
            await self.aside.move(ROWS, number, names.user_state, at_home)
            await self.aside.move(STATISTICS, number, names.item_stats, list)
        topics.reset_committed(self.partitions)
        self.on_step("moved")
        await self.aside.note(Notes(plan, complete=True, switched=True))
        self.on_step("switched")

    async def _finish(self, plan: Plan) -> None:
        self.topics.set_size(self._config(plan, self.topics.events)[SIZE])
        self.on_step("opened")
        for number in range(self.partitions):
            await self.aside.move_events(number, CARRIED)
        self.on_step("carried")
        self.aside.delete()
        log.info(
            "%d rows and %d unread events moved to %d partitions", plan.rows, plan.carried, self.partitions
        )


__all__ = ["CARRIED", "STEPS", "Preview", "preview", "repartition"]
