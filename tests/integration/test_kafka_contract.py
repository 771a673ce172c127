"""A real broker keeps the rules on which workers rely, the same as the cluster in memory of the quick tests
(tests/unit/kafka/test_memory_kafka.py): the session's broker and, where a Docker engine answers, one in a
container.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError
from aiokafka.structs import OffsetAndMetadata

from eddy.stream.kafka.clients import aiokafka_config
from eddy.stream.kafka.topics import prepare_topics
from eddy.stream.records.settings import Settings
from tests.chaos.cluster import Cluster
from tests.support.kafka_clusters import MakeSettings, broker_kind, cluster, why_no_container
from tests.support.kafka_contract import RULES
from tests.support.kafka_contract_clients import PARTITIONS, Clients, GroupMember, Rule, keep
from tests.support.memory_stage import sentence


@pytest.fixture(scope="module", params=["session", "container"])
def broker(request: pytest.FixtureRequest, broker: str) -> Iterator[str]:
    """The address of the session's broker, then of one in a container."""
    if request.param == "session":
        yield broker
        return
    if broker_kind() == "container":
        pytest.skip("the session's broker is in a container already")
    if reason := why_no_container():
        pytest.skip(reason)
    with cluster("container") as address:
        yield address


class BrokerMember:
    """A member that commits as of the generation in which it joined, whatever it hears of newer ones: as a
    process does that stood still meanwhile.
    """

    def __init__(self, consumer: Any, topic: str) -> None:
        self._consumer, self._topic = consumer, topic
        self._assignment = consumer._subscription.subscription.assignment
        self._generation = consumer._coordinator.generation
        self.owned = {tp.partition for tp in consumer.assignment()}

    async def commit(self, offsets: Mapping[int, int]) -> bool:
        coordinator = self._consumer._coordinator
        await coordinator.ensure_coordinator_known()
        wanted = {self._tp(number): OffsetAndMetadata(offset, "") for number, offset in offsets.items()}
        coordinator.generation = self._generation
        try:
            await coordinator.commit_offsets(self._assignment, wanted)
        except CommitFailedError:
            return False
        return True

    async def position(self, number: int) -> int:
        return int(await self._consumer.position(self._tp(number)))

    def _tp(self, number: int) -> TopicPartition:
        return TopicPartition(self._topic, number)


class BrokerGroup:
    """The group of `events` on a real broker."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._cluster = settings, Cluster(settings)

    async def join(self, ending: AsyncExitStack) -> GroupMember:
        topic = self._settings.topics.events
        consumer = AIOKafkaConsumer(
            topic, **aiokafka_config(self._settings), group_id=self._settings.group,
            enable_auto_commit=False, auto_offset_reset="earliest", heartbeat_interval_ms=300,
        )  # fmt: skip
        await consumer.start()
        ending.push_async_callback(consumer.stop)
        while not consumer.assignment():
            await asyncio.sleep(0.02)
        return BrokerMember(consumer, topic)

    async def committed(self) -> dict[int, int]:
        return await asyncio.to_thread(self._cluster.committed)

    def close(self) -> None:
        self._cluster.close()


@pytest.mark.parametrize("rule", RULES, ids=sentence)
def test_a_real_broker_does_as_the_cluster_in_memory(make_settings: MakeSettings, rule: Rule) -> None:
    settings = make_settings(partitions=PARTITIONS)
    prepare_topics(settings)
    group = BrokerGroup(settings)

    async def run() -> None:
        await keep(rule, Clients(settings, AIOKafkaConsumer, group.join, group.committed))

    try:
        asyncio.run(run())
    finally:
        group.close()
