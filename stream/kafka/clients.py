"""Connections to the cluster that the settings name, with TLS and SASL for both Kafka clients.

Guarantee: secrets leave `SecretStr` only in the keyword arguments of a client, and a cluster that cannot be
reached is one EddyError within about ten seconds.
"""

from __future__ import annotations

import math
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from pydantic import SecretStr

from eddy.models.errors import EddyError
from eddy.stream.records.settings import Settings

_CONNECT_TIMEOUT_MS = 8_000
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
    return {**_common(settings), "bootstrap_servers": require_servers(settings).split(",")}


def aiokafka_config(settings: Settings) -> dict[str, Any]:
    """Keyword arguments common to aiokafka's producer and consumer."""
    return {**_common(settings), "bootstrap_servers": require_servers(settings)}


def _common(settings: Settings) -> dict[str, Any]:
    config: dict[str, Any] = {"security_protocol": settings.security_protocol}
    if settings.security_protocol.endswith("SSL"):
        config["ssl_context"] = ssl_context(settings)
    if settings.sasl_mechanism:
        config |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": _revealed(settings.sasl_password),
        }
    return config


def ssl_context(settings: Settings) -> ssl.SSLContext:
    """The TLS context of the settings' files. Errors: EddyError when one of them cannot be used."""
    try:
        context = ssl.create_default_context(cafile=settings.ssl_cafile)
        context.check_hostname = settings.ssl_check_hostname
        if settings.ssl_certfile:
            context.load_cert_chain(
                settings.ssl_certfile, settings.ssl_keyfile, _revealed(settings.ssl_password)
            )
    except (OSError, ssl.SSLError) as error:
        raise EddyError(
            f"TLS: cannot use EDDY_SSL_CAFILE, EDDY_SSL_CERTFILE or EDDY_SSL_KEYFILE: {error}"
        ) from None
    return context


def _revealed(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None


@contextmanager
def admin_client(settings: Settings) -> Iterator[KafkaAdminClient]:
    """A connected admin client. Errors: EddyError when the cluster does not answer in time."""
    try:
        admin = KafkaAdminClient(**client_config(settings), bootstrap_timeout_ms=_CONNECT_TIMEOUT_MS)
    except (KafkaError, OSError) as error:
        raise EddyError(
            f"no answer from the Kafka cluster at {settings.bootstrap_servers} ({type(error).__name__}): "
            "is it running, and are EDDY_BOOTSTRAP_SERVERS, EDDY_SECURITY_PROTOCOL and EDDY_SASL_* right?"
        ) from error
    try:
        yield admin
    finally:
        admin.close()


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


def cluster_id_at(address: str) -> str | None:
    """The id of the plain-text cluster that answers at `address`; None when none answers yet."""
    try:
        admin = KafkaAdminClient(bootstrap_servers=address, bootstrap_timeout_ms=2_000)
    except (KafkaError, OSError):
        return None
    try:
        cluster = admin.describe_cluster()
        return cluster["cluster_id"] if cluster["brokers"] else None
    except KafkaError:
        return None
    finally:
        admin.close()
