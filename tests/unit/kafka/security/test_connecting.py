"""Why a cluster cannot be reached, told from servers that are no Kafka at all."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from eddy.stream.kafka.security.connecting import Refused, reason_of_failure
from eddy.stream.records.settings import load_settings

AUTHORITY = trustme.CA()


@contextmanager
def tls_server(certificate: trustme.LeafCert) -> Iterator[int]:
    """A server that shakes hands and hangs up; yields its port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)

    def serve(listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with suppress(OSError), connection:
                    context.wrap_socket(connection, server_side=True).close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,), daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    file = tmp_path / "authority.pem"
    AUTHORITY.cert_pem.write_to_path(str(file))
    return file


def days_from_now(days: int) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


@pytest.mark.parametrize(
    ("certificate", "says"),
    [
        (
            AUTHORITY.issue_cert("127.0.0.1", not_before=days_from_now(-9), not_after=days_from_now(-1)),
            "has expired: its operator has to renew it",
        ),
        (
            AUTHORITY.issue_cert("127.0.0.1", not_before=days_from_now(1), not_after=days_from_now(9)),
            "is not valid yet: is this machine's clock right",
        ),
        (AUTHORITY.issue_cert("elsewhere"), "is for another host .*EDDY_BOOTSTRAP_SERVERS"),
        (trustme.CA().issue_cert("127.0.0.1"), "is signed by nobody in .*authority.pem.*EDDY_SSL_CAFILE"),
    ],
    ids=["expired", "not yet valid", "of another host", "of an unknown authority"],
)
def test_what_is_wrong_with_a_broker_s_certificate_is_said(
    authority: Path, certificate: trustme.LeafCert, says: str
) -> None:
    with tls_server(certificate) as port:
        settings = load_settings(
            bootstrap_servers=f"127.0.0.1:{port}", security_protocol="SSL", ssl_cafile=authority
        )
        with pytest.raises(Refused, match=f"127.0.0.1:{port}: the broker's certificate {says}"):
            raise reason_of_failure(settings) or AssertionError("nothing is wrong")


def test_a_broker_that_is_not_there_is_no_refusal() -> None:
    reason = reason_of_failure(load_settings(bootstrap_servers="127.0.0.1:1,127.0.0.1:2"))
    assert reason is not None
    assert not isinstance(reason, Refused)
    nobody = "127.0.0.1:1 (Connection refused), 127.0.0.1:2 (Connection refused)"
    assert str(reason).startswith(f"no answer from the Kafka cluster at {nobody}: is it running")
