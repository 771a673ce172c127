"""From settings to the arguments of each client: what does not go together is refused before one connects."""

from __future__ import annotations

import asyncio
import ssl
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any

import pytest
import trustme
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from eddy.models.errors import EddyError
from eddy.stream.kafka.security.credentials import for_aiokafka, for_kafka_python, ssl_context
from eddy.stream.kafka.security.tokens import token_function
from eddy.stream.records.settings import Settings, load_settings
from eddy.stream.worker.app import new_app
from tests.support.secured_kafka import write_key_and_chain

PASSWORD = {"sasl_username": "eddy", "sasl_password": "correct horse"}
TOKENS = {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": f"{__name__}:token"}


def token() -> str:
    return "a token"


def number() -> int:
    return 42


def settings_with(**values: Any) -> Settings:
    return load_settings(bootstrap_servers="broker:9092", **values)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"sasl_mechanism": "PLAIN", **PASSWORD}, "EDDY_SECURITY_PROTOCOL=PLAINTEXT: set .*SASL_SSL"),
        ({"security_protocol": "SASL_SSL"}, "needs EDDY_SASL_MECHANISM"),
        (
            {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN"},
            "needs EDDY_SASL_USERNAME and EDDY_SASL_PASSWORD",
        ),
        (
            {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_username": "eddy"},
            "needs EDDY_SASL_PASSWORD:",
        ),
        (
            {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"},
            "needs EDDY_SASL_OAUTH_TOKEN_PROVIDER",
        ),
        ({"security_protocol": "SSL", "ssl_keyfile": "key.pem"}, "EDDY_SSL_CERTFILE, which is not set"),
    ],
)
def test_settings_that_do_not_go_together_are_one_line(values: dict[str, Any], says: str) -> None:
    for make in (for_kafka_python, for_aiokafka):
        with pytest.raises(EddyError, match=says):
            make(settings_with(**values))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"security_protocol": "SSL"},
        {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", **PASSWORD},
        {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-256", **PASSWORD},
        {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", **PASSWORD},
        {"security_protocol": "SASL_SSL", **TOKENS},
        {"security_protocol": "SASL_PLAINTEXT", **TOKENS},
    ],
)
def test_a_worker_s_consumer_logs_in_as_its_producers_do(tmp_path: Path, values: dict[str, Any]) -> None:
    settings = settings_with(cache_dir=tmp_path, **values)
    conf = new_app(settings, "").conf
    of_consumer = credentials_to_aiokafka_auth(conf.broker_credentials, conf.ssl_context)
    of_producer = for_aiokafka(settings)
    for key, value in of_producer.items():
        if key in ("ssl_context", "sasl_oauth_token_provider"):  # each has its own
            assert type(of_consumer[key]) is type(value)
        else:
            assert of_consumer[key] == value


def test_the_token_function_is_asked_by_both_clients() -> None:
    settings = settings_with(security_protocol="SASL_SSL", **TOKENS)
    assert for_kafka_python(settings)["sasl_oauth_token_provider"].token() == "a token"
    assert asyncio.run(for_aiokafka(settings)["sasl_oauth_token_provider"].token()) == "a token"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "nowhere",
            r"there is no such entry point of the group eddy.oauth_token_provider \(there are: aws-msk-iam",
        ),
        ("no.such.module:token", "cannot be imported.*is its package installed"),
        (f"{__name__}:missing", "cannot be imported"),
        (f"{__name__}:PASSWORD", "is no function"),
    ],
)
def test_a_provider_that_is_not_there_names_the_setting(name: str, says: str) -> None:
    with pytest.raises(EddyError, match=f"EDDY_SASL_OAUTH_TOKEN_PROVIDER={name}: {says}"):
        token_function(name)


def test_what_is_no_text_is_no_token() -> None:
    with pytest.raises(EddyError, match=r"gave no token .*it returned a int, and no text"):
        token_function(f"{__name__}:number")()


def test_a_token_for_amazon_msk_is_signed_with_the_credentials_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    new_token = token_function("aws-msk-iam")
    for variable in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(EddyError, match="set AWS_REGION"):
        new_token()
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    signed = urlsafe_b64decode(new_token() + "===").decode()
    assert signed.startswith("https://kafka.eu-central-1.amazonaws.com/?Action=kafka-cluster%3AConnect")
    assert "an-id" in signed
    assert "a-secret" not in signed


def test_a_key_is_opened_with_its_password_and_never_asked_for(tmp_path: Path) -> None:
    leaf = trustme.CA().issue_cert("client")
    file = write_key_and_chain(leaf, tmp_path / "client.pem", "key secret")
    assert isinstance(
        ssl_context(load_settings(ssl_certfile=file, ssl_password="key secret")), ssl.SSLContext
    )
    for wrong in ({}, {"ssl_password": "guessed"}):
        with pytest.raises(EddyError, match=r"EDDY_SSL_CERTFILE=.*is EDDY_SSL_PASSWORD right") as refused:
            ssl_context(load_settings(ssl_certfile=file, **wrong))
        assert "guessed" not in str(refused.value)


def test_host_names_are_checked_unless_a_setting_says_otherwise() -> None:
    assert ssl_context(load_settings()).check_hostname
    unchecked = ssl_context(load_settings(ssl_check_hostname=False))
    assert not unchecked.check_hostname
    assert unchecked.verify_mode is ssl.CERT_REQUIRED
