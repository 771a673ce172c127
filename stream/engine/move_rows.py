"""Moves rows forward: each record changes its user's row exactly once, in the order (timestamp, arrival).

Two ways to the same result. Users whose events come in order and are no repeats move in packed waves, up to
HALF events at a time, so that the states that may become anchors are met at the end of a call. Of users with
a late or a repeated event, what is in order moves so, too; the rest is put into the window, up to HALF events
at a time, and encoded anew after that, or one event at a time where the row is looked at in between. So one
such user, a bot that sends thousands of events, costs the others little. An exception leaves the slab half
written: the caller must end the process, and the log brings everything back.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from eddy.models.kernels.compiled import Ints
from eddy.models.tensors import Inputs, to_device
from eddy.stream.engine.batch_report import BatchReport
from eddy.stream.engine.live_version import LiveVersion
from eddy.stream.engine.row_views import RowRecorder, RowViews
from eddy.stream.kernels import window_loops
from eddy.stream.kernels.waves import Waves, pack
from eddy.stream.kernels.window_loops import EventTable
from eddy.stream.state.rows import NO_TIME, TIME_SPAN, WINDOW, splitmix64
from eddy.stream.state.slab import HALF, Slab, Slots

MOST_IN_ORDER = 512
"""Events of one irregular user that go in waves at once: to look for repeated ids takes the square of it."""


class _RowMove:
    """One call of `move_rows`: the parts share the slab, the columns and the report."""

    def __init__(
        self,
        slab: Slab,
        encoder: LiveVersion,
        events: EventTable,
        want_before: NDArray[np.bool_],
        want_after: NDArray[np.bool_],
        report: BatchReport,
    ) -> None:
        self.slab, self.encoder, self.report = slab, encoder, report
        self.windows = slab.windows()
        self.events = events._replace(time=events.time.copy())  # too late events get another time
        n = len(events.slot)
        self.order, start, count, users = (np.empty(n, np.int64) for _ in range(4))
        found = window_loops.by_user(events.slot, slab.scratch, self.order, start, count, users)
        self.start, self.count, self.users = start[:found], count[:found], users[:found]
        self.previous = np.full((n, encoder.recommender.config.transition_lags), -1, np.int64)
        self.kept = np.ones(n, np.bool_)
        self.recorder = RowRecorder(slab, encoder, want_before, want_after, self._most_older())

    def _most_older(self) -> int:
        """How many older items a row can have in this call, as far as the model looks at them."""
        slab, known = self.slab, self.encoder.recommender.config.older
        length = slab.length[self.users] + self.count
        most = slab.older_count[self.users] + np.where(length >= WINDOW, length, 0)
        return min(int(most.max(initial=0)), known)

    def run(self) -> tuple[NDArray[np.bool_], Ints, RowViews]:
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
        self.report.applied, self.report.dirty = int(self.kept.sum()), self.users
        return self.kept, self.previous, self.recorder.recorded()

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
        self.recorder.record(slot, place + 1, self.recorder.place_after[event], outputs)
        row = self.recorder.place_before[event]
        if row.max(initial=-1) >= 0:
            index = np.where(waves.previous >= 0, waves.previous, len(outputs) + waves.row)
            known = torch.cat((outputs, self.encoder.recommender.cell.output(state)))
            self.recorder.record(slot, place, row, known[self._where(index)])

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
        looked_at = (self.recorder.place_before >= 0) | (self.recorder.place_after >= 0)
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
        self._record_rows(event, self.recorder.place_before)
        _, moved = self._insert(begin, begin + 1, np.zeros(len(self.kept), np.bool_))
        self._record_rows(event, self.recorder.place_after)  # while the windows still hold all of it
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
        self.report.repeats += repeats
        self.report.late += late
        self.report.too_late += too_late
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
            self.recorder.record(slot, self.slab.length[slot].astype(np.int64), row, output)


def move_rows(
    slab: Slab, live: LiveVersion, events: EventTable, want_before: NDArray[np.bool_],
    want_after: NDArray[np.bool_], report: BatchReport,
) -> tuple[NDArray[np.bool_], Ints, RowViews]:  # fmt: skip
    """Apply n events that no row includes yet; rows must be of the live version's epoch. `want_before` and
    `want_after` (bool[n]) choose the events of which the row is recorded just before and just after.

    Returns `kept` [n], False for re-sent events, which changed nothing; the items of the events before each
    in its row's order, [n, lags], latest first, -1 = none; and the recorded rows, those just after events
    first. Counts and the slots of the rows that changed go into `report`.
    """
    with torch.inference_mode():
        return _RowMove(slab, live, events, want_before, want_after, report).run()


def warm_up_row_moves(encoder: LiveVersion) -> None:
    """Move a row that is of nobody past a full window, so that all of it is compiled."""
    slab, n = Slab(encoder.state_size, encoder.device, capacity=1), WINDOW + 1
    slot = slab.add_users([""], np.zeros(1, np.int32), encoder.epoch)
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
    move_rows(slab, encoder, events, every, every, BatchReport())
