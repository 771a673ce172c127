"""A replay that the cluster interrupts: what is said of the events that are written already."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError

from eddy.models.errors import EddyError
from eddy.stream import feed as feeding
from eddy.stream.feed import feed
from eddy.stream.kafka.producers import send_all
from eddy.stream.records.settings import Settings
from tests.chaos.cluster import Cluster
from tests.support.walks import walks


def test_a_replay_that_is_interrupted_says_from_where_to_go_on(
    installed: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = walks(10, 30)
    sent = 0

    async def send_or_fail(*arguments: Any) -> Any:
        if sent >= 200:
            raise KafkaTimeoutError
        return await send_all(*arguments)

    def note(done: int) -> None:
        nonlocal sent
        sent = done

    monkeypatch.setattr(feeding, "send_all", send_or_fail)
    monkeypatch.setattr(feeding, "_AT_ONCE", 100)
    with pytest.raises(
        EddyError,
        match=r"took 200 of 300 events, the first by time until 2023-11-15 01:32:20 UTC, .*event_id",
    ):
        asyncio.run(feed(installed, events, None, note))
    cluster = Cluster(installed)
    assert sum(cluster.ends(installed.topics.events, installed.partitions).values()) == 200
    cluster.close()
