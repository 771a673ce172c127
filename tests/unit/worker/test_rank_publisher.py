"""What a worker tells of its ranks: all of them, and none twice, whatever becomes of a record on its way."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from aiokafka.errors import KafkaError, KafkaTimeoutError

from eddy.models.evaluation.metrics import MISS
from eddy.stream.engine.prequential import Prequential, rank_sums
from eddy.stream.records.messages import Message
from eddy.stream.records.rank_counts import RankedBy, decode_ranks
from eddy.stream.records.schema import GROUPS, MAX_RANKED
from eddy.stream.worker.rank_publisher import RankPublisher
from tests.support.memory_clients import MemoryBatch

OF_CANARY, OF_LIVE = RankedBy(7, "canary"), RankedBy(7, "live")


class Topic:
    """A producer that notes what it is given; what it does then is up to the test."""

    def __init__(self) -> None:
        self.records: list[Message] = []
        self.fails: KafkaError | None = None
        self.lost = False
        """whether what fails is not written"""
        self.hangs = False

    def create_batch(self) -> MemoryBatch:
        return MemoryBatch(1 << 20)

    async def send_batch(self, batch: MemoryBatch, topic: str, *, partition: int) -> asyncio.Future[Any]:
        assert (topic, partition) == ("metrics", 0)
        if not self.lost:
            self.records += [(key, value) for key, value, _ in batch.messages]
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.fails is not None:
            done.set_exception(self.fails)
        elif not self.hangs:
            done.set_result(None)
        return done

    def events(self) -> dict[RankedBy, float]:
        """Ranked events in all records, each key once, as compaction leaves them."""
        counted: dict[RankedBy, float] = {}
        for key, value in dict(self.records).items():
            for by, table in decode_ranks(key, value).sums.items():
                counted[by] = counted.get(by, 0.0) + table[0].sum()
        return counted


def publisher(prequential: Prequential, topic: Topic) -> RankPublisher:
    producer: Any = topic
    return RankPublisher(prequential, producer, "metrics")


def add(prequential: Prequential, by: RankedBy, events: int) -> None:
    ones = np.ones(events, np.int64)
    prequential.add_ranks(by, np.arange(events).astype(np.uint8) % GROUPS, ones, ones)


def test_sums_are_those_of_each_group_alone() -> None:
    rng = np.random.default_rng(3)
    group = rng.integers(0, GROUPS, 500).astype(np.uint8)
    rank, popularity = (np.where(rng.random(500) < 0.3, MISS, rng.integers(1, 40, 500)) for _ in range(2))
    sums = rank_sums(group, rank, popularity)
    for number in range(GROUPS):
        ours, theirs = rank[group == number], popularity[group == number]
        expected = [len(ours)]
        for ranks in (ours, theirs):
            expected += [np.sum(ranks <= 20), np.sum(1 / ranks[ranks <= 20])]
        np.testing.assert_allclose(sums[:, number], expected)


def test_each_rank_is_told_once_and_only_when_there_are_any() -> None:
    prequential, topic = Prequential(), Topic()
    told = publisher(prequential, topic)

    async def run() -> None:
        await told.publish()
        assert topic.records == []
        add(prequential, OF_CANARY, 3)
        add(prequential, OF_LIVE, 40)
        await told.publish()
        await told.publish()
        add(prequential, OF_CANARY, 2)
        await told.publish()

    asyncio.run(run())
    assert len(topic.records) == 2
    assert topic.events() == {OF_CANARY: 5, OF_LIVE: 40}
    assert prequential.events == 45, "the worker's own metrics go on from its start"


@pytest.mark.parametrize("lost", [True, False], ids=["was lost", "was written all the same"])
def test_a_record_that_is_not_confirmed_is_sent_again_as_it_was(lost: bool) -> None:
    prequential, topic = Prequential(), Topic()
    told = publisher(prequential, topic)

    async def run() -> None:
        add(prequential, OF_CANARY, 3)
        topic.fails, topic.lost = KafkaTimeoutError(), lost
        await told.publish()
        add(prequential, OF_CANARY, 4)  # meanwhile the stream goes on
        topic.fails, topic.lost = None, False
        await told.publish()
        assert topic.events() == {OF_CANARY: 3}
        await told.publish()

    asyncio.run(run())
    assert topic.events() == {OF_CANARY: 7}
    assert len({key for key, _ in topic.records}) == 2


def test_a_worker_that_starts_again_overwrites_nothing() -> None:
    topic = Topic()

    async def run() -> None:
        for _ in range(2):
            prequential = Prequential()
            add(prequential, OF_CANARY, 3)
            await publisher(prequential, topic).publish()

    asyncio.run(run())
    assert topic.events() == {OF_CANARY: 6}


def test_more_versions_than_a_record_counts_are_told_in_several() -> None:
    prequential, topic = Prequential(), Topic()
    told = publisher(prequential, topic)

    async def run() -> None:
        for epoch in range(1, MAX_RANKED + 4):
            add(prequential, RankedBy(epoch, "v"), 1)
        await told.publish()
        await told.publish()

    asyncio.run(run())
    assert topic.events() == {RankedBy(epoch, "v"): 1 for epoch in range(1, MAX_RANKED + 4)}


def test_a_worker_ends_although_nobody_takes_its_last_counts() -> None:
    prequential, topic = Prequential(), Topic()

    async def run() -> None:
        add(prequential, OF_CANARY, 3)
        topic.hangs = True
        await publisher(prequential, topic).publish_last(0.01)

    asyncio.run(run())
    assert len(topic.records) == 1
