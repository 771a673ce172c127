"""Every setting at its bounds makes clients and topics: nothing refuses later what was accepted."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from eddy.models.errors import EddyError
from eddy.models.registry import Version
from eddy.stream.kafka.clients import client_config
from eddy.stream.kafka.producers import new_producer
from eddy.stream.kafka.topics import topic_specs
from eddy.stream.records.settings import Settings, load_settings
from eddy.stream.worker.app import connect, new_app
from eddy.stream.worker.probes import serve_metrics
from eddy.stream.worker.worker import REVOKE_BUDGET
from tests.support.engines import random_version
from tests.support.setting_bounds import FIELDS, bounds, extremes, is_number
from tests.support.workers import new_worker

NUMBERS = [name for name, field in FIELDS.items() if is_number(field)]
AT_BOUNDS = [(name, value) for name in FIELDS for value in extremes(name)]
SASL = {"sasl_username": "eddy", "sasl_password": "secret", "sasl_oauth_token_provider": "getpass:getuser"}
LONGEST_TOPIC = 249
LONG = 1 << 63


def made_with(folder: Path, **values: Any) -> Settings:
    """Settings of a cluster that nobody asks, with what goes with the values."""
    if values.get("security_protocol", "").startswith("SASL"):
        values |= {**SASL, "sasl_mechanism": "PLAIN"}
    elif "sasl_mechanism" in values:
        values |= {**SASL, "security_protocol": "SASL_PLAINTEXT"}
    return load_settings(**{"bootstrap_servers": "127.0.0.1:1", "cache_dir": folder, **values})


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_is_bounded_on_both_sides(name: str) -> None:
    assert len(bounds(FIELDS[name])) == 2


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("beyond", ["nan", "inf", "-inf", "1e400"])
def test_what_is_no_finite_number_is_refused(name: str, beyond: str) -> None:
    with pytest.raises(EddyError, match=f"EDDY_{name.upper()}"):
        load_settings(**{name: beyond})


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Version:
    return random_version(tmp_path_factory.mktemp("registry"))


@pytest.mark.parametrize(("name", "value"), AT_BOUNDS)
def test_a_setting_at_its_bounds_makes_a_worker_s_clients_and_topics(
    version: Version, tmp_path: Path, name: str, value: object
) -> None:
    settings = made_with(tmp_path, **{name: value})

    async def make() -> None:
        worker = new_worker(settings, version)
        app = new_app(settings, "")
        connect(app, settings, worker)
        faust_consumer: Any = app.consumer
        thread = faust_consumer._new_consumer_thread()
        consumer = thread._create_worker_consumer(app.transport)
        joining_ms = consumer._rebalance_timeout_ms
        assert consumer._session_timeout_ms <= joining_ms < consumer._request_timeout_ms
        assert settings.session_timeout_s * REVOKE_BUDGET * 1000 < joining_ms
        assert consumer._heartbeat_interval_ms < consumer._session_timeout_ms / 3
        await consumer.stop()
        for unused in (thread, faust_consumer._thread):
            unused.thread_loop.close()
        await new_producer(settings, f"{settings.group}-0").stop()
        await worker.stop()

    asyncio.run(make())
    client_config(settings)
    for spec in topic_specs(settings):
        assert len(spec.name) <= LONGEST_TOPIC
        assert all(0 <= int(number) < LONG for number in spec.config.values() if number.isdecimal())


@pytest.mark.parametrize("name", [".", "..", "", "two words", "a/b"])
@pytest.mark.parametrize("variable", ["group", "worker_id"])
def test_a_name_that_kafka_or_a_folder_cannot_have_is_refused(variable: str, name: str) -> None:
    with pytest.raises(EddyError, match=f"EDDY_{variable.upper()}"):
        load_settings(**{variable: name})


def test_no_replica_at_all_is_refused() -> None:
    with pytest.raises(EddyError, match="EDDY_REPLICATION"):
        load_settings(replication=0)


def test_a_stall_shorter_than_two_checkpoints_is_refused() -> None:
    """Offsets stand still between two of them: a healthy worker would end itself."""
    with pytest.raises(EddyError, match=r"EDDY_STALL_S.*at least 120"):
        load_settings(checkpoint_ms=60_000, stall_s=119)


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(EddyError, match="EDDY_DEVICE"):
        load_settings(device="tpu")
    with pytest.raises(EddyError, match="EDDY_DEVICE=cuda:99"):
        _ = load_settings(device="cuda:99").torch_device


def test_an_address_for_metrics_that_cannot_be_had_names_its_settings() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EddyError, match="EDDY_METRICS_PORT") as refused:
            serve_metrics(load_settings(), port, CollectorRegistry())
    assert f"127.0.0.1:{port}" in str(refused.value)
