"""The server goes on to answer while a version is on its way: it runs on a cluster in memory here."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from aiokafka import TopicPartition

from eddy.models.registry import Version
from eddy.models.scoring.scorer import Scorer
from eddy.models.storage import located
from eddy.models.vocabulary import Catalogue
from eddy.serving.lists.questions import Question, SessionEvent
from eddy.serving.service import Service
from eddy.serving.view import MaterialisedView
from eddy.stream.engine import numbering
from eddy.stream.engine.numbering import numbering_steps
from eddy.stream.kafka import reader
from eddy.stream.records.schema import Announcement, Share, encode
from eddy.stream.records.settings import Settings
from eddy.stream.state.item_names import ItemNames
from eddy.stream.state.rows import encode_rows
from tests.support.engines import Happening, batch, item_id, new_engine, random_version, stored_rows
from tests.support.memory_clients import MemoryConsumer
from tests.support.memory_kafka import MemoryKafka

WITHIN_S = 120.0  # the compiled loops may have to be compiled first, on a loaded machine
USER = Question("anna", k=5)


class Installation:
    """A server on a cluster in memory, with what others write there."""

    def __init__(self, registry: Path) -> None:
        self.kafka = MemoryKafka()
        self.settings = Settings(bootstrap_servers="server", registry=located(registry), partitions=1)
        self.service = Service(self.settings, retry_s=0.01)

    def announce(self, version: Version, epoch: int) -> None:
        """Make a version the live one."""
        value = encode(Announcement(epoch, version.id, str(version.path), 0))
        self.kafka.append(TopicPartition(self.settings.topics.model_versions, 0), [(b"live", value, ())])

    def announce_shares(self, epoch: int, shares: Iterable[tuple[Version, int]]) -> None:
        """Give each version its percent of the users."""
        each = [Share(version.id, str(version.path), percent) for version, percent in shares]
        value = encode(Announcement(epoch, each[0].version, each[0].folder, 0, each))
        self.kafka.append(TopicPartition(self.settings.topics.model_versions, 0), [(b"live", value, ())])

    def write_row(self, version: Version) -> None:
        """What a worker would write of the user with epoch 1."""
        engine = new_engine(version)
        engine.apply([batch([Happening(USER.user_id, item_id(n), 10**12 + n) for n in range(5)], range(5))])
        rows = stored_rows(engine)
        row = (rows.user[0], encode_rows(rows)[0], ())
        self.kafka.append(TopicPartition(self.settings.topics.user_state, 0), [row])

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until the condition holds. Errors: TimeoutError."""
        async with asyncio.timeout(WITHIN_S):
            while not condition():
                await asyncio.sleep(0.01)

    @property
    def epoch(self) -> int:
        """The newest epoch that the server could load."""
        return max((at.epoch for at in self.service.view.rankers), default=0)


@asynccontextmanager
async def installation(registry: Path, first: Version) -> AsyncIterator[Installation]:
    """A server that is ready, with a version as epoch 1 and the row of a user."""
    server = Installation(registry)
    server.announce(first, 1)
    server.write_row(first)
    with patch.object(reader, "AIOKafkaConsumer", partial(MemoryConsumer, server.kafka)):
        await server.service.start()
        try:
            await server.until(lambda: not server.service.not_ready())
            yield server
        finally:
            await server.service.stop()


