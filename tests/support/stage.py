"""A stage for tests with real workers on a real broker: topics, a live version, traffic, and an observer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kafka import KafkaProducer

from eddy.models.registry import Version
from eddy.stream.kafka.clients import admin_client, client_config
from eddy.stream.kafka.topics import ensure_topics, topic_ids
from eddy.stream.kafka.versions import announce
from eddy.stream.records.messages import Message
from eddy.stream.records.settings import Settings
from tests.chaos.cluster import Cluster
from tests.chaos.fleet import Fleet
from tests.chaos.verify import Verdict, verify
from tests.support.engines import random_version
from tests.support.waiting import eventually

SCALE = int(os.environ.get("EDDY_TEST_SCALE", "1"))
"""Multiplies the number of events that the large tests send: with 50 they send a million events of 2013, and
100,000 fuzzed ones.
"""

PATIENCE_S = 90.0 * SCALE


class Stage:
    """One installation of Eddy; workers are started by the test."""

    def __init__(self, settings: Settings, folder: Path, fleet: Fleet) -> None:
        with admin_client(settings) as admin:
            ensure_topics(admin, settings)
            topic = settings.topics.events
            self.topic_id = topic_ids(admin, [topic])[topic].bytes
        self.settings, self.folder, self.fleet = settings, folder, fleet
        self.version: Version = random_version(settings.registry)
        announce(settings, self.version)
        self.cluster = Cluster(settings)

    def send(self, messages: Iterable[Message], partition: int | None = None) -> None:
        """Write to `events` as any producer would, and return when it is confirmed."""
        config = client_config(self.settings)
        producer = KafkaProducer(**config, max_request_size=8 << 20, linger_ms=5)
        topic = self.settings.topics.events
        try:
            futures = [producer.send(topic, key=k, value=v, partition=partition) for k, v in messages]
            producer.flush()
            for future in futures:
                future.get(timeout=PATIENCE_S)
        finally:
            producer.close()

    def ends(self) -> dict[int, int]:
        return self.cluster.ends(self.settings.topics.events, self.settings.partitions)

    def await_end(self) -> None:
        """Wait until the group has committed everything that is on `events` now."""
        ends = {number: end for number, end in self.ends().items() if end}

        def there() -> bool:
            committed = self.cluster.committed()
            return all(committed.get(number, -1) >= end for number, end in ends.items())

        eventually(there, PATIENCE_S, f"the group at {ends}")

    def verdict(self) -> Verdict:
        """Compares everything on Kafka with one undisturbed pass over the log."""
        return verify(self.cluster, self.version, self.topic_id)


@contextmanager
def staged(settings: Settings, folder: Path) -> Iterator[Stage]:
    """Yields a stage; its workers are ended afterwards, and their logs are printed when the test fails."""
    with Fleet(settings, folder) as fleet:
        stage = Stage(settings, folder, fleet)
        try:
            yield stage
        except BaseException:
            for log in sorted(folder.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-5000:]}")
            raise
        finally:
            stage.cluster.close()
