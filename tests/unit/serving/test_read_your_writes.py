"""An answer waits until it includes what its asker wrote, and says whether it does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from aiokafka.errors import KafkaConnectionError

from eddy.serving.event_writer import Position
from eddy.serving.read_your_writes import Commit, ReadYourWrites

LONG_S = 60.0
SOON_S = 0.05
MOST = 3


class Server:
    """What a server shows and knows, as a test sets it."""

    def __init__(self) -> None:
        self.rows: dict[str, Position] = {}
        self.commits: dict[int, Commit] = {}
        self.followed: dict[int, int] = {}
        self.fails = False
        self.looks = 0
        self.looked = asyncio.Event()
        self.waits = ReadYourWrites(
            self._row_includes, self._read_commits, lambda n: self.followed.get(n, -1), MOST
        )

    async def _row_includes(self, user: str, position: Position) -> bool:
        row = self.rows.get(user)
        return row is not None and row.partition == position.partition and row.offset >= position.offset

    def _followed(self, partition: int) -> int:
        return self.followed.get(partition, -1)

    async def _read_commits(self, partitions: Iterable[int]) -> dict[int, Commit]:
        self.looks += 1
        self.looked.set()
        if self.fails:
            raise KafkaConnectionError
        return {number: self.commits[number] for number in partitions if number in self.commits}

    def take_row(self, user: str, partition: int, offset: int) -> None:
        """A row of a user comes in."""
        self.rows[user] = Position(partition, offset)
        self.waits.wake([user.encode()])

    async def waiting(self, user: str, at: Position, within_s: float = LONG_S) -> asyncio.Task[bool]:
        """An answer that has begun to wait."""
        task = asyncio.create_task(self.waits.includes(user, at, within_s))
        while not task.done() and user.encode() not in self.waits._waiters:
            await asyncio.sleep(0)
        return task


async def turns() -> None:
    """Let everything that is ready go on."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_row_that_includes_the_record_is_not_waited_for() -> None:
    async def run() -> None:
        server = Server()
        server.take_row("anna", 1, 7)
        for offset in (0, 7):
            assert await server.waits.includes("anna", Position(1, offset), 0.0)
        assert server.waits._looking is None

    asyncio.run(run())


def test_a_row_wakes_those_who_wait_for_its_user_and_nobody_else() -> None:
    async def run() -> None:
        server = Server()
        anna, bob = [await server.waiting(user, Position(1, 7)) for user in ("anna", "bob")]
        server.take_row("anna", 1, 6)
        await turns()
        assert not anna.done()
        server.take_row("anna", 1, 9)
        await turns()
        assert anna.done()
        assert await anna
        assert not bob.done(), "a later row of another user proves nothing"
        server.take_row("bob", 1, 7)
        assert await bob

    asyncio.run(run())


def test_a_row_of_another_partition_includes_nothing() -> None:
    async def run() -> None:
        server = Server()
        server.take_row("anna", 0, 100)
        assert not await server.waits.includes("anna", Position(1, 7), SOON_S)

    asyncio.run(run())


def test_a_record_that_changes_no_row_is_included_when_its_commit_and_all_before_it_are_here() -> None:
    async def run() -> None:
        server = Server()
        waiting = await server.waiting("anna", Position(1, 7))
        for committed, followed in ((7, 100), (8, 49)):
            server.commits, server.followed = {1: Commit(committed, 50)}, {1: followed}
            server.looked.clear()
            await server.looked.wait()
            await turns()
            assert not waiting.done()
        server.followed = {1: 50}
        assert await waiting
        assert await server.waits.includes("bob", Position(1, 7), 0.0), "what is done stays done"
        assert not await server.waits.includes("bob", Position(1, 8), 0.0)

    asyncio.run(run())


def test_a_question_for_commits_that_fails_is_asked_again() -> None:
    async def run() -> None:
        server = Server()
        server.fails = True
        waiting = await server.waiting("anna", Position(1, 7))
        await server.looked.wait()
        server.fails, server.commits, server.followed = False, {1: Commit(8, 50)}, {1: 50}
        assert await waiting

    asyncio.run(run())


def test_nobody_is_asked_for_commits_when_nobody_waits() -> None:
    async def run() -> None:
        server = Server()
        assert not await server.waits.includes("anna", Position(1, 7), SOON_S)
        assert server.waits._waiters == {}
        assert server.waits._looking is not None
        await server.waits._looking
        assert server.looks == 0

    asyncio.run(run())


def test_more_answers_than_may_wait_are_given_as_they_are() -> None:
    async def run() -> None:
        server = Server()
        waiting = [await server.waiting(f"user-{number}", Position(1, 7)) for number in range(MOST)]
        assert not await server.waits.includes("anna", Position(1, 7), LONG_S)
        server.take_row("user-0", 1, 7)
        assert await waiting[0]
        one_more = await server.waiting("anna", Position(1, 7))
        await turns()
        assert not one_more.done(), "there is room again"
        for task in (*waiting, one_more):
            task.cancel()

    asyncio.run(run())
