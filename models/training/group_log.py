"""A log that several processes train on, each of which has the events of users of its own.

Rows of the whole log are its events in (timestamp, arrival) order, as a lone process would have them. A
process knows how many of its own events come before such a row (`GroupLog.own_rows`), and nothing else of the
others' events. What all need is made by adding up: how often items occur, how long users' walks are. The
numbers of users and items are those that a lone process would give them.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eddy.models.errors import EddyError
from eddy.models.logs.column_store import slices
from eddy.models.logs.events import Events, Origin
from eddy.models.logs.names import Names
from eddy.models.logs.order import first_rows
from eddy.models.training.distributed import Group

Ints = NDArray[np.int64]


class GroupLog:
    """The log of a group, of which this process has `events`."""

    def __init__(self, events: Events, group: Group) -> None:
        self.events = events
        self.group = group
        self.rows = self.total(len(events))
        """events of all processes"""

    def total(self, own: int) -> int:
        """The sum over all processes."""
        return int(self.group.total(np.array([own]))[0])

    def until_ms(self) -> int:
        """Time of the last event."""
        newest = int(self.events.timestamp[-1]) if len(self.events) else 0
        return int(self.group.each(newest).max())

    def own_rows(self, rows: Ints, begin: int = 0, of_all: int = 0) -> tuple[Ints, Ints]:
        """How many of this process's events come before each of these rows of the whole log, and the times of
        the events there (of the last one for a row at the end): int64[k] each.

        begin, of_all: the rows are among those from `of_all` on, and this process's from `begin` on.
        """
        timestamp = self.events.timestamp
        if self.group.size == 1:
            return rows, timestamp[np.minimum(rows, len(timestamp) - 1)]
        own, rank = timestamp[begin:], rows - of_all
        inside = np.minimum(rank, self.rows - of_all - 1)
        # 1. The times: the smallest ones before or at which there are more events than come before the row.
        low = np.full(len(rows), self.group.each(int(own[0]) if len(own) else 1 << 62).min())
        high = np.full(len(rows), self.group.each(int(own[-1]) if len(own) else 0).max())
        while (low < high).any():
            middle = (low + high) // 2
            enough = self.group.total(np.searchsorted(own, middle, "right")) > inside
            low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
        # 2. Among the events of that time, as many as are missing, by arrival.
        before, until = np.searchsorted(own, low, "left"), np.searchsorted(own, low, "right")
        missing = inside - self.group.total(before)
        found = before + self._first_arrivals(before + begin, until + begin, missing)
        return begin + np.where(rank > inside, len(own), found), low

    def _first_arrivals(self, begin: Ints, end: Ints, missing: Ints) -> Ints:
        """How many of this process's events begin[k] … end[k] - 1, which are in the order of their arrival,
        are among the first missing[k] ones of all processes.
        """
        arrival = arrivals(self.events)

        def counts(until: Ints) -> Ints:
            return np.array(
                [
                    np.searchsorted(arrival[first:last], to)
                    for first, last, to in zip(begin.tolist(), end.tolist(), until.tolist(), strict=True)
                ],
                np.int64,
            )

        low = np.zeros(len(begin), np.int64)
        high = np.full(len(begin), self.group.each(int(arrival.max(initial=0))).max() + 1)
        while (low < high).any():
            middle = (low + high) // 2
            enough = self.group.total(counts(middle)) >= missing
            low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
        return counts(low)


def arrivals(events: Events) -> NDArray[np.integer]:
    """Each event's number among all that were read, by any process."""
    assert events.origin is not None, "only a log that was read is shared"
    return events.origin.row


def with_common_numbers(events: Events, group: Group) -> Events:
    """This process's events, with users, items and types numbered over all processes by first appearance. The
    names of others' users are null.

    Errors: EddyError when no process has events, or when they differ in having a clock.
    """
    if group.size == 1:
        return events
    if not group.each(len(events)).any():
        raise EddyError(f"{events.source}: no events in it; give a file with at least one row")
    if len(set(group.each(int(events.clock)).tolist())) > 1:
        raise EddyError(f"{events.source}: some of its files have timestamps, others have not; use one form")
    user_number, users = _common_users(events, group)
    item_number, items = _common_names(events, events.item, events.items, group)
    type_number, types = _common_names(events, events.type, events.types, group)

    def renumbered(column: NDArray[np.int32], number: NDArray[np.int32]) -> NDArray[np.int32]:
        return events.store.filled(len(events), np.int32, lambda part: number[column[part]])

    return replace(
        events, users=users, items=items, types=types, user=renumbered(events.user, user_number),
        item=renumbered(events.item, item_number), type=renumbered(events.type, type_number),
    )  # fmt: skip


