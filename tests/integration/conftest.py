"""What tests on the session's broker share: real workers, announced versions, a worker with its server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from eddy.models.registry import Version
from eddy.stream.kafka.topics import ensure_topics
from eddy.stream.kafka.versions import announce
from eddy.stream.records.settings import Settings
from tests.support.kafka_clusters import MakeSettings
from tests.support.published_versions import publish
from tests.support.serving_system import System, running_system
from tests.support.stage import Stage, staged


@pytest.fixture
def stage(make_settings: MakeSettings, tmp_path: Path) -> Iterator[Stage]:
    """An installation of two partitions, sessions as short as they may be."""
    settings = make_settings(partitions=2, session_timeout_s=6, k=5, metrics_port=0)
    with staged(settings, tmp_path) as one:
        yield one


@pytest.fixture
def installed(settings: Settings, admin: KafkaAdminClient) -> Settings:
    """An installation with its topics."""
    ensure_topics(admin, settings)
    return settings


@pytest.fixture
def four(installed: Settings) -> list[Version]:
    """Four versions, each of which was live for all users: epochs 1 to 4."""
    made = publish(installed, 4)
    for version in made:
        announce(installed, version)
    return made


@pytest.fixture(scope="module")
def system(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A worker and a server that are ready, the same for all tests of a module."""
    with running_system(broker, tmp_path_factory.mktemp("serving")) as one:
        yield one
