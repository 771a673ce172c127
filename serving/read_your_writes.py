"""Reading what one has written: answers that wait, for a bounded time, until they include a record of
`events`.

An answer about a user includes the record at (partition, offset) in either of two cases:

1. The user's row is of that partition and includes that offset or a later one. A re-sent event moves the
   row's offset, too. A later row of another user would prove nothing.
2. Workers have committed past the offset, and the server has followed `user-state` up to where it ended
   then. A worker commits only after its rows are durable, so nothing that the record has done to the user can
   be missing. This is how an erasure is seen, and a record that changes no row: one of an event type that
   does not move states, or a dead letter.

Rows wake those who wait for them. Workers' commits wake nobody, so that they are asked for, for all waiters
together, when a row is late.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from eddy.serving.event_writer import Position
from eddy.stream.kafka.clients import aiokafka_config
from eddy.stream.kafka.starting import started
from eddy.stream.records.settings import Settings

log = logging.getLogger("eddy.serving")

LOOK_EVERY_S = 0.25
"""The time between two questions for the workers' commits, and before the first one."""


class Commit(NamedTuple):
    """What workers have made durable of a partition."""

    events: int
    """their committed offset on `events`: everything before it is done"""
    changelog_end: int
    """end of `user-state` just after that offset was read; what is done lies before it"""


class Commits:
    """Reads the commits of the workers, over a connection that is made when it is needed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._consumer: AIOKafkaConsumer | None = None

    async def read(self, partitions: Iterable[int]) -> dict[int, Commit]:
        """The commit of each of these partitions that has one. Errors: KafkaError, AssertionError."""
        if self._consumer is None:
            # It is no member of the group, since it subscribes to nothing. The end of `user-state` must not
            # leave out transactions whose markers are on their way: they are committed already.
            self._consumer = await started(
                lambda: AIOKafkaConsumer(
                    **aiokafka_config(self._settings), group_id=self._settings.group, enable_auto_commit=False
                ),
                within_s=LOOK_EVERY_S,
            )
        topics, committed = self._settings.topics, dict[int, int]()
        for partition in partitions:
            offset = await self._consumer.committed(TopicPartition(topics.events, partition))
            if offset is not None:
                committed[partition] = offset
        ends = await self._consumer.end_offsets(
            [TopicPartition(topics.user_state, partition) for partition in committed]
        )
        return {tp.partition: Commit(committed[tp.partition], end) for tp, end in ends.items()}

    async def close(self) -> None:
        """End the connection."""
        if self._consumer is not None:
            await self._consumer.stop()


class _Waiter:
    """An answer that waits."""

    def __init__(self, position: Position) -> None:
        self.position = position
        self.woken = asyncio.Event()


class ReadYourWrites:
    """See the module.

    `row_includes` says whether the server's row of a user includes a record, `read_commits` reads the
    workers' commits, and `followed` is the offset up to which the server has followed a partition of
    `user-state`. So many answers wait at most: further ones are given at once, as they are.
    """

    def __init__(
        self,
        row_includes: Callable[[str, Position], Awaitable[bool]],
        read_commits: Callable[[Iterable[int]], Awaitable[Mapping[int, Commit]]],
        followed: Callable[[int], int],
        most: int,
    ) -> None:
        self._row_includes, self._read_commits, self._followed = row_includes, read_commits, followed
        self._most = most
        self._waiters: dict[bytes, set[_Waiter]] = {}
        self._waiting = 0
        self._done: dict[int, int] = {}
        """by partition: the offset before which the server shows all that records of `events` have done"""
        self._looking: asyncio.Task[None] | None = None

    async def includes(self, user: str, position: Position, within_s: float) -> bool:
        """Whether what the server says of a user includes the record at a position of the user's partition;
        waits for it up to `within_s`.
        """
        if await self._is_included(user, position):
            return True
        if self._waiting >= self._most:
            return False
        key, waiter = user.encode(), _Waiter(position)
        self._waiters.setdefault(key, set()).add(waiter)
        self._waiting += 1
        self._look()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    while not await self._is_included(user, position):
                        await waiter.woken.wait()
                        waiter.woken.clear()
                    return True
            return False
        finally:
            self._waiting -= 1
            self._waiters[key].discard(waiter)
            if not self._waiters[key]:
                del self._waiters[key]

    def wake(self, users: Iterable[bytes]) -> None:
        """Records of these users on `user-state` have been taken in."""
        if self._waiters:
            for user in self._waiters.keys() & set(users):
                for waiter in self._waiters[user]:
                    waiter.woken.set()

    def close(self) -> None:
        """Look for nothing any more."""
        if self._looking is not None:
            self._looking.cancel()

    async def _is_included(self, user: str, position: Position) -> bool:
        return self._is_done(position) or await self._row_includes(user, position)

    def _is_done(self, position: Position) -> bool:
        return position.offset < self._done.get(position.partition, 0)

    # -- commits ------------------------------------------------------------------------------------------

    def _look(self) -> None:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_at_commits())

    async def _look_at_commits(self) -> None:
        """As long as somebody waits, find out what is done."""
        commits: Mapping[int, Commit] = {}
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            partitions = {
                waiter.position.partition for waiters in self._waiters.values() for waiter in waiters
            }
            if not partitions:
                return
            self._note_done(commits)
            try:
                commits = await self._read_commits(partitions)
            except (KafkaError, AssertionError) as error:
                log.warning("the workers' commits cannot be read (%r)", error)
            self._note_done(commits)

    def _note_done(self, commits: Mapping[int, Commit]) -> None:
        """Wake those who wait for what is done by now."""
        for partition, commit in commits.items():
            if self._followed(partition) >= commit.changelog_end:
                self._done[partition] = max(commit.events, self._done.get(partition, 0))
        for waiters in self._waiters.values():
            for waiter in waiters:
                if self._is_done(waiter.position):
                    waiter.woken.set()
