"""Why a cluster cannot be reached: the clients say that they got no connection, and their logs why.

So one more connection is tried, step by step: the name, the port, TLS, the login, a first request.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from aiokafka.conn import create_conn
from aiokafka.errors import KafkaError, SaslAuthenticationFailed, UnsupportedSaslMechanismError
from aiokafka.protocol.metadata import MetadataRequest

from eddy.models.errors import EddyError
from eddy.stream.kafka.security.credentials import for_aiokafka, ssl_context
from eddy.stream.kafka.security.tokens import NoToken
from eddy.stream.records.settings import Settings

_KAFKA_PORT = 9092
"""Where clients connect to a host without a port."""

_WITHIN_S = 4.0
_ALERT_WITHIN_S = 1.0
"""How long a broker may take to say that it does not like a certificate."""

_CERTIFICATE_EXPIRED, _CERTIFICATE_NOT_YET_VALID, _OTHER_HOST = 10, 9, (62, 64)
"""OpenSSL's numbers (X509_V_ERR_*)."""


class Refused(EddyError):
    """The cluster answers, and does not let this client in: another attempt with these settings is refused
    as well.
    """


class _Unreachable(Exception):
    """Nobody answers there, or not now."""


def reason_of_failure(settings: Settings) -> EddyError | None:
    """Why no connection could be made, for the user; None when one can be made now. It is a `Refused` where
    another attempt would end alike, and `NoToken` where the provider of tokens failed.
    """
    servers = (settings.bootstrap_servers or "").split(",")
    unreachable: list[str] = []
    for server in servers:
        try:
            with ThreadPoolExecutor(1) as thread:  # the caller's may have an event loop of its own
                thread.submit(asyncio.run, asyncio.wait_for(_connect(settings, server), _WITHIN_S)).result()
        except EddyError as refused:
            return refused
        except _Unreachable as reason:
            unreachable.append(f"{server} ({reason})")
        except TimeoutError:
            unreachable.append(f"{server} (nothing within {_WITHIN_S:.0f} s)")
        else:
            return None
    return EddyError(
        f"no answer from the Kafka cluster at {', '.join(unreachable)}: is it running, and is "
        "EDDY_BOOTSTRAP_SERVERS right?"
    )


async def _connect(settings: Settings, server: str) -> None:
    """Connect, log in and ask something. Errors: EddyError, _Unreachable."""
    address = urlsplit(f"//{server}")
    host, port = address.hostname or "", address.port or _KAFKA_PORT
    try:
        connection = await create_conn(host, port, **for_aiokafka(settings), request_timeout_ms=3_000)
    except ssl.SSLCertVerificationError as error:
        raise Refused(f"{server}: {_of_certificate(settings, error)}") from None
    except ssl.SSLError as error:
        raise Refused(f"{server}: {_of_tls(settings, error)}") from None
    except SaslAuthenticationFailed as error:
        raise Refused(f"{server}: {_of_login(settings, error.args[0])}") from None
    except UnsupportedSaslMechanismError:
        raise Refused(
            f"{server}: the broker does not offer EDDY_SASL_MECHANISM={settings.sasl_mechanism}: ask its "
            "operator which ones it does"
        ) from None
    except (KafkaError, OSError) as error:
        raise await asyncio.to_thread(_of_broken, settings, host, port, error) from None
    try:
        answer = await connection.send(MetadataRequest([]))
    except KafkaError:
        raise Refused(
            f"{server}: the broker ends the connection at the first request: it wants a login. Set "
            "EDDY_SECURITY_PROTOCOL=SASL_SSL, EDDY_SASL_MECHANISM and what goes with it"
        ) from None
    finally:
        connection.close()
    if not answer.brokers:
        # aiokafka takes a refused token for accepted, and the broker's error for an empty answer.
        if settings.sasl_mechanism == "OAUTHBEARER":
            raise Refused(f"{server}: {_of_login(settings, 'its answer to it is an error')}")
        raise _Unreachable("the cluster names no broker")


