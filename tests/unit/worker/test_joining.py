"""Errors of joining that end a worker."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    InconsistentGroupProtocolError,
    InvalidSessionTimeoutError,
    KafkaError,
)

from eddy.stream.records.settings import Settings
from eddy.stream.worker.joining import NotAdmitted, tell_of_refusals


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (InconsistentGroupProtocolError(), "EDDY_GROUP"),
        (InvalidSessionTimeoutError(), "EDDY_SESSION_TIMEOUT_S=10"),
        (GroupAuthorizationFailedError("eddy"), None),
    ],
)
def test_a_refusal_that_does_not_pass_is_told_and_aiokafka_hears_of_it_as_before(
    error: KafkaError, named: str | None
) -> None:
    told: list[NotAdmitted] = []
    pushed: list[KafkaError] = []

    async def start() -> None:
        consumer._coordinator = SimpleNamespace(_push_error_to_user=pushed.append)

    consumer: Any = SimpleNamespace(start=start)
    tell_of_refusals(consumer, Settings(), told.append)
    asyncio.run(consumer.start())
    consumer._coordinator._push_error_to_user(error)
    assert pushed == [error]
    assert [named in str(reason) for reason in told if named] == [True] * (named is not None)
    assert len(told) == (named is not None)
