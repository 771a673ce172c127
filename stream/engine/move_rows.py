"""Moves rows forward: each record changes its user's row exactly once, in the order (timestamp, arrival).

Two ways to the same result. Users whose events come in order and are no repeats move in packed waves, up to
HALF events at a time, so that the states that may become anchors are met at the end of a call. Of users with
a late or a repeated event, what is in order moves so, too; the rest is put into the window, up to HALF events
at a time, and encoded anew after that, or one event at a time where the row is looked at in between. So one
such user, a bot that sends thousands of events, costs the others little. An exception leaves the slab half
written: the caller must end the process, and the log brings everything back.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from eddy.models.kernels.compiled import Ints
from eddy.models.tensors import Inputs, to_device
from eddy.stream.engine.live_version import LiveVersion
from eddy.stream.kernels import window_loops
from eddy.stream.kernels.waves import Waves, pack
from eddy.stream.kernels.window_loops import EventTable, RecentWindows, Windows
from eddy.stream.state.rows import NO_TIME, TIME_SPAN, WINDOW, splitmix64
from eddy.stream.state.slab import HALF, Slab, Slots

MOST_IN_ORDER = 512
"""Events of one irregular user that go in waves at once: to look for repeated ids takes the square of it."""


@dataclass(frozen=True)
class RowViews:
    """What m answers are made from: the cell's output and the recent window, at one moment of each row."""

    event: Ints
    """[m] which event of the given columns it stands at"""
    output: torch.Tensor
    """[m, H]"""
    recent: RecentWindows

    @classmethod
    def empty(cls, event: Ints, encoder: LiveVersion, older: int) -> "RowViews":
        """To be filled in, with room for so many older items."""
        m = len(event)
        wide = (m, WINDOW)
        recent = RecentWindows(
            item=np.empty(wide, np.int64),
            time=np.empty(wide, np.int64),
            type=np.empty(wide, np.int64),
            negative=np.empty(wide, np.bool_),
            length=np.empty(m, np.int64),
            older=np.empty((m, older), np.int32),
            last_time=np.empty(m, np.int64),
        )
        hidden = encoder.recommender.config.hidden
        return cls(event, torch.empty(m, hidden, device=encoder.device), recent)

    def __len__(self) -> int:
        return len(self.event)

    def part(self, rows: slice, older: int | None = None) -> "RowViews":
        """Some of the rows, the same memory; and so many of the older items."""
        recent = RecentWindows(*(column[rows] for column in self.recent))  # type: ignore[arg-type]
        return RowViews(self.event[rows], self.output[rows], recent._replace(older=recent.older[:, :older]))


def concatenate_views(views: Sequence[RowViews]) -> RowViews:
    """One after another."""
    columns = {name: [getattr(view.recent, name) for view in views] for name in RecentWindows._fields}
    width = max(older.shape[1] for older in columns["older"])
    columns["older"] = [
        np.pad(older, ((0, 0), (0, width - older.shape[1])), constant_values=-1) for older in columns["older"]
    ]
    return RowViews(
        np.concatenate([view.event for view in views]),
        torch.cat([view.output for view in views]),
        RecentWindows(**{name: np.concatenate(parts) for name, parts in columns.items()}),
    )


def views_now(slab: Slab, encoder: LiveVersion, slots: Slots, output: torch.Tensor) -> RowViews:
    """Rows as they are; `event` is their number."""
    older = min(int(slab.older_count[slots].max(initial=0)), encoder.recommender.config.older)
    number = np.arange(len(slots))
    view = RowViews.empty(number, encoder, older)
    length = slab.length[slots].astype(np.int64)
    window_loops.copy_out(slab.windows(), encoder.tables, slots, length, number, view.recent)
    view.output.copy_(output)
    return view


@dataclass
class MoveReport:
    """What `move_rows` did with n events."""

    previous: NDArray[np.int64]
    """[n, lags] items of the events before in the row's order, latest first, -1 = none"""
    kept: NDArray[np.bool_]
    """[n] False for re-sent events, which changed nothing"""
    recorded: RowViews
    """rows just after the events that this was wanted of, then rows just before others, each in order"""
    after: int
    """how many of them are rows just after"""
    users: Slots
    """[u] slots of the rows that changed, each once"""
    repeats: int = 0
    late: int = 0
    too_late: int = 0