def _of_certificate(settings: Settings, error: ssl.SSLCertVerificationError) -> str:
    """What is wrong with the broker's certificate."""
    if error.verify_code == _CERTIFICATE_EXPIRED:
        return "the broker's certificate has expired: its operator has to renew it"
    if error.verify_code == _CERTIFICATE_NOT_YET_VALID:
        return "the broker's certificate is not valid yet: is this machine's clock right?"
    if error.verify_code in _OTHER_HOST:
        return (
            f"the broker's certificate is for another host ({error.verify_message}): use a name that it has "
            "in EDDY_BOOTSTRAP_SERVERS and in the brokers' advertised.listeners"
        )
    signers = settings.ssl_cafile or "the system's authorities"
    return (
        f"the broker's certificate is signed by nobody in {signers} ({error.verify_message}): set "
        "EDDY_SSL_CAFILE to the certificate of its authority"
    )


def _of_tls(settings: Settings, error: ssl.SSLError) -> str:
    """What a failed handshake means."""
    reason = (error.reason or "").upper()
    if "CERTIFICATE_REQUIRED" in reason or ("HANDSHAKE_FAILURE" in reason and not settings.ssl_certfile):
        return "the broker wants a certificate of this client: set EDDY_SSL_CERTFILE and EDDY_SSL_KEYFILE"
    if "CERTIFICATE" in reason or "UNKNOWN_CA" in reason:
        return (
            "the broker does not accept this client's certificate, EDDY_SSL_CERTFILE="
            f"{settings.ssl_certfile} ({reason}): has it expired, and does the broker know who signed it?"
        )
    protocol = settings.security_protocol
    return f"no TLS is spoken there ({reason}): is EDDY_SECURITY_PROTOCOL={protocol} right, and the port?"


def _of_login(settings: Settings, broker_says: str) -> str:
    """What a refused login means; the broker's words name no secret."""
    if settings.sasl_mechanism == "OAUTHBEARER":
        return (
            f"the broker does not accept the token of EDDY_SASL_OAUTH_TOKEN_PROVIDER ({broker_says}): has it "
            "expired, and is it for this cluster?"
        )
    return (
        f"the broker does not accept the login of {settings.sasl_username} ({broker_says}): are "
        f"EDDY_SASL_USERNAME, EDDY_SASL_PASSWORD and EDDY_SASL_MECHANISM={settings.sasl_mechanism} right?"
    )


def _of_broken(settings: Settings, host: str, port: int, error: Exception) -> Exception:
    """What it means that the port cannot be reached, or that the broker hangs up without a word."""
    server = f"{host}:{port}"
    try:
        with socket.create_connection((host, port), timeout=_ALERT_WITHIN_S) as plain:
            if settings.security_protocol.endswith("SSL"):
                _await_alert(settings, plain, host)
    except ssl.SSLError as alert:
        return Refused(f"{server}: {_of_tls(settings, alert)}")
    except ConnectionResetError:
        pass
    except OSError as failure:
        return _Unreachable(failure.strerror or str(failure) or type(failure).__name__)
    if isinstance(error.__cause__, NoToken):
        return NoToken(str(error.__cause__))
    return Refused(
        f"{server}: the broker hangs up ({type(error).__name__}): is "
        f"EDDY_SECURITY_PROTOCOL={settings.security_protocol} what this port speaks?"
    )


def _await_alert(settings: Settings, plain: socket.socket, host: str) -> None:
    """Shake hands and wait a moment: with TLS 1.3 a broker judges a client's certificate after that.

    Errors: ssl.SSLError with what the broker says.
    """
    with ssl_context(settings).wrap_socket(plain, server_hostname=host) as encrypted:
        encrypted.settimeout(_ALERT_WITHIN_S)
        try:
            encrypted.recv(1)
        except TimeoutError:
            return
