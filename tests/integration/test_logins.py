"""Logging in to a secured broker: every mechanism with both clients, and what is said where it fails."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiokafka.errors import IllegalSaslStateError
from kafka import TopicPartition

from eddy.models.errors import EddyError
from eddy.stream.kafka import clients
from eddy.stream.kafka.clients import admin_client, new_consumer, new_sync_producer, records_to_end
from eddy.stream.kafka.login_watch import LoginWatch
from eddy.stream.kafka.producers import new_producer
from eddy.stream.kafka.reader import read_on, read_to_end
from eddy.stream.kafka.security.connecting import Refused
from eddy.stream.kafka.security.permissions import Permission
from eddy.stream.kafka.topics import prepare_topics
from eddy.stream.kafka.versions import announce
from eddy.stream.records.clock import wall_ms
from eddy.stream.records.schema import encode
from eddy.stream.records.settings import Settings
from tests.support.engines import random_version
from tests.support.secured_kafka import (
    ADMIN,
    KEY_PASSWORD,
    SecuredKafka,
    environment,
    expired_client,
    secured_kafka,
    unsigned_token,
    write_key_and_chain,
)
from tests.support.waiting import eventually

TOPIC = "logins"
CLIENT = "client"
ROOT = Path(__file__).parents[2]

LOGINS: dict[str, dict[str, Any]] = {
    "PLAIN": {"sasl_mechanism": "PLAIN"},
    "SCRAM-SHA-256": {"sasl_mechanism": "SCRAM-SHA-256"},
    "SCRAM-SHA-512": {"sasl_mechanism": "SCRAM-SHA-512"},
    "SCRAM without TLS": {"protocol": "SASL_PLAINTEXT"},
    "OAUTHBEARER": {
        "sasl_mechanism": "OAUTHBEARER",
        "sasl_oauth_token_provider": f"{__name__}:token",
        "sasl_password": None,
    },
    "mutual TLS": {"protocol": "SSL", "ssl_certfile": "client.pem", "ssl_password": KEY_PASSWORD},
}


SESSION_MS = 3_000
"""So long a login with a token is good for; a broker does so where tokens expire."""

LOGGED_IN: list[str] = []
"""the tokens that clients have asked for"""


def token() -> str:
    """What EDDY_SASL_OAUTH_TOKEN_PROVIDER names in these tests."""
    LOGGED_IN.append(unsigned_token(CLIENT))
    return LOGGED_IN[-1]


def bad_token() -> str:
    return unsigned_token(CLIENT, valid_s=-3_600)


def no_token() -> str:
    raise OSError("the identity provider is away")


TOKENS = {"good": lambda: unsigned_token(ADMIN), "refused": bad_token, "missing": no_token}


def changing_token() -> str:
    """What the file that TOKEN_FILE names says."""
    return TOKENS[Path(os.environ["TOKEN_FILE"]).read_text()]()


@pytest.fixture
def token_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What it says is what `changing_token` gives."""
    file = tmp_path / "token"
    file.write_text("good")
    monkeypatch.setenv("TOKEN_FILE", str(file))
    return file


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredKafka]:
    folder = tmp_path_factory.mktemp("secured")
    sessions_end = {"listener.name.sasl_ssl.oauthbearer.connections.max.reauth.ms": str(SESSION_MS)}
    with secured_kafka(folder, [CLIENT], sessions_end) as secured:
        write_key_and_chain(
            secured.authority.issue_cert(CLIENT, common_name=CLIENT), folder / "client.pem", KEY_PASSWORD
        )
        expired_client(secured.authority, folder / "expired.pem")
        write_key_and_chain(trustme.CA().issue_cert(CLIENT, common_name=CLIENT), folder / "stranger.pem")
        (folder / "strangers.pem").write_bytes(trustme.CA().cert_pem.bytes())
        with admin_client(secured.settings(ADMIN)) as admin:
            admin.create_topics({TOPIC: {"num_partitions": 1, "replication_factor": 1}})
        secured.allow(CLIENT, [Permission("topic", TOPIC, operation) for operation in ("READ", "WRITE")])
        yield secured


def settings_of(kafka: SecuredKafka, **values: Any) -> Settings:
    """Settings of the client; the names of certificates are those of files in the broker's folder."""
    in_folder = {
        name: kafka.folder / value
        for name, value in values.items()
        if name in ("ssl_certfile", "ssl_cafile") and value is not None
    }
    return kafka.settings(CLIENT, **{**values, **in_folder})