class RowRecorder:
    """Copies rows as they are at the moments that were asked for, each to its place in one view."""

    def __init__(self, windows: Windows, encoder: LiveVersion, before: Ints, after: Ints, room: int) -> None:
        """`before` and `after`: the events, increasing; `room`: older items a row can come to have."""
        self._windows, self._encoder = windows, encoder
        self._view = RowViews.empty(np.concatenate((after, before)), encoder, room)
        self._most = 0

    def record(self, slot: Slots, length: Ints, row: Ints, output: torch.Tensor) -> None:
        """Rows of slots, with so many entries, to places of the view; those below 0 are passed over."""
        terms, recent = self._encoder.tables, self._view.recent
        most = window_loops.copy_out(self._windows, terms, slot, length, row, recent)
        self._most = max(self._most, most)
        chosen = row >= 0
        if chosen.any():
            to = to_device(row[chosen], output.device)
            self._view.output[to] = output[to_device(np.flatnonzero(chosen), output.device)]

    def recorded(self) -> RowViews:
        """All of it."""
        return self._view.part(slice(None), self._most)


def _rows(wanted: NDArray[np.bool_], first: int) -> tuple[Ints, Ints]:
    """The events wanted, and for each event its place among them from `first` on, -1 = not wanted."""
    return np.flatnonzero(wanted), np.where(wanted, first - 1 + np.cumsum(wanted), -1)


