"""Compiled loops over the slab's windows: what moving rows does beside the cell.

Columns of `Windows` are the slab's own and are changed in place. Indices are not checked: slots must be of
the slab, places below its width.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eddy.models.kernels.compiled import Ints, compiled
from eddy.models.kernels.window import Window


class Windows(NamedTuple):
    """Columns of the slab, by slot; W entries in a window, O older items."""

    length: NDArray[np.uint8]
    anchor_time: Ints
    item: NDArray[np.int32]
    time: Ints
    type: NDArray[np.uint16]
    value: NDArray[np.uint16]
    """bits of float16, which compiled code does not have"""
    event_id: NDArray[np.uint64]
    older: NDArray[np.int32]
    older_count: NDArray[np.uint16]
    """how many of `older` are in use"""


class EventTable(NamedTuple):
    """n accepted events in arrival order per user: the columns of
    `eddy.stream.records.decode.EventColumns` in this process's numbers, which compiled loops can take.
    """

    slot: Ints
    """of the user's row in the slab"""
    item: NDArray[np.int32]
    """catalogue indices"""
    type: NDArray[np.uint16]
    """the catalogue's numbers of event types"""
    value: NDArray[np.uint16]
    """bits of float16, which compiled code does not have"""
    time: Ints
    """ms"""
    event_id: NDArray[np.uint64]
    """40-bit hashes, 0 = none"""
    offset: Ints
    negative: NDArray[np.bool_]
    """which speak against their item"""


class VersionTables(NamedTuple):
    """What a version makes of event types and values; see `eddy.stream.engine.live_version`."""

    type_input: Ints
    """[MAX_TYPES] by type's number"""
    negative: NDArray[np.bool_]
    """[rules, 65536] by rules and the bits of a value"""
    rules_of: Ints
    """[MAX_TYPES] by type's number"""


@compiled
def by_user(slot: Ints, mark: NDArray[np.int32], order: Ints, start: Ints, count: Ints, users: Ints) -> int:
    """Bring the events of each user together, in the order given: fills order[n] and, for each user found,
    start, count and users (its slot). `mark`, one per slot, is zero before and after.
    """
    found = 0
    for i in range(len(slot)):
        at = slot[i]
        if mark[at] == 0:
            users[found] = at
            count[found] = 0
            found += 1
            mark[at] = found
        count[mark[at] - 1] += 1
    begin = 0
    for u in range(found):
        start[u] = begin
        begin += count[u]
        count[u] = 0
    for i in range(len(slot)):
        u = mark[slot[i]] - 1
        order[start[u] + count[u]] = i
        count[u] += 1
    for u in range(found):
        mark[users[u]] = 0
    return found


@compiled
def _regular(windows: Windows, given: EventTable, order: Ints, begin: int, end: int) -> int:
    """How many of a user's events from `begin` on are neither late nor of an id that the window or the events
    before them hold.
    """
    slot = given.slot[order[begin]]
    length = windows.length[slot]
    latest = windows.time[slot, length - 1] if length > 0 else windows.anchor_time[slot]
    for k in range(begin, end):
        i = order[k]
        if given.time[i] < latest:
            return k - begin
        latest = given.time[i]
        event_id = given.event_id[i]
        if event_id != 0:
            for place in range(length):
                if windows.event_id[slot, place] == event_id:
                    return k - begin
            for before in range(begin, k):
                if given.event_id[order[before]] == event_id:
                    return k - begin
    return end - begin


@compiled
def irregular(
    windows: Windows, given: EventTable, order: Ints, start: Ints, count: Ints, found: NDArray[np.bool_]
) -> bool:
    """Which users have a late event, or one whose id their window or their own events before it hold; returns
    whether any has.
    """
    some = False
    for u in range(len(start)):
        found[u] = _regular(windows, given, order, start[u], start[u] + count[u]) < count[u]
        some |= found[u]
    return some


@compiled
def regular_prefix(
    windows: Windows, given: EventTable, order: Ints, begin: Ints, end: Ints, most: int, prefix: Ints
) -> None:
    """How many events from `begin` on, at most `most`, are in order and no repeats, by user."""
    for u in range(len(begin)):
        prefix[u] = _regular(windows, given, order, begin[u], min(end[u], begin[u] + most))


