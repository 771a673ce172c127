"""The testbed of the measurements: one broker for the whole run, and for each installation topics of its own,
which are deleted afterwards.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kafka.admin import NewTopic

from eddy.models.registry import Version
from eddy.stream.kafka.clients import admin_client
from eddy.stream.kafka.topics import ensure_topics
from eddy.stream.kafka.versions import announce
from eddy.stream.records.settings import Settings, load_settings
from tests.bench.versions import Score, make_version
from tests.bench.workload import Workload, write_events


@dataclass
class Testbed:
    """The broker's address, a folder for logs and registries, and the workload."""

    bootstrap: str
    folder: Path
    workload: Workload = field(default_factory=Workload)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _versions: dict[tuple[Score, int, int], Version] = field(default_factory=dict)

    def version(self, score: Score, items: int = 10_000, hidden: int = 128) -> Version:
        """The version of that shape, which is made once for the whole run."""
        key = (score, items, hidden)
        if key not in self._versions:
            self._versions[key] = make_version(self.folder / "registry", *key)
        return self._versions[key]

    @contextmanager
    def installation(self, partitions: int, events: int = 0) -> Iterator[Settings]:
        """Yields settings of new topics, with a backlog of so many events; the topics are deleted at
        the end.
        """
        name = f"bench-{next(self._numbers)}"
        settings = load_settings(
            bootstrap_servers=self.bootstrap,
            topic_prefix=f"{name}.",
            group=name,
            partitions=partitions,
            registry=self.folder / "registry",
        )
        with admin_client(settings) as admin:
            ensure_topics(admin, settings)
        try:
            if events:
                asyncio.run(write_events(settings, events, self.workload))
            yield settings
        finally:
            with admin_client(settings) as admin:
                topics = [topic for topic in admin.list_topics() if topic.startswith(settings.topic_prefix)]
                admin.delete_topics(topics)

    def result_topic(self, settings: Settings, name: str) -> str:
        """A new topic for a peer's answers: as `recommendations` is, but for compaction."""
        topic = f"{settings.topic_prefix}{name}-{next(self._numbers)}"
        config = {"message.timestamp.type": "LogAppendTime"}
        with admin_client(settings) as admin:
            admin.create_topics([NewTopic(topic, settings.partitions, 1, topic_configs=config)])
            admin.wait_for_topics([topic])
        return topic

    def go_live(self, settings: Settings, version: Version) -> None:
        """Announce a version for an installation."""
        announce(settings, version)

    def work_folder(self) -> Path:
        """A new folder for one run's logs and caches."""
        folder = self.folder / f"run-{next(self._numbers)}"
        folder.mkdir(parents=True)
        return folder
