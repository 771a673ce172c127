"""A person, live: their list and their new events, each time that their row changes."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from eddy.serving.admission import Overloaded
from eddy.serving.lists.answers import Answer
from eddy.serving.live.answers import ActiveUser, ActiveUsers
from eddy.serving.live.streams import event
from eddy.serving.stored_user import StoredEvent, StoredUser
from eddy.serving.view import MaterialisedView
from eddy.stream.records.clock import wall_ms

LEAST_PERIOD_S = 0.1
"""Lists follow each other at least so far apart; changes in between are one."""

TRY_AGAIN_S = 0.5
"""The pause when more is asked of the server than it can answer in time."""


@dataclass(frozen=True, slots=True)
class RowPlace:
    """Which row a list was made from."""

    partition: int
    offset: int
    epoch: int
    version: str | None


@dataclass(frozen=True, slots=True)
class PersonNow:
    """A person's list as of a change of their row."""

    time: int
    """ms since 1970, when this was told"""
    received_ms: int | None
    """when the server had the row's record; null for the first message, which tells of what was there"""
    answer: Answer
    events: list[StoredEvent]
    """of the recent window, those that the message before did not tell of"""
    row: RowPlace | None
    """null where there is no row"""


@dataclass(frozen=True, slots=True)
class Erased:
    """There is nothing of the person any more."""

    time: int
    received_ms: int | None
    user_id: str


class RowWatch:
    """Somebody who waits for changes of one row."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.received_ms: int | None = None


class RowWatches:
    """Who waits for whose row; used on the event loop."""

    def __init__(self) -> None:
        self._by_user: dict[bytes, set[RowWatch]] = {}

    def wake(self, newest: Mapping[bytes, object]) -> None:
        """Records of these users on `user-state` have been taken in."""
        if not self._by_user:
            return
        now = wall_ms()
        for user in self._by_user.keys() & newest.keys():
            for watch in self._by_user[user]:
                watch.received_ms = now
                watch.changed.set()

    def add(self, user: str) -> RowWatch:
        """Wait for changes of a user's row, until `remove`."""
        watch = RowWatch()
        self._by_user.setdefault(user.encode(), set()).add(watch)
        return watch

    def remove(self, user: str, watch: RowWatch) -> None:
        """Wait no more."""
        watches = self._by_user.get(user.encode(), set())
        watches.discard(watch)
        if not watches:
            self._by_user.pop(user.encode(), None)


Ask = Callable[[], Awaitable[Answer]]
LookUp = Callable[[], Awaitable[StoredUser | None]]


class PersonSource:
    """What a stream about a person tells."""

    def __init__(self, user: str, watches: RowWatches, ask: Ask, look_up: LookUp) -> None:
        self._user, self._watches, self._ask, self._look_up = user, watches, ask, look_up
        self._watch = watches.add(user)
        self._watch.changed.set()  # the first message does not wait
        self._told: Counter[Any] = Counter()
        self._had_row = False
        self._not_before = 0.0

    def close(self) -> None:
        """Nothing is told any more."""
        self._watches.remove(self._user, self._watch)

    async def next(self) -> bytes:
        """Wait for a change; see `Source`."""
        loop = asyncio.get_running_loop()
        await self._watch.changed.wait()
        await asyncio.sleep(max(self._not_before - loop.time(), 0.0))
        self._watch.changed.clear()
        while True:
            try:
                message = await self._message()
            except Overloaded:
                await asyncio.sleep(TRY_AGAIN_S)
            else:
                self._not_before = loop.time() + LEAST_PERIOD_S
                return message

    async def _message(self) -> bytes:
        row, received = await self._look_up(), self._watch.received_ms
        if row is None and self._had_row:
            self._had_row, self._told = False, Counter()
            return event("erased", Erased(wall_ms(), received, self._user))
        answer = await self._ask()
        events = self._news(row.events if row else [])
        place = None if row is None else RowPlace(row.partition, row.offset, row.epoch, row.version)
        self._had_row = row is not None
        return event("list", PersonNow(wall_ms(), received, answer, events, place))

    def _news(self, window: Sequence[StoredEvent]) -> list[StoredEvent]:
        """The events of a window that the one before did not have. Titles that came since are no news."""
        keys = [replace(each, title=None) for each in window]
        old, news = self._told.copy(), []
        for key, each in zip(keys, window, strict=True):
            if old[key]:
                old[key] -= 1
            else:
                news.append(each)
        self._told = Counter(keys)
        return news


def active_users(view: MaterialisedView, limit: int) -> ActiveUsers:
    """The users with the latest events."""
    users: list[ActiveUser] = []
    for user in view.latest_users.newest():
        row = view.find_row(user)
        if row is None:
            continue
        slab, slot = view.slabs[row.at], row.slot
        last = int(slab.last_time(np.array([slot]))[0])
        users.append(ActiveUser(user, last, int(slab.applied[slot])))
        if len(users) == limit:
            break
    return ActiveUsers(users)