@compiled
def _write(windows: Windows, given: EventTable, i: int, at: int, span: int, previous: Ints) -> None:
    slot, time = given.slot[i], given.time[i]
    if at > 0:
        time = min(time, windows.time[slot, 0] + span)
    windows.item[slot, at], windows.time[slot, at] = given.item[i], time
    windows.type[slot, at], windows.value[slot, at] = given.type[i], given.value[i]
    if given.event_id[i] != 0 or windows.event_id[slot, at] != 0:
        windows.event_id[slot, at] = given.event_id[i]
    for lag in range(previous.shape[1]):
        previous[i, lag] = windows.item[slot, at - 1 - lag] if lag < at else -1


@compiled
def append(
    windows: Windows, given: EventTable, event: Ints, place: Ints, span: int, none: int,
    gap: NDArray[np.float32], previous: Ints,
) -> None:  # fmt: skip
    """Write events into their windows at `place`, each user's in order, at most `span` ms after the first
    entry. Notes the ms since the entry before, -1 where there is `none`, and in `previous`, by event, the
    items just before, latest first.
    """
    for j in range(len(event)):
        i, at = event[j], place[j]
        slot = given.slot[i]
        before = windows.time[slot, at - 1] if at > 0 else windows.anchor_time[slot]
        _write(windows, given, i, at, span, previous)
        gap[j] = -1 if before == none else windows.time[slot, at] - before


@compiled
def _holds(windows: Windows, slot: int, event_id: int) -> bool:
    if event_id == 0:
        return False
    held = False
    for place in range(windows.length[slot]):
        held |= windows.event_id[slot, place] == event_id
    return held


@compiled
def _make_room(windows: Windows, slot: int, at: int, length: int) -> None:
    """Move the entries from `at` on one to the right."""
    for place in range(length, at, -1):
        windows.item[slot, place] = windows.item[slot, place - 1]
        windows.time[slot, place] = windows.time[slot, place - 1]
        windows.type[slot, place] = windows.type[slot, place - 1]
        windows.value[slot, place] = windows.value[slot, place - 1]
        if windows.event_id[slot, place] != windows.event_id[slot, place - 1]:
            windows.event_id[slot, place] = windows.event_id[slot, place - 1]


@compiled
def insert(
    windows: Windows, given: EventTable, order: Ints, begin: Ints, end: Ints, stop_at: NDArray[np.bool_],
    span: int, kept: NDArray[np.bool_], previous: Ints, taken: Ints, changed: Ints,
) -> tuple[int, int, int]:  # fmt: skip
    """Put each user's events from `begin` on where their times ask for, repeats left out, until the window is
    half full or full, `end` is reached, or an event is in `stop_at`; hidden states are the caller's matter.

    Fills `taken`, events gone through, and `changed`, the first place that is another one now (the window's
    width if none is); corrects the times of events that are too late. Returns how many were repeats, late,
    and too late.
    """
    width = windows.item.shape[1]
    repeats = late = too_late = 0
    for u in range(len(begin)):
        slot = given.slot[order[begin[u]]]
        taken[u], changed[u] = 0, width
        for k in range(begin[u], end[u]):
            i = order[k]
            if stop_at[i]:
                break
            taken[u] += 1
            if _holds(windows, slot, given.event_id[i]):
                kept[i] = False
                repeats += 1
                continue
            at = length = int(windows.length[slot])
            if length > 0 and given.time[i] < windows.time[slot, length - 1]:
                if given.time[i] < windows.anchor_time[slot]:
                    too_late += 1
                    given.time[i] = windows.time[slot, length - 1]  # for the row it happened now
                else:
                    late += 1
                    while at > 0 and windows.time[slot, at - 1] > given.time[i]:
                        at -= 1
            _make_room(windows, slot, at, length)
            _write(windows, given, i, at, span, previous)
            for place in range(length + 1):
                windows.time[slot, place] = min(windows.time[slot, place], windows.time[slot, 0] + span)
            windows.length[slot] = length + 1
            changed[u] = min(changed[u], at)
            if length + 1 == width // 2 or length + 1 == width:
                break
    return repeats, late, too_late


