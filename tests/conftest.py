"""Fixtures that all tests share: one real Kafka for the session, and settings that keep tests apart on it."""

from __future__ import annotations

import logging
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from kafka import KafkaAdminClient

from eddy.stream.kafka.clients import admin_client
from eddy.stream.records.settings import Settings, load_settings
from eddy.stream.state import slab
from tests.support.kafka_clusters import MakeSettings, broker_kind, cluster, why_no_container

KINDS = ("unit", "integration", "browser", "e2e")

pytest.register_assert_rewrite("tests.support.kafka_contract")

hypothesis_settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("untimed")
"""On a loaded machine any example may take long, as may the first one that compiles a loop."""

slab.COLUMN_SHARE, slab.LEAST_ROWS = 0.0, 256
"""A test run makes thousands of slabs, most of them for a few rows. The first row in room for many takes huge
pages, 40 MB of zeros: an eighth of the time of a test in memory.
"""

os.environ.setdefault("EDDY_HTTP_MAX_WAIT_MS", "20000")
"""What a loaded machine answers late is answered all the same; refusals have tests of their own."""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a run in the background, or under nohup
    signal.signal(signal.SIGINT, signal.default_int_handler)
"""Processes that tests start take over how their parent takes Ctrl-C, and are to be ended by it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks each test by its folder, and puts the quick ones first; last where several processes share the
    files, so that none of them is left alone with a long one.
    """
    for item in items:
        for kind in KINDS:
            if kind in item.path.relative_to(Path(__file__).parent).parts:
                item.add_marker(kind)
    kinds = KINDS[::-1] if "PYTEST_XDIST_WORKER" in os.environ else KINDS
    items.sort(key=lambda item: next(i for i, kind in enumerate(kinds) if item.get_closest_marker(kind)))


@pytest.fixture(autouse=True)
def the_log_level_ends_with_the_test() -> Iterator[None]:
    """A command that a test runs in this process turns Eddy's news on; the next test counts lines."""
    logger = logging.getLogger("eddy")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture(scope="session")
def broker() -> Iterator[str]:
    """The address of a real Kafka, the same for all tests of the session."""
    kind = broker_kind()
    if kind == "container" and (reason := why_no_container()):
        pytest.skip(reason)
    with cluster(kind) as address:
        yield address


@pytest.fixture
def make_settings(broker: str, tmp_path: Path) -> MakeSettings:
    """Makes settings for the session's broker; the topics and the group of each are its own."""

    def make(**values: object) -> Settings:
        name = uuid.uuid4().hex[:8]
        own = {"topic_prefix": f"test-{name}.", "group": f"test-{name}", "registry": tmp_path / "registry"}
        return load_settings(**{"bootstrap_servers": broker, **own, **values})

    return make


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings()


@pytest.fixture
def admin(settings: Settings) -> Iterator[KafkaAdminClient]:
    with admin_client(settings) as client:
        yield client
