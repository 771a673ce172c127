"""The one place that turns the settings' security into what the Kafka clients take: TLS, and SASL with a
password or with tokens.

Guarantee: secrets leave `SecretStr` only in what is returned here.
"""

from __future__ import annotations

import ssl
from typing import Any

from pydantic import SecretStr

from eddy.models.errors import EddyError
from eddy.stream.kafka.security.tokens import TokensForAiokafka, TokensForKafkaPython, token_function
from eddy.stream.records.settings import Settings


def for_kafka_python(settings: Settings) -> dict[str, Any]:
    """Keyword arguments of kafka-python's clients. Errors: EddyError for settings that do not go together,
    and for files that cannot be used.
    """
    config = _of_both(settings)
    if settings.sasl_mechanism == "OAUTHBEARER":
        config["sasl_oauth_token_provider"] = TokensForKafkaPython(_tokens_of(settings))
    return config


def for_aiokafka(settings: Settings) -> dict[str, Any]:
    """Keyword arguments of aiokafka's clients. Errors: as `for_kafka_python`."""
    config = _of_both(settings)
    if settings.sasl_mechanism == "OAUTHBEARER":
        config["sasl_oauth_token_provider"] = TokensForAiokafka(_tokens_of(settings))
    return config


def _tokens_of(settings: Settings) -> Any:
    return token_function(settings.sasl_oauth_token_provider or "")


def _of_both(settings: Settings) -> dict[str, Any]:
    _require_consistent(settings)
    config: dict[str, Any] = {"security_protocol": settings.security_protocol}
    if settings.security_protocol.endswith("SSL"):
        config["ssl_context"] = ssl_context(settings)
    if settings.sasl_mechanism:
        config["sasl_mechanism"] = settings.sasl_mechanism
        if settings.sasl_mechanism != "OAUTHBEARER":
            config["sasl_plain_username"] = settings.sasl_username
            config["sasl_plain_password"] = _revealed(settings.sasl_password)
    return config


def _require_consistent(settings: Settings) -> None:
    """Errors: EddyError for credentials that would not be sent, or that are not there."""
    protocol, mechanism = settings.security_protocol, settings.sasl_mechanism
    if mechanism and not protocol.startswith("SASL"):
        raise EddyError(
            f"EDDY_SASL_MECHANISM={mechanism} is of no use with EDDY_SECURITY_PROTOCOL={protocol}: set "
            "EDDY_SECURITY_PROTOCOL=SASL_SSL"
        )
    if protocol.startswith("SASL") and not mechanism:
        raise EddyError(
            f"EDDY_SECURITY_PROTOCOL={protocol} needs EDDY_SASL_MECHANISM: PLAIN, SCRAM-SHA-256, "
            "SCRAM-SHA-512 or OAUTHBEARER"
        )
    needed = (
        ("sasl_oauth_token_provider",)
        if mechanism == "OAUTHBEARER"
        else ("sasl_username", "sasl_password")
        if mechanism
        else ()
    )
    missing = [f"EDDY_{name.upper()}" for name in needed if getattr(settings, name) is None]
    if missing:
        raise EddyError(f"EDDY_SASL_MECHANISM={mechanism} needs {' and '.join(missing)}: set them")
    if settings.ssl_keyfile and not settings.ssl_certfile:
        raise EddyError("EDDY_SSL_KEYFILE is the key of EDDY_SSL_CERTFILE, which is not set: set both")


def ssl_context(settings: Settings) -> ssl.SSLContext:
    """The TLS context of the settings' files. Errors: EddyError that names the file that cannot be used."""
    try:
        context = ssl.create_default_context(cafile=settings.ssl_cafile)
    except (OSError, ssl.SSLError) as error:
        raise EddyError(
            f"EDDY_SSL_CAFILE={settings.ssl_cafile} cannot be used ({_in_short(error)}): name a PEM file "
            "with the certificates of those who sign the brokers' ones"
        ) from None
    context.check_hostname = settings.ssl_check_hostname
    if settings.ssl_certfile:
        # Without any password OpenSSL would ask for one at the terminal, and wait.
        password = _revealed(settings.ssl_password) or ""
        try:
            context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile, password)
        except (OSError, ssl.SSLError) as error:
            raise EddyError(
                f"EDDY_SSL_CERTFILE={settings.ssl_certfile} cannot be used with its key "
                f"{settings.ssl_keyfile or 'in the same file'} ({_in_short(error)}): are both PEM files, do "
                "they belong together, and is EDDY_SSL_PASSWORD right?"
            ) from None
    return context


def _in_short(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _revealed(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None
