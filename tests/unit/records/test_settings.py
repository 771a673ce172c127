"""Settings: read from EDDY_*, wrong values named in one line, secrets kept out of sight."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from eddy.__main__ import app
from eddy.models.errors import EddyError
from eddy.models.machine_cache import cache_folder
from eddy.stream.kafka.clients import aiokafka_config, client_config
from eddy.stream.kafka.security.credentials import ssl_context
from eddy.stream.records.settings import load_settings, misspelt_settings


def test_a_variable_of_the_environment_is_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDDY_PARTITIONS", "12")
    assert load_settings().partitions == 12


def test_an_option_given_wins_over_the_environment_and_none_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EDDY_PARTITIONS", "12")
    assert load_settings(partitions=3).partitions == 3
    assert load_settings(partitions=None).partitions == 12


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("EDDY_PARTITIONS", "0"),
        ("EDDY_CHECKPOINT_MS", "soon"),
        ("EDDY_EMIT", "sometimes"),
        ("EDDY_TOPIC_PREFIX", "no spaces"),
        ("EDDY_PARTITIONER", "sticky"),
        ("EDDY_EARLIEST_EVENT", "yesterday"),
        ("EDDY_EARLIEST_EVENT", "1990"),
        ("EDDY_EARLIEST_EVENT", "-1"),
        ("EDDY_EARLIEST_EVENT", "1" * 20),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(EddyError, match=variable) as raised:
        load_settings()
    assert "\n" not in str(raised.value)


def test_a_misspelt_variable_is_told_with_what_may_be_meant() -> None:
    variables = ["EDDY_PARTIONS", "EDDY_REGISTER", "EDDY_PARTITIONS", "EDDY_DATA", "PARTIONS", "EDDY_K"]
    meant = {"EDDY_PARTIONS": "EDDY_PARTITIONS", "EDDY_REGISTER": "EDDY_REGISTRY"}
    assert misspelt_settings(variables) == meant
    command = ["acls", "--for", "topics", "--principal", "User:eddy"]
    told = CliRunner().invoke(app, command, env={"EDDY_PARTIONS": "8"})
    assert told.exit_code == 0
    assert "EDDY_PARTIONS is no setting and has no effect; is EDDY_PARTITIONS meant?" in told.stderr


def test_a_copy_is_validated_and_does_not_read_the_environment_again(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings()
    monkeypatch.setenv("EDDY_GROUP", "other")
    assert settings.replace(k=5).k == 5
    assert settings.replace(k=5).group == settings.group
    with pytest.raises(EddyError, match="EDDY_K"):
        settings.replace(k=0)


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        (None, 631_152_000_000),
        ("0", 0),
        ("631152000000", 631_152_000_000),
        ("1990-01-01", 631_152_000_000),
        ("2013-03-01T01:00:00+01:00", 1_362_096_000_000),
        ("2013-03-01T00:00:00", 1_362_096_000_000),
    ],
)
def test_the_earliest_event_is_a_date_in_utc_or_milliseconds(
    monkeypatch: pytest.MonkeyPatch, written: str | None, ms: int
) -> None:
    if written is not None:
        monkeypatch.setenv("EDDY_EARLIEST_EVENT", written)
    assert load_settings().earliest_event == load_settings().admission.earliest == ms


def test_topics_stand_behind_the_prefix() -> None:
    topics = load_settings(topic_prefix="shop.").topics
    assert topics.events == "shop.events"
    assert topics.user_state == "shop.user-state"


def test_secrets_are_passed_to_the_clients_and_shown_nowhere() -> None:
    settings = load_settings(
        bootstrap_servers="broker:9092",
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="eddy",
        sasl_password="correct horse",
    )
    assert client_config(settings)["sasl_plain_password"] == "correct horse"
    assert aiokafka_config(settings)["sasl_plain_password"] == "correct horse"
    assert "correct horse" not in f"{settings!r} {settings} {settings.model_dump_json()}"


def test_several_servers_reach_both_clients_in_their_own_form() -> None:
    settings = load_settings(bootstrap_servers="a:9092,b:9092")
    assert client_config(settings)["bootstrap_servers"] == ["a:9092", "b:9092"]
    assert aiokafka_config(settings)["bootstrap_servers"] == "a:9092,b:9092"


def test_without_a_cluster_the_error_says_what_to_set() -> None:
    with pytest.raises(EddyError, match="EDDY_BOOTSTRAP_SERVERS"):
        client_config(load_settings())


def test_an_unusable_certificate_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(EddyError, match="EDDY_SSL_CAFILE"):
        ssl_context(load_settings(ssl_cafile=tmp_path / "missing.pem"))


@pytest.mark.parametrize(
    ("written", "servers"),
    [("", None), ("kafka", "kafka"), ("a:9092, b:9093", "a:9092,b:9093"), ("[::1]:9092", "[::1]:9092")],
)
def test_servers_are_hosts_with_or_without_ports(
    monkeypatch: pytest.MonkeyPatch, written: str, servers: str | None
) -> None:
    monkeypatch.setenv("EDDY_BOOTSTRAP_SERVERS", written)
    assert load_settings().bootstrap_servers == servers


@pytest.mark.parametrize(
    "server",
    ["broker:", "broker:http", ":9092", "broker:0", "broker:65536", "PLAINTEXT://broker:9092", ""],
)
def test_what_is_no_address_is_named(server: str) -> None:
    with pytest.raises(EddyError, match=f"EDDY_BOOTSTRAP_SERVERS: '{server}' is not host:port"):
        load_settings(bootstrap_servers=f"one:9092,{server}")


def test_an_empty_cache_folder_is_the_default_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDDY_CACHE_DIR", "")
    assert load_settings().cache_dir == cache_folder() != Path()
