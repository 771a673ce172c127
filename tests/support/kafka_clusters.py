"""The clusters that the tests can run against: the same tests, whoever provides the broker.

`EDDY_BOOTSTRAP_SERVERS` names a running cluster; `EDDY_TEST_BROKER=container` starts one with Docker
(testcontainers); otherwise it is a local broker as `eddy demo` starts it: no Docker, no Java needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from eddy.stream.local_kafka.broker import broker_or_local
from eddy.stream.records.settings import Settings, load_settings

BROKER_KIND = "EDDY_TEST_BROKER"
_IMAGE = "confluentinc/cp-kafka:8.1.0"  # Apache Kafka 4.1

MakeSettings = Callable[..., Settings]


def broker_kind() -> str:
    """The kind of broker that the tests are to run against."""
    return os.environ.get(BROKER_KIND, "local")


def why_no_container() -> str:
    """Why no container can be started here; empty where a Docker engine answers."""
    import docker

    try:
        with closing(docker.from_env(timeout=5)) as engine:
            engine.ping()
    except docker.errors.DockerException as error:
        return f"no Docker engine answers here ({error})"
    return ""


@contextmanager
def cluster(broker: str) -> Iterator[str]:
    """Yields the address of a cluster that answers. broker: the kind, as `broker_kind` gives it."""
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
