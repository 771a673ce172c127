"""Clients that cannot connect: whoever tries again and again must be able to do so for days."""

from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Callable, Iterator

import psutil
import pytest
from kafka.errors import KafkaError

from eddy.stream.kafka import clients
from eddy.stream.kafka.clients import cluster_id_at, connected_admin, new_consumer
from eddy.stream.kafka.login_watch import LoginWatch
from eddy.stream.kafka.topic_watch import TopicWatch
from eddy.stream.records.settings import Settings

WITHIN_MS = 50
TRIES = 3


@pytest.fixture
def nobody() -> Iterator[Settings]:
    """Settings that name a port at which nobody answers."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield Settings(bootstrap_servers=f"127.0.0.1:{bound.getsockname()[1]}")


def held() -> tuple[int, int]:
    """Threads and open files of this process."""
    gc.collect()  # a socket of an attempt may hang in a cycle
    return threading.active_count(), psutil.Process().num_fds()


def refused(new_client: Callable[[Settings], object]) -> Callable[[Settings], object]:
    def attempt(settings: Settings) -> None:
        with pytest.raises((KafkaError, OSError)):
            new_client(settings)

    return attempt


ATTEMPTS: dict[str, Callable[[Settings], object]] = {
    "an admin": refused(lambda settings: connected_admin(settings, WITHIN_MS)),
    "a consumer": refused(lambda settings: new_consumer(settings, bootstrap_timeout_ms=WITHIN_MS)),
    "the watch of the login": lambda settings: LoginWatch(settings).look(),
    "the watch of the topics": lambda settings: TopicWatch(settings, {}).look(),
    "the wait for a broker": lambda settings: cluster_id_at(settings.bootstrap_servers or ""),
}


@pytest.mark.parametrize("who", ATTEMPTS)
def test_a_failed_attempt_to_connect_leaves_no_thread_and_no_file(
    nobody: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, who: str
) -> None:
    caplog.set_level("CRITICAL", "kafka")  # a kept log record keeps the error's frames, and their sockets
    monkeypatch.setattr(clients, "_FIRST_ATTEMPT_MS", WITHIN_MS)
    monkeypatch.setattr(clients, "_CONNECT_MS", WITHIN_MS)
    ATTEMPTS[who](nobody)
    before = held()
    for _ in range(TRIES):
        ATTEMPTS[who](nobody)
    assert held() == before