@compiled
def copy_out(
    windows: Windows,
    terms: VersionTables,
    slot: Ints,
    length: Ints,
    row: Ints,
    into: Window[NDArray[Any]],
    last_time: Ints,
) -> int:
    """Copy the first `length` entries of each slot's window, and its older items, into a row of `into`, which
    is filled up with none, and the time of its last event into `last_time`; rows below 0 are passed over.
    Returns how many older items a row has at most.
    """
    most = 0
    for j in range(len(slot)):
        at, to, n = slot[j], row[j], length[j]
        if to < 0:
            continue
        into.length[to] = n
        last_time[to] = windows.time[at, n - 1] if n > 0 else windows.anchor_time[at]
        for place in range(n):
            kind = windows.type[at, place]
            into.item[to, place] = windows.item[at, place]
            into.timestamp[to, place] = windows.time[at, place]
            into.type[to, place] = terms.type_input[kind]
            into.negative[to, place] = terms.negative[terms.rules_of[kind], windows.value[at, place]]
        into.item[to, n:] = -1
        into.timestamp[to, n:] = 0
        into.type[to, n:] = terms.type_input[0]  # the number of no type
        into.negative[to, n:] = False
        older = min(windows.older_count[at], into.older.shape[1])
        for place in range(older):
            into.older[to, place] = windows.older[at, place] - 1
        into.older[to, older:] = -1
        most = max(most, older)
    return most


@compiled
def set_lengths(windows: Windows, slot: Ints, length: Ints, half: Ints, full: Ints) -> tuple[int, int]:
    """Note new lengths. Which of them are half a window, and which a full one, goes into `half` and `full`;
    returns how many.
    """
    width = windows.item.shape[1]
    halves = fulls = 0
    for i in range(len(slot)):
        windows.length[slot[i]] = length[i]
        if length[i] == width // 2:
            half[halves] = i
            halves += 1
        elif length[i] >= width:
            full[fulls] = i
            fulls += 1
    return halves, fulls


@compiled
def _remember(windows: Windows, terms: VersionTables, slot: int, kept: NDArray[np.int32]) -> None:
    leaving = 0
    for place in range(windows.item.shape[1] // 2 - 1, -1, -1):
        rules = terms.rules_of[windows.type[slot, place]]
        if terms.negative[rules, windows.value[slot, place]]:
            continue
        item, new = windows.item[slot, place] + 1, True
        for i in range(leaving):
            new &= kept[i] != item
        if new:
            kept[leaving] = item
            leaving += 1
    n = leaving
    for place in range(windows.older_count[slot]):
        item, new = windows.older[slot, place], n < len(kept)
        for i in range(leaving):
            new &= kept[i] != item
        if new:
            kept[n] = item
            n += 1
    windows.older[slot, :n] = kept[:n]
    windows.older_count[slot] = n


@compiled
def _shift(column: NDArray[Any], slot: int) -> None:
    half = column.shape[1] // 2
    for place in range(half):
        column[slot, place] = column[slot, half + place]


@compiled
def drop_halves(windows: Windows, terms: VersionTables, slot: Ints) -> None:
    """Full windows give their older half away: what it names, unless it is negative there, goes before the
    older items, each once; its last time becomes the anchor's.
    """
    half = windows.item.shape[1] // 2
    kept = np.empty(windows.older.shape[1], np.int32)
    for i in range(len(slot)):
        at = slot[i]
        _remember(windows, terms, at, kept)
        windows.anchor_time[at] = windows.time[at, half - 1]
        _shift(windows.item, at)
        _shift(windows.time, at)
        _shift(windows.type, at)
        _shift(windows.value, at)
        named = False
        for place in range(2 * half):
            named |= windows.event_id[at, place] != 0
        if named:
            _shift(windows.event_id, at)
            windows.event_id[at, half:] = 0
        windows.length[at] = half


@compiled
def include(
    slot: Ints, offset: Ints, mixed: NDArray[np.uint64], kept: NDArray[np.bool_],
    last: Ints, applied: NDArray[np.uint32], digest: NDArray[np.uint64],
) -> None:  # fmt: skip
    """Note in the slab's columns that rows include these offsets; `mixed` is for those whose events were
    kept.
    """
    for i in range(len(slot)):
        at = slot[i]
        last[at] = max(last[at], offset[i])
        if kept[i]:
            applied[at] += np.uint32(1)
            digest[at] += mixed[i]
