"""Lets items leave that nobody touches, from the worker's side: see `eddy.stream.state.retirement`."""

import asyncio
import time

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from eddy.stream.kafka.producers import send_all
from eddy.stream.kafka.reader import Follower
from eddy.stream.records.messages import Message
from eddy.stream.state.retirement import removals
from eddy.stream.worker.background import OnThread
from eddy.stream.worker.partition_set import PartitionSet

LOOK_S, LOOK_SHARE = 5.0, 0.01
"""Items are looked at every so many seconds at most, and for at most this share of the time."""


class ItemRetirement:
    """Drops idle items from memory and statistics and, as the owner of partition 0, from the dictionary."""

    def __init__(
        self,
        partitions: PartitionSet,
        item_stats: Follower,
        producer: AIOKafkaProducer,
        items_topic: str,
        run: OnThread,
    ) -> None:
        self._partitions, self._item_stats = partitions, item_stats
        self._producer, self._items_topic, self._run = producer, items_topic, run

    async def run(self) -> None:
        """Look for such items until cancelled."""
        took_s = 0.0
        while True:
            await asyncio.sleep(max(LOOK_S, took_s / LOOK_SHARE))
            if not self._partitions.settled:
                continue
            try:
                await self._item_stats.caught_up()  # what is not read yet may have touched an item
            except KafkaError:  # the cluster is away
                continue
            removed, took_s = await self._run(self._retire)
            if removed:
                await asyncio.gather(*await send_all(self._producer, self._items_topic, 0, removed))
            self._partitions.metrics.items.set(len(self._partitions.engine.names.catalogue))

    def _retire(self) -> tuple[list[Message], float]:
        """On the engine's thread: what is to be written to `items`, by one worker of all, and the seconds
        that this took.
        """
        if not self._partitions.settled:  # partitions are on their way, and their statistics with them
            return [], 0.0
        began = time.thread_time()
        engine, tasks = self._partitions.engine, dict(self._partitions.tasks)
        for number, task in tasks.items():
            if engine.drop_idle_items(number):
                task.rewrite_statistics()
        engine.forget_items()
        removed: list[Message] = []
        if 0 in tasks:
            removed = removals(engine.names, engine.statistics, engine.clock.now(engine.wall()))
        return removed, time.thread_time() - began
