"""Starting aiokafka's clients in programs that go on through a cluster's weak moments."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, TypeVar

from aiokafka.errors import KafkaError

log = logging.getLogger("eddy.kafka")

PATIENCE_S = 30.0
"""How long a cluster may be away, or name no broker, before that is an error."""

_RETRY_S = 0.5

GOODBYE_S = 1.0
"""How long a client that could not be started may take to close, while a revocation may be waiting."""


class _Client(Protocol):
    async def start(self) -> None: ...

    async def stop(self) -> None: ...


Client = TypeVar("Client", bound=_Client)


async def started(new_client: Callable[[], Client], within_s: float = PATIENCE_S) -> Client:
    """A client that has started. While the cluster does not answer, a new one is tried. So it is while the
    cluster answers and names no broker, as one does whose brokers are overloaded or just restarting: aiokafka
    fails an assertion then.

    Errors: KafkaError or AssertionError when that takes longer than `within_s`; at once those of aiokafka
    that another attempt cannot mend.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while True:
        client = new_client()
        try:
            await client.start()
            return client
        except BaseException as error:
            with suppress(Exception):
                await asyncio.wait_for(client.stop(), GOODBYE_S)
            passing = isinstance(error, AssertionError) or (isinstance(error, KafkaError) and error.retriable)
            if not passing or loop.time() > deadline:
                raise
            log.warning("the cluster cannot be used at the moment (%r); trying again", error)
        await asyncio.sleep(_RETRY_S)
