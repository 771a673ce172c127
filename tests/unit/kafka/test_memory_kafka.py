"""The cluster in memory keeps the rules of Kafka on which workers rely; a real broker keeps the same ones in
tests/integration/test_kafka_contract.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest

from eddy.stream.kafka import producers
from eddy.stream.records.chunk import Chunk
from eddy.stream.records.settings import Settings
from tests.support.kafka_contract import RULES
from tests.support.kafka_contract_clients import PARTITIONS, Clients, GroupMember, Rule, keep
from tests.support.leaping_loop import in_leaping_time
from tests.support.memory_clients import MemoryConsumer, MemoryProducer
from tests.support.memory_group import Coordinator, Member
from tests.support.memory_kafka import MemoryKafka
from tests.support.memory_stage import sentence


class IdleWorker:
    """A worker that takes part in the group, and does nothing."""

    async def assigned(self, numbers: set[int], generation: int) -> None:
        """Nothing is to be restored."""

    async def revoked(self, numbers: set[int]) -> None:
        """Nothing is to be flushed."""

    async def put(self, chunk: Chunk) -> None:
        """Nothing is to be applied."""


class MemoryMember:
    """A member that joins the group without the others."""

    def __init__(self, member: Member, owned: set[int]) -> None:
        self._member, self.owned = member, owned

    async def commit(self, offsets: Mapping[int, int]) -> bool:
        return await self._member.commit(dict(offsets))

    async def position(self, number: int) -> int:
        reading = self._member.reading(number)
        assert reading is not None
        return reading.position


class MemoryGroup:
    """The group of a cluster in memory."""

    def __init__(self, kafka: MemoryKafka, settings: Settings) -> None:
        self._kafka, self._settings, self._coordinator = kafka, settings, Coordinator()

    async def join(self, _: AsyncExitStack) -> GroupMember:
        """The first member gets all partitions, the next one its share."""
        members = self._coordinator.members
        for other in members.values():
            other.answers = False
        name = f"member-{len(members)}"
        member, worker = Member(name, name, self._kafka, self._coordinator), IdleWorker()
        any_member: Any = member
        any_member.worker, any_member._topic = worker, self._settings.topics.events
        owned = set(range(PARTITIONS)) if not members else {PARTITIONS - 1}
        members[name] = member
        await self._coordinator.rebalance({name: owned})
        return MemoryMember(member, owned)

    async def committed(self) -> dict[int, int]:
        return self._coordinator.committed


@pytest.mark.parametrize("rule", RULES, ids=sentence)
@in_leaping_time
async def test_the_cluster_in_memory_does_as_kafka(rule: Rule) -> None:
    kafka, settings = MemoryKafka(), Settings(bootstrap_servers="client", partitions=PARTITIONS)
    group = MemoryGroup(kafka, settings)
    with patch.object(producers, "AIOKafkaProducer", partial(MemoryProducer, kafka)):
        await keep(rule, Clients(settings, partial(MemoryConsumer, kafka), group.join, group.committed))