class _RowMove:
    """One call of `move_rows`: the parts share the slab, the columns and the report."""

    def __init__(
        self,
        slab: Slab,
        encoder: LiveVersion,
        events: EventTable,
        want_before: NDArray[np.bool_],
        want_after: NDArray[np.bool_],
    ) -> None:
        self.slab, self.encoder = slab, encoder
        self.windows = slab.windows()
        self.events = events._replace(time=events.time.copy())  # too late events get another time
        n = len(events.slot)
        self.order, start, count, users = (np.empty(n, np.int64) for _ in range(4))
        found = window_loops.by_user(events.slot, slab.scratch, self.order, start, count, users)
        self.start, self.count, self.users = start[:found], count[:found], users[:found]
        self.previous = np.full((n, encoder.recommender.config.transition_lags), -1, np.int64)
        self.kept = np.ones(n, np.bool_)
        self.repeats = self.late = self.too_late = 0
        after, self.row_after = _rows(want_after, 0)
        before, self.row_before = _rows(want_before, len(after))
        self.after = len(after)
        self.looks = RowRecorder(self.windows, encoder, before, after, self._room())

    def _room(self) -> int:
        """How many older items a row can have in this call, as far as the model looks at them."""
        slab, known = self.slab, self.encoder.recommender.config.older
        length = slab.length[self.users] + self.count
        most = slab.older_count[self.users] + np.where(length >= WINDOW, length, 0)
        return min(int(most.max(initial=0)), known)

    def run(self) -> MoveReport:
        start, count = self.start, self.count
        odd = np.zeros(len(start), np.bool_)
        if window_loops.irregular(self.windows, self.events, self.order, start, count, odd):
            self._in_waves(start[~odd], count[~odd])
            self._out_of_order(start[odd], start[odd] + count[odd])
        else:
            self._in_waves(start, count)
        slab, events = self.slab, self.events
        window_loops.include(
            events.slot,
            events.offset,
            splitmix64(events.offset),
            self.kept,
            slab.offset,
            slab.applied,
            slab.digest,
        )
        return MoveReport(
            self.previous, self.kept, self.looks.recorded(), self.after, self.users, self.repeats, self.late,
            self.too_late,
        )  # fmt: skip

    def _where(self, slots: Slots) -> torch.Tensor:
        return to_device(slots, self.slab.device)

    def _append(self, event: Ints, place: Ints) -> NDArray[np.float32]:
        """Write events to the ends of their windows; returns the ms since the event before."""
        gap = np.empty(len(event), np.float32)
        window_loops.append(self.windows, self.events, event, place, TIME_SPAN, NO_TIME, gap, self.previous)
        return gap

    def _inputs(self, event: Ints, gap: NDArray[np.float32]) -> Inputs:
        events = self.events
        return self.encoder.inputs(events.item[event], events.type[event], events.negative[event], gap)

    def _in_waves(self, start: Ints, count: Ints) -> None:
        slab, encoder = self.slab, self.encoder
        while len(start):
            users = self.events.slot[self.order[start]]
            length = slab.length[users].astype(np.int64)
            take = np.minimum(count, np.where(length < HALF, HALF, WINDOW) - length)
            waves = pack(start, take)
            event = self.order[waves.event]
            users, length = users[waves.user], length[waves.user]
            place = length[waves.row] + waves.rank
            inputs = self._inputs(event, self._append(event, place))
            where = self._where(users)
            state = slab.hidden[where]
            outputs, after = encoder.run(inputs, waves, state)
            slab.hidden[where] = after
            self._record_waves(event, place, waves, outputs, state)
            self._settle(users, length + waves.length, where, after)
            start, count = start + take, count - take
            start, count = start[count > 0], count[count > 0]

    def _record_waves(
        self, event: Ints, place: Ints, waves: Waves, outputs: torch.Tensor, state: torch.Tensor
    ) -> None:
        """Copy what was asked for, while the windows still hold all that this call read."""
        slot = self.events.slot[event]
        self.looks.record(slot, place + 1, self.row_after[event], outputs)
        row = self.row_before[event]
        if row.max(initial=-1) >= 0:
            index = np.where(waves.previous >= 0, waves.previous, len(outputs) + waves.row)
            known = torch.cat((outputs, self.encoder.recommender.cell.output(state)))
            self.looks.record(slot, place, row, known[self._where(index)])

    def _settle(self, users: Slots, length: Ints, where: torch.Tensor, state: torch.Tensor) -> None:
        """Note new lengths; keep the state at HALF; a full window gives its older half to the anchor
        and to the older items.
        """
        slab = self.slab
        half, full = np.empty(len(users), np.int64), np.empty(len(users), np.int64)
        halves, fulls = window_loops.set_lengths(self.windows, users, length, half, full)
        if halves:
            slab.midpoint_state[where[self._where(half[:halves])]] = state[self._where(half[:halves])]
            slab.midpoint_known[users[half[:halves]]] = True
        if fulls:
            self._drop_halves(users[full[:fulls]])

    def _drop_halves(self, full: Slots) -> None:
        slab = self.slab
        unknown = full[~slab.midpoint_known[full]]
        if len(unknown):
            begin, end = np.zeros(len(unknown), np.int64), np.full(len(unknown), HALF, np.int64)
            at = self._where(unknown)
            slab.midpoint_state[at] = self.encoder.recompute(slab, unknown, begin, end, slab.anchor[at])
        at = self._where(full)
        slab.anchor[at] = slab.midpoint_state[at]
        slab.midpoint_state[at] = slab.hidden[at]
        slab.midpoint_known[full] = True
        window_loops.drop_halves(self.windows, self.encoder.tables, full)

    def _out_of_order(self, begin: Ints, end: Ints) -> None:
        """Events of users that have late or repeated ones among them, each user's from `begin` to `end`."""
        looked_at = (self.row_before >= 0) | (self.row_after >= 0)
        while len(begin):
            prefix = np.empty(len(begin), np.int64)
            window_loops.regular_prefix(
                self.windows, self.events, self.order, begin, end, MOST_IN_ORDER, prefix
            )
            looked = looked_at[self.order[begin]]
            in_waves = (prefix >= HALF) | (looked & (prefix > 0))
            alone, together = looked & ~in_waves, ~looked & ~in_waves
            if in_waves.any():
                self._in_waves(begin[in_waves], prefix[in_waves])
            if alone.any():
                self._insert_and_look(begin[alone])
            taken = np.where(in_waves, prefix, 1)
            if together.any():
                taken[together], moved = self._insert(begin[together], end[together], looked_at)
                self._settle_now(moved)
            begin = begin + taken
            begin, end = begin[begin < end], end[begin < end]

    def _insert_and_look(self, begin: Ints) -> None:
        """One event of each of some users, at which rows are looked at; a repeat changes nothing between."""
        event = self.order[begin]
        self._record_rows(event, self.row_before)
        _, moved = self._insert(begin, begin + 1, np.zeros(len(self.kept), np.bool_))
        self._record_rows(event, self.row_after)  # while the windows still hold all of it
        self._settle_now(moved)

    def _insert(self, begin: Ints, end: Ints, stop_at: NDArray[np.bool_]) -> tuple[Ints, Slots]:
        """Put events into their windows until some state is wanted, then bring the states up to date; returns
        how many events of each user that were, and the rows that changed, which are still to be settled.
        """
        slab, encoder = self.slab, self.encoder
        slot = self.events.slot[self.order[begin]]
        before = slab.length[slot].astype(np.int64)
        taken, changed = np.empty((2, len(begin)), np.int64)
        repeats, late, too_late = window_loops.insert(
            self.windows, self.events, self.order, begin, end, stop_at, TIME_SPAN, self.kept, self.previous,
            taken, changed,
        )  # fmt: skip
        self.repeats += repeats
        self.late += late
        self.too_late += too_late
        moved = changed < WINDOW
        slot, before, changed = slot[moved], before[moved], changed[moved]
        length = slab.length[slot].astype(np.int64)
        # Three places to go on from: the state before the first new event, the middle, the anchor.
        appended = changed >= before
        from_middle = ~appended & (changed >= HALF) & slab.midpoint_known[slot]
        anew = ~(appended | from_middle)
        if anew.any():
            encoder.recompute_rows(slab, slot[anew])
        for chosen, states, start in (
            (np.flatnonzero(appended), slab.hidden, before),
            (np.flatnonzero(from_middle), slab.midpoint_state, np.full(len(slot), HALF, np.int64)),
        ):
            if len(chosen):
                where = self._where(slot[chosen])
                slab.hidden[where] = encoder.recompute(
                    slab, slot[chosen], start[chosen], length[chosen], states[where]
                )
        return taken, slot

    def _settle_now(self, slot: Slots) -> None:
        """`_settle` rows as they are in the slab."""
        where = self._where(slot)
        self._settle(slot, self.slab.length[slot].astype(np.int64), where, self.slab.hidden[where])

    def _record_rows(self, event: Ints, row_of: Ints) -> None:
        row = row_of[event]
        if row.max(initial=-1) >= 0:
            slot = self.events.slot[event]
            output = self.encoder.recommender.cell.output(self.slab.hidden[self._where(slot)])
            self.looks.record(slot, self.slab.length[slot].astype(np.int64), row, output)


def move_rows(
    slab: Slab,
    encoder: LiveVersion,
    events: EventTable,
    want_before: NDArray[np.bool_],
    want_after: NDArray[np.bool_],
) -> MoveReport:
    """Apply n events that no row includes yet; rows must be of the encoder's epoch.

    `want_before` and `want_after` (bool[n]) choose the events at which the row is looked at just before and
    just after.
    """
    with torch.inference_mode():
        return _RowMove(slab, encoder, events, want_before, want_after).run()


def warm_up_row_moves(encoder: LiveVersion) -> None:
    """Move a row that is of nobody past a full window, so that all of it is compiled."""
    slab, n = Slab(encoder.state_size, encoder.device, capacity=1), WINDOW + 1
    slot = slab.add([""], np.zeros(1, np.int32), encoder.epoch)
    events = EventTable(
        slot=np.repeat(slot, n),
        item=np.zeros(n, np.int32),
        type=np.zeros(n, np.uint16),
        value=np.zeros(n, np.uint16),
        time=np.zeros(n, np.int64),
        event_id=np.zeros(n, np.uint64),
        offset=np.arange(n),
        negative=np.zeros(n, np.bool_),
    )
    every = np.ones(n, np.bool_)
    move_rows(slab, encoder, events, every, every)
