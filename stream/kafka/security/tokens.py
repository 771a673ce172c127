"""Tokens for SASL OAUTHBEARER: a function of the operator's, which both Kafka clients ask whenever they
connect.

A provider is a function without arguments that returns a token that is valid now, as a text. It may be called
from several threads, and it may be slow. A token says by itself when it expires. kafka-python presents a new
one before a broker ends the session (KIP-368); aiokafka connects again after it did.
"""

import asyncio
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points

from aiokafka.abc import AbstractTokenProvider as AiokafkaProvider
from aiokafka.errors import KafkaConnectionError as AiokafkaConnectionError
from kafka.errors import KafkaConnectionError
from kafka.net.sasl.oauth import AbstractTokenProvider as KafkaPythonProvider

from eddy.models.errors import EddyError

GROUP = "eddy.oauth_token_provider"
"""The entry points by whose names EDDY_SASL_OAUTH_TOKEN_PROVIDER can call a provider."""

NewToken = Callable[[], str]


def token_function(name: str) -> NewToken:
    """The provider of a name: that of an entry point, or `module:function`.

    Errors: EddyError when there is none, or it cannot be imported.
    """
    known = {point.name: point for point in entry_points(group=GROUP)}
    module, _, function = name.partition(":")
    try:
        if name in known:
            provider = known[name].load()
        elif function:
            provider = getattr(import_module(module), function)
        else:
            raise EddyError(
                f"EDDY_SASL_OAUTH_TOKEN_PROVIDER={name}: there is no such entry point of the group {GROUP} "
                f"(there are: {', '.join(sorted(known)) or 'none'}); or give module:function"
            )
    except (ImportError, AttributeError) as error:
        raise EddyError(
            f"EDDY_SASL_OAUTH_TOKEN_PROVIDER={name}: cannot be imported ({error}); is its package installed?"
        ) from None
    if not callable(provider):
        raise EddyError(f"EDDY_SASL_OAUTH_TOKEN_PROVIDER={name}: is no function")

    def new_token() -> str:
        try:
            token = provider()
            if not isinstance(token, str):
                raise TypeError(f"it returned a {type(token).__name__}, and no text")
        except Exception as error:
            raise NoToken(
                "the function of EDDY_SASL_OAUTH_TOKEN_PROVIDER gave no token "
                f"({type(error).__name__}: {error}): see to what it needs"
            ) from error
        return token

    return new_token


class NoToken(EddyError):
    """The provider failed. The clients are given it as the cause of a failed connection."""


class TokensForKafkaPython(KafkaPythonProvider):  # type: ignore[misc]
    """The provider as kafka-python asks it. A failure is one of the connection, which is tried again."""

    def __init__(self, new_token: NewToken) -> None:
        super().__init__()
        self._new_token = new_token

    def token(self) -> str:
        """A token that is valid now. Errors: KafkaConnectionError."""
        try:
            return self._new_token()
        except NoToken as error:
            raise KafkaConnectionError(error) from error


class TokensForAiokafka(AiokafkaProvider):  # type: ignore[misc]
    """The same for aiokafka, on a thread of its own, since a provider may wait for the network."""

    def __init__(self, new_token: NewToken) -> None:
        self._new_token = new_token

    async def token(self) -> str:
        """A token that is valid now. Errors: KafkaConnectionError."""
        try:
            return await asyncio.to_thread(self._new_token)
        except NoToken as error:
            raise AiokafkaConnectionError(error) from error
