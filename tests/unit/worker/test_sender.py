"""The sender: what becomes of batches whose messages nobody waits for any more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from unittest.mock import AsyncMock

import pytest
from prometheus_client import CollectorRegistry, Gauge

from eddy.stream.records.settings import TopicNames
from eddy.stream.worker.micro_batch import BatchOutput
from eddy.stream.worker.sender import Sender

pytestmark = pytest.mark.unit


def test_batches_of_an_abandoned_checkpoint_are_unanswered_no_more() -> None:
    """The demo waits until no batch is: one that stayed so would let it wait without end."""
    registry = CollectorRegistry()
    unanswered = Gauge("unanswered", "Batches", registry=registry)

    def batch(ranked: Callable[[], None]) -> BatchOutput:
        unanswered.inc()
        return BatchOutput([], b"", [], ranked, [], unanswered)

    async def run() -> None:
        sender, made = Sender(AsyncMock(), TopicNames("")), threading.Event()

        def take_long() -> None:
            made.wait(60)

        for _ in range(3):
            sender.put_batch(batch(take_long))
        await asyncio.sleep(0)  # the first one's answers are being made, the others wait for their turn
        assert registry.get_sample_value("unanswered") == 3
        confirmed = asyncio.ensure_future(sender.take_unconfirmed())
        confirmed.cancel()
        with suppress(asyncio.CancelledError):
            await confirmed
        made.set()
        assert registry.get_sample_value("unanswered") == 0
        sender.put_batch(batch(lambda: None))
        await sender.take_unconfirmed()
        assert registry.get_sample_value("unanswered") == 0
        sender.close()

    asyncio.run(run())