class StandingStill:
    """Every scorer that is built stands still shortly before it is ready."""

    def __init__(self) -> None:
        self.built: list[Scorer] = []
        self.may_go_on = threading.Event()

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Let the builds stand still, and go on when this is left."""
        warm_up = Scorer.warm_up

        def wait(scorer: Scorer) -> None:
            self.built.append(scorer)
            self.may_go_on.wait()
            warm_up(scorer)

        with patch.object(Scorer, "warm_up", wait):
            try:
                yield
            finally:
                self.may_go_on.set()


@pytest.fixture
def two_versions(tmp_path: Path) -> tuple[Version, Version]:
    return random_version(tmp_path, items=50), random_version(tmp_path, items=50, seed=1)


def test_a_server_that_makes_the_first_version_ready_does_not_say_that_none_is_announced(
    tmp_path: Path, two_versions: tuple[Version, Version]
) -> None:
    first, _ = two_versions

    async def run() -> None:
        server, building = Installation(tmp_path), StandingStill()
        with patch.object(reader, "AIOKafkaConsumer", partial(MemoryConsumer, server.kafka)):
            await server.service.start()
            try:
                none_yet = "no model version is announced yet; make one with: eddy train --announce"
                await server.until(lambda: none_yet in server.service.not_ready())
                with building.patched():
                    server.announce(first, 1)
                    await server.until(lambda: building.built)
                    assert server.service.not_ready()[-1] == (
                        f"version {first.id} of epoch 1 is being made ready"
                    )
                await server.until(lambda: not server.service.not_ready())
            finally:
                await server.service.stop()

    asyncio.run(run())


def test_answers_go_on_by_the_version_before_while_a_version_is_built(
    tmp_path: Path, two_versions: tuple[Version, Version]
) -> None:
    first, second = two_versions

    async def run() -> None:
        async with installation(tmp_path, first) as server:
            before, building = await server.service.recommend(USER), StandingStill()
            with building.patched():
                server.announce(second, 2)
                await server.until(lambda: building.built)
                async with asyncio.timeout(WITHIN_S):
                    answers = [await server.service.recommend(USER) for _ in range(10)]
                assert (server.epoch, building.may_go_on.is_set()) == (1, False)
            assert {answer.version for answer in answers} == {first.id}
            assert [answer.items for answer in answers] == [before.items] * 10
            await server.until(lambda: server.epoch == 2)
            assert (await server.service.recommend(USER)).version == first.id, "its row still names it"

    asyncio.run(run())


@pytest.mark.parametrize("shares", [(90, 10), (10, 90)])
def test_whoever_has_no_share_is_answered_by_the_version_of_the_most_users(
    tmp_path: Path, two_versions: tuple[Version, Version], shares: tuple[int, int]
) -> None:
    most = two_versions[shares.index(90)]
    session = Question("", k=5, session=(SessionEvent(item_id(1), "view", None, None),))

    async def run() -> None:
        async with installation(tmp_path, two_versions[0]) as server:
            server.announce_shares(2, zip(two_versions, shares, strict=True))
            await server.until(lambda: server.epoch == 2)
            assert (await server.service.recommend(session)).version == most.id, "as soon as one is there"
            view = server.service.view
            await server.until(lambda: sum(at.epoch == 2 for at in view.rankers) == 2)
            assert (await server.service.recommend(session)).version == most.id

    asyncio.run(run())


def test_a_version_whose_items_get_other_numbers_while_it_is_built_is_built_again(
    tmp_path: Path, two_versions: tuple[Version, Version]
) -> None:
    first, second = two_versions

    def renumber(view: MaterialisedView) -> None:
        with patch.object(view._forgetting, "kept", lambda *_: np.arange(len(view.catalogue))):
            view.forget_items()

    async def run() -> None:
        async with installation(tmp_path, first) as server:
            view, building = server.service.view, StandingStill()
            with building.patched():
                server.announce(second, 2)
                await server.until(lambda: building.built)
                await server.service.on_thread(partial(renumber, view))
                building.may_go_on.set()
                await server.until(lambda: server.epoch == 2)
            assert view.newest is not None
            assert [scorer is view.newest.scorer for scorer in building.built] == [False, True]

    asyncio.run(run())


@pytest.mark.parametrize("at_once", [1, 7, 100])
def test_a_version_s_items_are_numbered_a_few_at_a_time(
    two_versions: tuple[Version, Version], at_once: int
) -> None:
    version, names = two_versions[0], ItemNames(Catalogue())
    with patch.object(numbering, "NUMBERED_AT_ONCE", at_once):
        for number, step in enumerate(numbering_steps(version, names), 1):
            step()
            assert names.ids == version.vocabulary.items[: number * at_once]
    assert names.ids == version.vocabulary.items
