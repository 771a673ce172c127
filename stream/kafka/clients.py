"""Connections to the cluster that the settings name, with TLS and SASL for both Kafka clients.

Guarantee: a cluster that cannot be reached, or that does not let this client in, is one EddyError within
about ten seconds, which says why.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError
from kafka.net import KafkaNetClient

from eddy.models.errors import EddyError
from eddy.stream.kafka.security.connecting import Refused, reason_of_failure
from eddy.stream.kafka.security.credentials import for_aiokafka, for_kafka_python
from eddy.stream.records.settings import Settings

_FIRST_ATTEMPT_MS, _SECOND_ATTEMPT_MS = 1_500, 6_500
"""How long two attempts to connect may take; between them the reason is looked for."""

_CONNECT_MS = 2_000
"""How long an attempt may take of whoever tries again later."""

# It dumps whole groups, because it cannot read what Faust adds to a subscription.
logging.getLogger("kafka.admin").setLevel(logging.ERROR)

Client = TypeVar("Client")
_POLL_MS = 200


class NotReadInTime(EddyError):
    """The cluster does not bring what it has."""


def require_servers(settings: Settings) -> str:
    """The cluster's address. Errors: EddyError when none is set."""
    if not settings.bootstrap_servers:
        raise EddyError(
            "no Kafka cluster is named: set EDDY_BOOTSTRAP_SERVERS=host:port (`eddy broker` starts one here)"
        )
    return settings.bootstrap_servers


def client_config(settings: Settings) -> dict[str, Any]:
    """Keyword arguments common to kafka-python's admin, producer and consumer."""
    return {"bootstrap_servers": require_servers(settings).split(","), **for_kafka_python(settings)}


def aiokafka_config(settings: Settings) -> dict[str, Any]:
    """Keyword arguments common to aiokafka's producer and consumer."""
    return {"bootstrap_servers": require_servers(settings), **for_aiokafka(settings)}


@contextmanager
def admin_client(settings: Settings) -> Iterator[KafkaAdminClient]:
    """A connected admin client. Errors: EddyError that says why the cluster does not answer in time; it is
    `Refused` where the cluster does not let this client in.
    """
    admin = _admin(settings)
    try:
        yield admin
    finally:
        admin.close()


def connected_admin(settings: Settings, within_ms: int | None = None) -> KafkaAdminClient:
    """An admin client, for whoever tries again when it cannot connect. Errors: those of kafka-python."""
    config = client_config(settings)
    return _connected(KafkaAdminClient, {**config, "bootstrap_timeout_ms": within_ms or _CONNECT_MS})


def _connected(new_client: Callable[..., Client], config: Mapping[str, Any]) -> Client:
    """A client of kafka-python. One that cannot connect would leave its thread and its sockets behind: here
    they are closed, so that a process may try for days.
    """
    networks: list[KafkaNetClient] = []

    def new_network(**config: Any) -> KafkaNetClient:
        networks.append(KafkaNetClient(**config))
        return networks[-1]

    try:
        return new_client(**config, kafka_client=new_network)
    except BaseException:
        for network in networks:
            network.close()
        raise


def _admin(settings: Settings) -> KafkaAdminClient:
    def connect(within_ms: int) -> KafkaAdminClient:
        with _quiet:
            return connected_admin(settings, within_ms)

    try:
        return connect(_FIRST_ATTEMPT_MS)
    except (KafkaError, OSError):
        reason = reason_of_failure(settings)
        if isinstance(reason, Refused):
            raise reason from None
    try:
        return connect(_SECOND_ATTEMPT_MS)
    except (KafkaError, OSError) as error:
        raise reason or EddyError(
            f"no answer from the Kafka cluster at {settings.bootstrap_servers} in time "
            f"({type(error).__name__}): try again"
        ) from error


def new_consumer(settings: Settings, **config: Any) -> KafkaConsumer:
    """A kafka-python consumer. Errors: those of kafka-python when no cluster answers; `Refused`."""
    return _patient(KafkaConsumer, settings, config)


def new_sync_producer(settings: Settings, transactional_id: str | None = None) -> KafkaProducer:
    """A kafka-python producer, whose records all replicas have confirmed. Errors: as `new_consumer`."""
    config = {"acks": "all", "transactional_id": transactional_id}
    return _patient(KafkaProducer, settings, config)


def _patient(new_client: Callable[..., Client], settings: Settings, config: dict[str, Any]) -> Client:
    """A client that has as long as it likes to connect, unless it is `Refused`."""
    config = {**client_config(settings), **config}
    try:
        with _quiet:
            return _connected(new_client, {**config, "bootstrap_timeout_ms": _FIRST_ATTEMPT_MS})
    except (KafkaError, OSError):
        reason = reason_of_failure(settings)
        if isinstance(reason, Refused):
            raise reason from None
    return _connected(new_client, config)


class _Quiet:
    """Keeps kafka-python from logging each failed connection, in many lines that leave the reason out, while
    any thread connects.
    """

    def __init__(self) -> None:
        self._logger = logging.getLogger("kafka")
        self._lock = threading.Lock()
        self._connecting, self._level = 0, logging.NOTSET

    def __enter__(self) -> None:
        with self._lock:
            if not self._connecting:
                self._level = self._logger.level
                self._logger.setLevel(logging.CRITICAL)
            self._connecting += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._connecting -= 1
            if not self._connecting:
                self._logger.setLevel(self._level)


_quiet = _Quiet()


def records_to_end(
    consumer: KafkaConsumer, end: Mapping[TopicPartition, int], within_s: float = math.inf
) -> Iterator[Any]:
    """The records (kafka-python's) from a consumer's position on, until it has passed `end` everywhere.

    Errors: NotReadInTime when that takes longer than `within_s`.
    """
    deadline = time.monotonic() + within_s
    while any(consumer.position(tp) < offset for tp, offset in end.items()):
        if time.monotonic() > deadline:
            topics = ", ".join(sorted({tp.topic for tp in end}))
            raise NotReadInTime(f"topic {topics} cannot be read to its end within {within_s:.0f} s")
        for records in consumer.poll(timeout_ms=_POLL_MS).values():
            yield from records


def cluster_id_at(address: str, **login: str) -> str | None:
    """The id of the cluster that answers at `address`; None when none answers yet. login: what kafka-python
    needs to come in, where not everybody may.
    """
    try:
        config = {"bootstrap_servers": address, "bootstrap_timeout_ms": _CONNECT_MS, **login}
        admin = _connected(KafkaAdminClient, config)
    except (KafkaError, OSError):
        return None
    try:
        cluster = admin.describe_cluster()
        return cluster["cluster_id"] if cluster["brokers"] else None
    except KafkaError:
        return None
    finally:
        admin.close()
