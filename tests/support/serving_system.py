"""A worker and a server, each a process of its own, and the hands of an operator."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from kafka import KafkaConsumer, KafkaProducer

from eddy.stream.kafka.clients import client_config
from eddy.stream.kafka.topics import prepare_topics
from eddy.stream.kafka.versions import announce
from eddy.stream.records.schema import Event, encode
from eddy.stream.records.settings import Settings, load_settings
from tests.chaos.cluster import Cluster
from tests.support.engines import item_id, random_version
from tests.support.waiting import eventually

START = 1_370_000_000_000  # 2013: replayed logs live in their own time
ITEMS = 200

_RUN = """
import asyncio, logging, sys
logging.basicConfig(level=logging.WARNING)
from eddy.stream.records.settings import load_settings
from {module} import {function}
asyncio.run({function}(load_settings(){more}))
"""


@contextmanager
def process(
    settings: Settings, module: str, function: str, more: str = ""
) -> Iterator[subprocess.Popen[str]]:
    """One of Eddy's processes, ended by SIGTERM; it must then end by itself and well."""
    names = (
        "bootstrap_servers", "topic_prefix", "group", "partitions", "registry", "k", "item_idle_days",
    )  # fmt: skip
    own = {name: getattr(settings, name) for name in names}
    environment = {**os.environ, **{f"EDDY_{name.upper()}": str(value) for name, value in own.items()}}
    environment |= {"EDDY_PORT": "0", "EDDY_CACHE_DIR": str(settings.registry.parent / "cache")}
    code = _RUN.format(module=module, function=function, more=more)
    child = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        yield child
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 0
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


@contextmanager
def server(settings: Settings) -> Iterator[httpx.Client]:
    """A client of a server process of its own."""
    with process(
        settings, "eddy.serving.server", "run_server", ", lambda url: print(url, flush=True)"
    ) as child:
        assert child.stdout is not None
        url = child.stdout.readline().strip()
        with httpx.Client(base_url=url, timeout=30) as client:
            yield client


def with_topics(settings: Settings) -> Settings:
    prepare_topics(settings)
    return settings


class System:
    """A worker, a server, and the hands of an operator."""

    def __init__(self, settings: Settings, client: httpx.Client, producer: KafkaProducer) -> None:
        self.settings, self.client, self.producer = settings, client, producer
        self.events = 0

    def send(self, user: str, items: list[int], event_type: str = "view") -> tuple[int, int]:
        """Events of one user, later than all before; returns partition and offset of the last."""
        for number in items:
            self.events += 1
            event = Event(user, item_id(number), START + 1000 * self.events, event_type)
            sent = self.producer.send(self.settings.topics.events, key=user.encode(), value=encode(event))
        at = sent.get(timeout=30)
        return at.partition, at.offset

    def ask(self, user: str, **query: Any) -> dict[str, Any]:
        response = self.client.get(f"/v1/users/{user}/recommendations", params=query)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def send_and_see(self, user: str, items: list[int], quoted: str | None = None) -> tuple[int, int]:
        """Events of one user; returns, once the server answers as of the last of them, where that is."""
        at = self.send(user, items)
        eventually(lambda: self.serves(quoted or user, at))
        return at

    def serves(self, user: str, at: tuple[int, int]) -> bool:
        answer = self.ask(user)
        return (answer["partition"], answer["offset"]) == at


def message_at(settings: Settings, at: tuple[int, int]) -> dict[str, Any]:
    """The emitted list as of one record of `events`, read as a downstream team would."""
    consumer = KafkaConsumer(
        settings.topics.recommendations,
        **client_config(settings),
        auto_offset_reset="earliest",
        consumer_timeout_ms=30_000,
    )
    try:
        for record in consumer:
            if record.value is None:  # a user was erased
                continue
            message: dict[str, Any] = json.loads(record.value)
            if (message["partition"], message["offset"]) == at:
                return message
    finally:
        consumer.close()
    raise AssertionError(f"no message for {at}")


def newest(settings: Settings, topic: str) -> dict[bytes, bytes]:
    """The newest record of each key of a topic of one partition that is no tombstone."""
    last = {record.key: record.value for record in Cluster(settings).read(topic, 1)}
    return {key: value for key, value in last.items() if value is not None}


@contextmanager
def running_system(broker: str, folder: Path) -> Iterator[System]:
    """One whose topics and group are its own, as soon as its server is ready."""
    name = f"test-serving-{uuid.uuid4().hex[:8]}"
    settings = load_settings(
        bootstrap_servers=broker,
        topic_prefix=f"{name}.",
        group=name,
        partitions=2,
        registry=folder / "registry",
    )
    announce(with_topics(settings), random_version(settings.registry, items=ITEMS))
    producer = KafkaProducer(**client_config(settings), acks="all")
    try:
        with process(settings, "eddy.stream.worker.app", "run_worker"), server(settings) as client:
            eventually(lambda: client.get("/readyz").status_code == 200, within_s=60)
            yield System(settings, client, producer)
    finally:
        producer.close()
