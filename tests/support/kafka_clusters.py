"""The clusters that the tests can run against: the same tests, whoever provides the broker.

`EDDY_BOOTSTRAP_SERVERS` names a running cluster; `EDDY_TEST_BROKER=container` starts one with Docker
(testcontainers); otherwise it is a local broker as `eddy demo` starts it: no Docker, no Java needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from eddy.stream.local_kafka.broker import broker_or_local
from eddy.stream.records.settings import Settings, load_settings

BROKER_KIND = "EDDY_TEST_BROKER"
_IMAGE = "confluentinc/cp-kafka:8.1.0"  # Apache Kafka 4.1

MakeSettings = Callable[..., Settings]


@contextmanager
def cluster() -> Iterator[str]:
    """Yields the address of a cluster that answers."""
    broker = os.environ.get(BROKER_KIND, "local")
    if broker == "container":
        from testcontainers.community.kafka import KafkaContainer

        container = KafkaContainer(_IMAGE).with_kraft().with_env("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false")
        with container:
            yield container.get_bootstrap_server()
    elif broker == "local":
        with broker_or_local(load_settings()) as address:
            yield address
    else:
        raise ValueError(f"{BROKER_KIND}={broker}: 'local' or 'container'")
