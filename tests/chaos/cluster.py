"""An outside view of the cluster, through kafka-python alone: logs, offsets, members. It survives restarts of
the broker.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError

from eddy.stream.kafka.clients import client_config
from eddy.stream.records.settings import Settings

T = TypeVar("T")
_PATIENCE_S = 60.0


class Cluster:
    """One group and its topics."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._admin: KafkaAdminClient | None = None

    def _ask(self, question: Callable[[KafkaAdminClient], T]) -> T:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                if self._admin is None:
                    self._admin = KafkaAdminClient(**client_config(self.settings))
                return question(self._admin)
            except (KafkaError, OSError):
                self.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def close(self) -> None:
        admin, self._admin = self._admin, None
        if admin is not None:
            admin.close()

    def committed(self) -> dict[int, int]:
        """Committed offset of each partition of `events` that has one."""
        group, topic = self.settings.group, self.settings.topics.events
        offsets: dict[Any, Any] = self._ask(lambda admin: admin.list_group_offsets([group]))[group]
        return {
            tp.partition: committed.offset
            for tp, committed in offsets.items()
            if tp.topic == topic and committed.offset >= 0
        }

    def members(self) -> int:
        """Members of the group; -1 while it is rebalancing."""
        group = self.settings.group
        description: dict[str, Any] = self._ask(lambda admin: admin.describe_groups([group]))[group]
        return len(description["members"]) if description["group_state"] == "Stable" else -1

    def owners(self) -> dict[int, str] | None:
        """The member that owns each partition of `events`, by its id; None while the group is rebalancing."""
        group, topic = self.settings.group, self.settings.topics.events
        description: dict[str, Any] = self._ask(lambda admin: admin.describe_groups([group]))[group]
        if description["group_state"] != "Stable":
            return None
        return {
            partition: member["member_id"]
            for member in description["members"]
            for assigned in (member["member_assignment"] or {"assigned_partitions": ()})[
                "assigned_partitions"
            ]
            if assigned["topic"] == topic
            for partition in assigned["partitions"]
        }

    def ends(self, topic: str, partitions: int) -> dict[int, int]:
        """End offset of each partition, that of records in open transactions, too."""
        consumer = KafkaConsumer(**client_config(self.settings))
        try:
            tps = [TopicPartition(topic, number) for number in range(partitions)]
            return {tp.partition: end for tp, end in consumer.end_offsets(tps).items()}
        finally:
            consumer.close()

    def read(self, topic: str, partitions: int) -> Iterator[ConsumerRecord]:
        """Every committed record up to the present end of the topic, in the order of offsets in each
        partition. Transactions that are under way are waited for: those that are committed already are
        among them until their markers are in the partitions.
        """
        ends = self.ends(topic, partitions)
        consumer = KafkaConsumer(
            **client_config(self.settings), isolation_level="read_committed", enable_auto_commit=False,
            max_poll_records=5_000, fetch_max_bytes=32 << 20, max_partition_fetch_bytes=8 << 20,
        )  # fmt: skip
        try:
            tps = [TopicPartition(topic, number) for number in range(partitions)]
            consumer.assign(tps)
            consumer.seek_to_beginning(*tps)
            deadline = time.monotonic() + 5 * _PATIENCE_S
            while any(consumer.position(tp) < ends[tp.partition] for tp in tps):
                assert time.monotonic() < deadline, f"{topic} cannot be read to its end"
                for records in consumer.poll(timeout_ms=200).values():
                    yield from records
        finally:
            consumer.close()
