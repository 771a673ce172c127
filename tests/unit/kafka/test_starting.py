"""Clients start through a cluster's weak moments, and fail at once where another attempt cannot help."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.errors import KafkaConnectionError, TopicAuthorizationFailedError

from eddy.stream.kafka import starting
from eddy.stream.kafka.starting import started


class StubClient:
    """Fails to start with an error, or starts without one."""

    def __init__(self, error: BaseException | None) -> None:
        self.error, self.stopped = error, False

    async def start(self) -> None:
        if self.error is not None:
            raise self.error

    async def stop(self) -> None:
        self.stopped = True


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "_RETRY_S", 0)


def test_a_new_client_is_tried_while_the_cluster_is_away_or_names_no_broker() -> None:
    clients = [
        StubClient(KafkaConnectionError()),
        StubClient(AssertionError("Did we not perform bootstrap?")),
        StubClient(None),
    ]
    attempts = iter(clients)
    assert asyncio.run(started(lambda: next(attempts))) is clients[-1]
    assert [client.stopped for client in clients] == [True, True, False]


def test_what_another_attempt_cannot_mend_is_raised_at_once() -> None:
    attempts = iter([StubClient(TopicAuthorizationFailedError("events"))])
    with pytest.raises(TopicAuthorizationFailedError):
        asyncio.run(started(lambda: next(attempts)))


def test_patience_ends() -> None:
    with pytest.raises(KafkaConnectionError):
        asyncio.run(started(lambda: StubClient(KafkaConnectionError()), within_s=0.01))