@pytest.mark.parametrize("login", LOGINS)
def test_both_clients_write_and_read_with_each_login(kafka: SecuredKafka, login: str) -> None:
    settings = settings_of(kafka, **LOGINS[login])
    mine = uuid.uuid4().hex.encode()
    # kafka-python: admin and producer
    with admin_client(settings) as admin:
        assert TOPIC in admin.list_topics()
    sync_producer = new_sync_producer(settings)
    at = sync_producer.send(TOPIC, key=b"kafka-python", value=mine).get(timeout=30).offset
    sync_producer.close()
    # aiokafka: producer and consumer
    seen: list[tuple[bytes | None, bytes | None]] = []

    async def write_and_read() -> None:
        producer = new_producer(settings)
        await producer.start()
        await producer.send_and_wait(TOPIC, mine, b"aiokafka")
        await producer.stop()

        async def take(_: object, records: Any) -> None:
            seen.extend((record.key, record.value) for record in records)

        await read_to_end(settings, TOPIC, [0], take, {0: at})

    asyncio.run(write_and_read())
    assert seen == [(b"kafka-python", mine), (b"aiokafka", mine)]
    # kafka-python: consumer
    consumer = new_consumer(settings, enable_auto_commit=False, auto_offset_reset="earliest")
    tp = TopicPartition(TOPIC, 0)
    consumer.assign([tp])
    consumer.seek(tp, at)
    read = [record.value for record in records_to_end(consumer, consumer.end_offsets([tp]), 30)]
    consumer.close()
    assert read == [mine, mine]


def test_clients_log_in_again_when_the_broker_ends_their_sessions(kafka: SecuredKafka) -> None:
    settings = settings_of(kafka, **LOGINS["OAUTHBEARER"])
    sent: list[bytes] = []
    seen: list[bytes | None] = []

    async def take(_: object, records: Any) -> None:
        seen.extend(record.value for record in records)

    async def write_and_follow() -> None:
        producer = new_producer(settings)
        await producer.start()
        begin = (await producer.send_and_wait(TOPIC, b"before")).offset + 1
        following = asyncio.create_task(read_on(settings, TOPIC, [0], take, {0: begin}))
        logged_in = len(LOGGED_IN)
        while len(LOGGED_IN) < logged_in + 6:
            sent.append(b"%d" % len(sent))
            await producer.send_and_wait(TOPIC, sent[-1])
        while len(seen) < len(sent):
            assert not following.done()
            await asyncio.sleep(0.01)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await producer.stop()

    asyncio.run(asyncio.wait_for(write_and_follow(), 60))
    assert seen == sent


WHILE_RUNNING = {
    "refused": "does not accept the token of EDDY_SASL_OAUTH_TOKEN_PROVIDER",
    "missing": "EDDY_SASL_OAUTH_TOKEN_PROVIDER gave no token (OSError: the identity provider is away)",
}


def of_changing_token(kafka: SecuredKafka, **values: Any) -> Settings:
    login: dict[str, Any] = {"sasl_mechanism": "OAUTHBEARER", "sasl_password": None}
    provider = f"{__name__}:changing_token"
    return kafka.settings(ADMIN, **login, sasl_oauth_token_provider=provider, **values)


@pytest.mark.parametrize("token", WHILE_RUNNING)
def test_a_process_that_is_not_let_in_any_more_says_why_once_and_when_it_is_over(
    kafka: SecuredKafka, token_file: Path, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "eddy.kafka")
    with closing(LoginWatch(of_changing_token(kafka))) as watch:
        watch.look()
        assert watch.problem is None
        token_file.write_text(token)

        def look() -> str | None:
            watch.look()
            return watch.problem

        eventually(look, what="the session has ended, and the login is refused")
        for _ in range(3):
            watch.look()
        (line,) = (record.getMessage() for record in caplog.records if record.name == "eddy.kafka")
        assert WHILE_RUNNING[token] in line
        token_file.write_text("good")
        eventually(lambda: not look(), what="the login is accepted again")
    assert caplog.messages[-1] == "the cluster lets this process in again"


@pytest.mark.parametrize("token", WHILE_RUNNING)
def test_what_a_client_fails_of_is_told_as_the_refused_login_behind_it(
    kafka: SecuredKafka, token_file: Path, token: str
) -> None:
    """Before the watch has looked, too: a client may be the first to meet it."""
    with closing(LoginWatch(of_changing_token(kafka))) as watch:
        assert watch.behind(IllegalSaslStateError()) is None
        token_file.write_text(token)
        told = str(watch.behind(IllegalSaslStateError()))
    assert WHILE_RUNNING[token] in told
    assert told.endswith("(IllegalSaslStateError; ending, to be restarted by a supervisor)")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("token", WHILE_RUNNING)
