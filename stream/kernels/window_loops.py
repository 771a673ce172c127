"""Compiled loops over the slab's recent windows: the part of moving rows that is not the cell's.

The columns of `Windows` are the slab's own, and are changed in place. Indices are not checked: slots must be
rows of the slab, positions in a window below its width W, and types below MAX_TYPES. A loop that takes
`order` and events from `begin` to `end` reads events order[begin] … order[end - 1], which are of one user, at
least one, in the order in which they arrived.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eddy.models.kernels.compiled import Ints, compiled
from eddy.models.kernels.window import Window


class Windows(NamedTuple):
    """Columns of the slab, by slot: [slots] or [slots,W], W entries in a window; `older` is [slots,O]."""

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
    """how many entries of `older` are in use; each is a catalogue index plus one"""


class EventTable(NamedTuple):
    """n accepted events in arrival order per user: the columns of
    `eddy.stream.records.decode.EventColumns` in this process's numbers, which compiled loops can take.
    """

    slot: Ints  # of the user's row in the slab
    item: NDArray[np.int32]  # catalogue indices
    type: NDArray[np.uint16]  # the catalogue's numbers of event types
    value: NDArray[np.uint16]  # bits of float16, which compiled code does not have
    time: Ints  # ms
    event_id: NDArray[np.uint64]  # 40-bit hashes, 0 = none
    offset: Ints
    negative: NDArray[np.bool_]  # which events speak against their item


class VersionTables(NamedTuple):
    """How a version reads event types and values; see `eddy.stream.engine.live_version`."""

    type_input: Ints
    """[MAX_TYPES] the cell's input index of each type"""
    negative: NDArray[np.bool_]
    """[rules, 65536] whether an event speaks against its item, by its type's rules and its value's bits"""
    rules_of: Ints
    """[MAX_TYPES] the row of `negative` of each type"""


@compiled
def by_user(slot: Ints, mark: NDArray[np.int32], order: Ints, start: Ints, count: Ints, users: Ints) -> int:
    """Bring the events of each user together, by slot[n], in the order given; returns the number of users, u.

    Writes the events' positions into order[n], and into the first u entries of `start`, `count` and `users`
    where in `order` a user's events begin, how many they are, and the user's slot; users in order of
    appearance. `mark`, one per slot of the slab, must be zero, and is so again afterwards.
    """
    # 1. Number the users, and count their events.
    n_users = 0
    for i in range(len(slot)):
        at = slot[i]
        if mark[at] == 0:
            users[n_users] = at
            count[n_users] = 0
            n_users += 1
            mark[at] = n_users
        count[mark[at] - 1] += 1
    # 2. Give each user a part of `order`.
    begin = 0
    for u in range(n_users):
        start[u] = begin
        begin += count[u]
        count[u] = 0
    # 3. Fill it.
    for i in range(len(slot)):
        u = mark[slot[i]] - 1
        order[start[u] + count[u]] = i
        count[u] += 1
    for u in range(n_users):
        mark[users[u]] = 0
    return n_users


@compiled
def _regular(windows: Windows, given: EventTable, order: Ints, begin: int, end: int) -> int:
    """How many of a user's events come before the first that is late, or whose id is that of an event in the
    window or of one before it: `end` - `begin` if there is none.
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
    windows: Windows,
    given: EventTable,
    order: Ints,
    start: Ints,
    count: Ints,
    is_irregular: NDArray[np.bool_],
) -> bool:
    """Write into is_irregular[u] which users have an event that is late, or that repeats the id of an event
    in their window or earlier in this batch; returns whether any user has. start[u] and count[u] are those
    that `by_user` writes.
    """
    any_user = False
    for u in range(len(start)):
        is_irregular[u] = _regular(windows, given, order, start[u], start[u] + count[u]) < count[u]
        any_user |= is_irregular[u]
    return any_user


@compiled
def regular_prefix(
    windows: Windows, given: EventTable, order: Ints, begin: Ints, end: Ints, most: int, prefix: Ints
) -> None:
    """Write into prefix[u] how many events of each user, from begin[u] on and at most `most`, come before the
    first that is late or a repeat.
    """
    for u in range(len(begin)):
        prefix[u] = _regular(windows, given, order, begin[u], min(end[u], begin[u] + most))


@compiled
def _write(windows: Windows, given: EventTable, i: int, at: int, span: int, previous: Ints) -> None:
    """Write event i at position `at` of its user's window, and its previous items as `append` does."""
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
    """Write event[m], positions in `given`, into their users' windows at position place[m], each user's in
    order. A time later than `span` ms after the window's first entry is written as that.

    Writes into gap[m] the ms since the entry before, or since the anchor's time at position 0; -1 where that
    time is `none`. Writes into previous[n,K], by the event's position in `given`, the K items in the window
    before it, latest first, -1 beyond. Lengths of windows are not changed.
    """
    for j in range(len(event)):
        i, at = event[j], place[j]
        slot = given.slot[i]
        before = windows.time[slot, at - 1] if at > 0 else windows.anchor_time[slot]
        _write(windows, given, i, at, span, previous)
        gap[j] = -1 if before == none else windows.time[slot, at] - before


