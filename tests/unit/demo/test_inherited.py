"""Which settings of the user's reach the demo and its processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from eddy.demo.inherited import environment, left_out, without_left_out
from eddy.demo.resources import server_port
from eddy.models.errors import EddyError
from eddy.stream.local_kafka.free_port import free_port, is_free
from eddy.stream.records.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("EDDY_")]:
        monkeypatch.delenv(name)


def settings_and_variables(
    monkeypatch: pytest.MonkeyPatch, **variables: str
) -> tuple[Settings, dict[str, str]]:
    """The user's settings, and the environment of the demo's processes but for what the run chooses."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    run = without_left_out(settings).replace(bootstrap_servers="127.0.0.1:1", topic_prefix="run.")
    return settings, environment(settings, run, os.environ)


def test_what_is_of_an_installation_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, passed = settings_and_variables(
        monkeypatch, EDDY_API_KEYS_FILE="/keys", EDDY_PARTITIONS="12", EDDY_TOPIC_PREFIX="shop.", EDDY_K="20",
        eddy_log_format="json", EDDY_THREADS="1", EDDY_HOST="0.0.0.0", EDDY_UNKNOWN="1", LANG="C",
    )  # fmt: skip
    assert left_out(settings) == ["api_keys_file", "log_format", "partitions", "topic_prefix"]
    assert without_left_out(settings).partitions == 4
    assert passed["EDDY_TOPIC_PREFIX"] == "run."
    assert (passed["EDDY_THREADS"], passed["EDDY_HOST"], passed["LANG"]) == ("1", "0.0.0.0", "C")
    unwanted = {"EDDY_API_KEYS_FILE", "EDDY_PARTITIONS", "eddy_log_format", "EDDY_UNKNOWN"}
    assert not unwanted & passed.keys()


def test_the_login_of_a_cluster_goes_with_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    login = {
        "EDDY_SECURITY_PROTOCOL": "SASL_SSL", "EDDY_SASL_MECHANISM": "PLAIN", "EDDY_SASL_USERNAME": "shop",
        "EDDY_SASL_PASSWORD": "secret", "EDDY_REPLICATION": "3",
    }  # fmt: skip
    settings, passed = settings_and_variables(monkeypatch, **login)
    assert len(left_out(settings)) == len(login)
    assert not login.keys() & passed.keys()
    assert without_left_out(settings).security_protocol == "PLAINTEXT"
    settings, passed = settings_and_variables(monkeypatch, **login, EDDY_BOOTSTRAP_SERVERS="kafka:9093")
    assert left_out(settings) == []
    assert login.items() <= passed.items()
    assert passed["EDDY_BOOTSTRAP_SERVERS"] == "127.0.0.1:1", "what the run chooses holds"


def test_a_host_of_another_machine_is_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(EddyError, match="EDDY_HOST"), server_port(Settings(host="192.0.2.1"), tmp_path):
        pass


def test_ports_of_a_host_with_an_ipv6_address_are_found() -> None:
    assert is_free("::1", free_port("::1"))
