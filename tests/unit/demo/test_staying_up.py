"""A demo that is to stay up: it goes on with what still runs, and ends when nothing does."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import AsyncMock

import pytest

from eddy.demo.board import Board
from eddy.demo.flow import Flow
from eddy.models.errors import EddyError


class StubChild:
    """A process that ends when a test says so."""

    def __init__(self, name: str) -> None:
        self.name, self.ended = name, False

    def check(self) -> None:
        if self.ended:
            raise EddyError(f"{self.name} ended")


@pytest.fixture
def flow(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run of which nothing but its processes matters."""
    one: Any = object.__new__(Flow)
    one.settings, one.board = AsyncMock(), Board()
    one.lasting = [StubChild("worker"), StubChild("server")]
    return one


def test_each_failure_is_told_once_and_the_first_ends_a_demo_of_which_nothing_is_left(flow: Any) -> None:
    worker, server = flow.lasting
    flow._up_to = AsyncMock(side_effect=EddyError("no list could be measured"))
    told: list[str] = []
    ends = iter([None, worker, None, server])

    async def look() -> None:
        if (child := next(ends)) is not None:
            child.ended = True

    flow._look = look
    with pytest.raises(EddyError, match="no list could be measured"):
        asyncio.run(flow.run(report=None, keep=True, tell=told.append))
    assert told == ["no list could be measured", "worker ended", "server ended"]


def test_without_keep_a_failure_ends_it_at_once(flow: Any) -> None:
    flow._up_to = AsyncMock(side_effect=EddyError("no list could be measured"))
    with pytest.raises(EddyError, match="no list could be measured"):
        asyncio.run(flow.run(report=None, keep=False, tell=pytest.fail))


def test_a_failure_before_anything_runs_ends_it_in_spite_of_keep(flow: Any) -> None:
    flow.lasting.clear()
    flow._up_to = AsyncMock(side_effect=EddyError("no room"))
    with pytest.raises(EddyError, match="no room"):
        asyncio.run(flow.run(report=None, keep=True, tell=lambda _: None))