@compiled
def _contains(windows: Windows, slot: int, event_id: int) -> bool:
    """Whether the window has an event of this id; 0 = no id."""
    if event_id == 0:
        return False
    contains = False
    for place in range(windows.length[slot]):
        contains |= windows.event_id[slot, place] == event_id
    return contains


@compiled
def _make_room(windows: Windows, slot: int, at: int, length: int) -> None:
    """Move the entries `at` … `length` - 1 of a window one position to the right; `length` must be
    below W.
    """
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
    """Insert each user's events where their times belong in the window, without repeats, until the window is
    half full or full, end[u] is reached, or an event is in stop_at[n]. No window may be full before. The
    caller has to bring hidden states after them.

    1. An event whose id is in the window is a repeat: kept[n] becomes False.
    2. An event before the anchor's time is too late: it gets the time of the window's last entry in `given`,
       and comes last. Any other late event goes behind the last entry that is not later than it.
    3. Later entries move to the right; times are at most `span` ms after the first entry's. `previous` is
       written as by `append`.

    Writes into taken[u] how many events were gone through, and into changed[u] the first position of the
    window with another entry than before, W if there is none. Returns how many events were repeats, late, and
    too late.
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
            # 1. A repeat.
            if _contains(windows, slot, given.event_id[i]):
                kept[i] = False
                repeats += 1
                continue
            # 2. Its position.
            at = length = int(windows.length[slot])
            if length > 0 and given.time[i] < windows.time[slot, length - 1]:
                if given.time[i] < windows.anchor_time[slot]:
                    too_late += 1
                    given.time[i] = windows.time[slot, length - 1]  # to the row it is as if it happened now
                else:
                    late += 1
                    while at > 0 and windows.time[slot, at - 1] > given.time[i]:
                        at -= 1
            # 3. Into the window.
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
    """Copy the first length[j] entries of the window of slot[j], and its older items, into row row[j] of
    `into`, and fill the rest of the row with what stands for no event; and the time of its last event into
    `last_time`. Where row[j] < 0 nothing is copied. Returns the largest number of older items that a row has.
    """
    most = 0
    for j in range(len(slot)):
        at, to, n = slot[j], row[j], length[j]
        if to < 0:
            continue
        into.length[to] = n
        last_time[to] = windows.time[at, n - 1] if n > 0 else windows.anchor_time[at]
        for place in range(n):
            type_ = windows.type[at, place]
            into.item[to, place] = windows.item[at, place]
            into.timestamp[to, place] = windows.time[at, place]
            into.type[to, place] = terms.type_input[type_]
            into.negative[to, place] = terms.negative[terms.rules_of[type_], windows.value[at, place]]
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
    """Set the windows of slot[m] to length[m]. Write the positions, in `slot`, of windows that are half full
    into `half`, and of full ones into `full`; returns how many each has.
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
def _add_older_items(windows: Windows, terms: VersionTables, slot: int, kept: NDArray[np.int32]) -> None:
    """Put the items in the older half of a window, unless their events are negative, before the slot's older
    items, latest first, each once; those beyond O are forgotten. kept[O] is working space.
    """
    # 1. The items that leave.
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
    # 2. The older items that are none of these.
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
    """Overwrite the older half of a window's column with the newer half."""
    half = column.shape[1] // 2
    for place in range(half):
        column[slot, place] = column[slot, half + place]


@compiled
def drop_halves(windows: Windows, terms: VersionTables, slot: Ints) -> None:
    """Drop the older half of full windows: its items, unless negative there, go before the older items, each
    once, and the time of its last entry becomes the anchor's. The anchors' hidden states are the caller's.
    """
    half = windows.item.shape[1] // 2
    kept = np.empty(windows.older.shape[1], np.int32)
    for i in range(len(slot)):
        at = slot[i]
        _add_older_items(windows, terms, at, kept)
        windows.anchor_time[at] = windows.time[at, half - 1]
        _shift(windows.item, at)
        _shift(windows.time, at)
        _shift(windows.type, at)
        _shift(windows.value, at)
        has_ids = False
        for place in range(2 * half):
            has_ids |= windows.event_id[at, place] != 0
        if has_ids:
            _shift(windows.event_id, at)
            windows.event_id[at, half:] = 0
        windows.length[at] = half


@compiled
def include(
    slot: Ints, offset: Ints, mixed: NDArray[np.uint64], kept: NDArray[np.bool_],
    last: Ints, applied: NDArray[np.uint32], digest: NDArray[np.uint64],
) -> None:  # fmt: skip
    """Note in the slab's columns `last`, `applied` and `digest` that the row of slot[m] includes offset[m].
    Only events that are kept[m] count in `applied`, and add mixed[m], a mix of the offset, to `digest`.
    """
    for i in range(len(slot)):
        at = slot[i]
        last[at] = max(last[at], offset[i])
        if kept[i]:
            applied[at] += np.uint32(1)
            digest[at] += mixed[i]