def test_a_worker_that_is_not_let_in_any_more_ends_with_the_reason(
    kafka: SecuredKafka, token_file: Path, tmp_path: Path, token: str
) -> None:
    """After EDDY_STALL_S."""
    values: dict[str, Any] = {
        "topic_prefix": f"{uuid.uuid4().hex[:8]}.",
        "registry": tmp_path / "registry",
    }
    by_password = kafka.settings(ADMIN, **values)
    prepare_topics(by_password)
    announce(by_password, random_version(by_password.registry))
    worker = subprocess.Popen(
        [sys.executable, "-m", "eddy", "worker"],
        cwd=tmp_path,
        env={
            **os.environ, "PYTHONPATH": str(ROOT), "EDDY_STALL_S": "1",
            **environment(of_changing_token(kafka, **values)),
        },
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        state = [TopicPartition(by_password.topics.user_state, number) for number in range(4)]
        with (
            closing(new_sync_producer(by_password)) as producer,
            closing(new_consumer(by_password)) as reader,
        ):
            event = {"user_id": "anna", "item_id": "heat", "timestamp": wall_ms()}
            producer.send(by_password.topics.events, key=b"anna", value=encode(event)).get(timeout=60)
            eventually(lambda: sum(reader.end_offsets(state).values()), 500, "the worker works")
        token_file.write_text(token)
        error = worker.communicate(timeout=240)[1]
    finally:
        worker.kill()
    assert worker.returncode == 1
    last = error.splitlines()[-1]
    assert WHILE_RUNNING[token] in last
    assert last.endswith("ending, to be restarted by a supervisor)")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a wrong password": (
        {"sasl_password": "guessed"},
        r"does not accept the login of client \(.*invalid credentials.*EDDY_SASL_PASSWORD",
    ),
    "a wrong password with PLAIN": (
        {"sasl_mechanism": "PLAIN", "sasl_password": "guessed"},
        r"does not accept the login of client \(.*Invalid username or password.*EDDY_SASL_PASSWORD",
    ),
    "a token that has expired": (
        {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": f"{__name__}:bad_token"},
        r"does not accept the token of EDDY_SASL_OAUTH_TOKEN_PROVIDER",
    ),
    "a broker whose authority is unknown": (
        {"ssl_cafile": "strangers.pem"},
        r"certificate is signed by nobody in .*strangers.pem.* set EDDY_SSL_CAFILE",
    ),
    "no certificate where one is wanted": (
        {"protocol": "SSL"},
        r"wants a certificate of this client: set EDDY_SSL_CERTFILE",
    ),
    "a client's certificate that has expired": (
        {"protocol": "SSL", "ssl_certfile": "expired.pem"},
        r"does not accept this client's certificate.*expired.pem.*has it expired",
    ),
    "a client's certificate of an unknown authority": (
        {"protocol": "SSL", "ssl_certfile": "stranger.pem"},
        r"does not accept this client's certificate.*stranger.pem.*who signed it",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_the_broker_refuses_is_told_by_its_reason(kafka: SecuredKafka, what: str) -> None:
    values, reason = REFUSED[what]
    settings = settings_of(kafka, **values)
    with pytest.raises(Refused, match=reason) as refused, admin_client(settings):
        pass
    assert "guessed" not in str(refused.value)


@pytest.mark.parametrize(
    ("spoken", "at", "says"),
    [
        ("PLAINTEXT", "SASL_SSL", "the broker hangs up.*EDDY_SECURITY_PROTOCOL=PLAINTEXT what this port"),
        ("PLAINTEXT", "SASL_PLAINTEXT", "it wants a login. Set EDDY_SECURITY_PROTOCOL=SASL_SSL"),
        ("SASL_SSL", "SASL_PLAINTEXT", "no TLS is spoken there.*EDDY_SECURITY_PROTOCOL=SASL_SSL right"),
    ],
)
def test_a_port_that_speaks_another_protocol_is_recognised(
    kafka: SecuredKafka, spoken: str, at: str, says: str
) -> None:
    settings = kafka.settings(CLIENT, spoken, bootstrap_servers=kafka.broker.address_of(at))
    with pytest.raises(Refused, match=says), admin_client(settings):
        pass


def test_a_provider_that_fails_is_named_with_its_reason(
    kafka: SecuredKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "_SECOND_ATTEMPT_MS", 100)
    values = {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": f"{__name__}:no_token"}
    with (
        pytest.raises(EddyError, match=r"gave no token \(OSError: the identity provider is away\)"),
        admin_client(settings_of(kafka, **values)),
    ):
        pass


def test_clients_without_an_admin_are_refused_with_the_reason_as_well(kafka: SecuredKafka) -> None:
    settings = settings_of(kafka, sasl_password="guessed")
    for new_client in (new_consumer, new_sync_producer):
        with pytest.raises(Refused, match="does not accept the login"):
            new_client(settings)


def test_a_wrong_password_is_one_line_of_the_command_line_without_the_password(kafka: SecuredKafka) -> None:
    settings = settings_of(kafka, sasl_password="guessed")
    done = subprocess.run(
        [sys.executable, "-m", "eddy", "export"],
        cwd=kafka.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment(settings)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("eddy: 127.0.0.1:")
    assert "does not accept the login of client" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "guessed" not in done.stderr + done.stdout