def _first_seen(events: Events, number: NDArray[np.int32], count: int) -> tuple[Ints, Ints]:
    """Time and arrival of the first event of each of a process's users, items or types: int64[count] each."""
    first = first_rows(lambda part: number[part], len(events), count)
    return events.timestamp[first].astype(np.int64), arrivals(events)[first].astype(np.int64)


def _common_users(events: Events, group: Group) -> tuple[NDArray[np.int32], Names]:
    """The common numbers of this process's users, and the names of all users."""
    time, arrival = _first_seen(events, events.user, len(events.users))
    counts = group.each(len(time))
    order = np.lexsort((group.concatenated_array(arrival), group.concatenated_array(time)))
    number = np.empty(len(order), np.int32)
    number[order] = np.arange(len(order))
    begin = int(counts[: group.rank].sum())
    own = number[begin : begin + len(time)]
    place = np.full(len(order), -1)
    place[own] = np.arange(len(own))
    names = events.users.texts if isinstance(events.users, Names) else pa.array(events.users)
    return own, Names(names.take(pa.array(place, mask=place < 0)))


def _common_names(
    events: Events, number: NDArray[np.int32], names: Sequence[str], group: Group
) -> tuple[NDArray[np.int32], list[str]]:
    """The common numbers of names that several processes may have, and all names."""
    time, arrival = _first_seen(events, number, len(names))
    first: dict[str, tuple[int, int]] = {}
    told: list[tuple[list[str], list[int], list[int]]] = group.of_all(
        (list(names), time.tolist(), arrival.tolist())
    )
    for of_process in told:
        for name, *when in zip(*of_process, strict=True):
            first[name] = min(first.get(name, (1 << 62, 0)), (when[0], when[1]))
    everyone = sorted(first, key=lambda name: first[name])
    numbers = {name: number for number, name in enumerate(everyone)}
    return np.array([numbers[name] for name in names], np.int32), everyone


def gathered(log: GroupLog, rows: NDArray[np.bool_], begin: int) -> tuple[Events, int] | None:
    """In the first process, these events of all processes, rows[n] of each, as a log in order, and how many
    of them are before the rows from `begin` on. The others get None.
    """
    events, group, store = log.events, log.group, log.events.store
    # 1. Which of this process's events are meant.
    growing = store.growing(np.int64)
    for part in slices(len(rows)):
        growing.append(np.flatnonzero(rows[part]) + part.start)
    picked = growing.finish()
    longest = int(group.each(len(picked)).max())

    # 2. What all processes tell of theirs, slice by slice: so much at a time is in memory.
    def told(of_rows: Callable[[Ints], NDArray[Any]]) -> NDArray[Any]:
        joined = store.growing(of_rows(picked[:0]).dtype)
        for part in slices(longest):
            for values in group.to_first(of_rows(picked[part])) or ():
                joined.append(values)
        return joined.finish()

    names = "user", "item", "timestamp", "type", "value"
    columns = {name: told(getattr(events, name).__getitem__) for name in names}
    arrival, late = told(arrivals(events).__getitem__), told(lambda rows: rows >= begin)
    if not group.first:
        return None
    # 3. In the order of the whole log.
    order = np.lexsort((arrival, columns["timestamp"], late))

    def in_order(column: NDArray[Any]) -> NDArray[Any]:
        return store.filled(len(order), column.dtype, lambda part: column[order[part]])

    in_log: dict[str, Any] = {name: in_order(column) for name, column in columns.items()}
    origin = Origin((), in_order(arrival))
    return replace(events, event_id=None, origin=origin, **in_log), int((~late).sum())
