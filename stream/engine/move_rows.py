"""Where states move: each record changes its user's row exactly once, in the order (timestamp, arrival).

Two ways lead to the same result. Users whose events come in order and are no repeats move in packed waves, up
to HALF events at a time, so that the states that may become anchors are met at the end of a call. Of users
with a late or a repeated event, what is in order moves in waves, too; the rest is put into the window, up to
HALF events at a time, and the state is encoded anew after that, or after each event where the row is recorded
in between. So one such user, a bot that sends thousands of events, costs the others little. An exception
leaves the slab half written: the caller must end the process, and the log brings everything back.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from eddy.models.kernels.compiled import Ints
from eddy.models.tensors import Inputs, to_device
from eddy.stream.engine.batch_report import BatchReport, Changed
from eddy.stream.engine.live_version import LiveVersion
from eddy.stream.engine.row_views import RowRecorder, RowViews
from eddy.stream.kernels import window_loops
from eddy.stream.kernels.waves import Waves, pack
from eddy.stream.kernels.window_loops import EventTable
from eddy.stream.state.rows import NO_TIME, TIME_SPAN, WINDOW, splitmix64
from eddy.stream.state.slab import HALF, Slab, Slots

MOST_IN_ORDER = 512
"""At most so many events of an irregular user are looked at together for repeated ids: the look takes time in
proportion to the square of their number.
"""


class _RowMove:
    """One call of `move_rows`. `order` brings the events of each user together, as they arrived: user
    u has `count[u]` of them from `order[start[u]]` on.
    """

    def __init__(
        self,
        slab: Slab,
        live: LiveVersion,
        events: EventTable,
        want_before: NDArray[np.bool_],
        want_after: NDArray[np.bool_],
        report: BatchReport,
    ) -> None:
        self.slab, self.live, self.report = slab, live, report
        self.windows = slab.windows()
        self.events = events._replace(time=events.time.copy())  # events that are too late get another time
        n = len(events.slot)
        self.order, start, count, users = (np.empty(n, np.int64) for _ in range(4))
        u = window_loops.by_user(events.slot, slab.scratch, self.order, start, count, users)
        self.start, self.count, self.users = start[:u], count[:u], users[:u]
        self.previous = np.full((n, live.recommender.config.transition_lags), -1, np.int64)
        self.kept = np.ones(n, np.bool_)
        self.recorder = RowRecorder(slab, live, want_before, want_after, self._most_older())

    def _most_older(self) -> int:
        """How many older items a row can have in this call, as far as the model looks at them."""
        slab = self.slab
        length = slab.length[self.users] + self.count
        older = slab.older_count[self.users] + np.where(length >= WINDOW, length, 0)
        return min(int(older.max(initial=0)), self.live.recommender.config.older)

    def run(self) -> tuple[NDArray[np.bool_], Ints, RowViews]:
        """See `move_rows`."""
        # 1. Move windows and states.
        start, count = self.start, self.count
        irregular = np.zeros(len(start), np.bool_)
        if window_loops.irregular(self.windows, self.events, self.order, start, count, irregular):
            self._move_in_waves(start[~irregular], count[~irregular])
            self._move_out_of_order(start[irregular], start[irregular] + count[irregular])
        else:
            self._move_in_waves(start, count)
        # 2. Note the offsets that the rows include now.
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
        # 3. Tell of it.
        self.report.applied += int(self.kept.sum())
        self.report.changed.append(Changed(slab, self.users))
        return self.kept, self.previous, self.recorder.recorded()

    def _on_device(self, index: Ints) -> torch.Tensor:
        return to_device(index, self.slab.device)

    def _append(self, event: Ints, place: Ints) -> NDArray[np.float32]:
        """Write events to the ends of their windows; returns the ms since the event before."""
        gap = np.empty(len(event), np.float32)
        window_loops.append(self.windows, self.events, event, place, TIME_SPAN, NO_TIME, gap, self.previous)
        return gap

    def _inputs(self, event: Ints, gap: NDArray[np.float32]) -> Inputs:
        events = self.events
        return self.live.inputs(events.item[event], events.type[event], events.negative[event], gap)

    def _move_in_waves(self, start: Ints, count: Ints) -> None:
        """Move users by `count` events each, from `start` on, which are in order and no repeats."""
        slab = self.slab
        while len(start):
            # 1. As many events of each user as fit into its window's half or into the window.
            slot = self.events.slot[self.order[start]]
            length = slab.length[slot].astype(np.int64)
            taken = np.minimum(count, np.where(length < HALF, HALF, WINDOW) - length)
            waves = pack(start, taken)
            event = self.order[waves.event]  # n, in packed order
            slot, length = slot[waves.user], length[waves.user]  # u, those with most events first
            # 2. The windows, and from them the cell's inputs.
            place = length[waves.lane] + waves.rank
            inputs = self._inputs(event, self._append(event, place))
            # 3. The states.
            row = self._on_device(slot)
            before = slab.hidden[row]  # [u, S]
            outputs, after = self.live.move_states(inputs, waves, before)  # [n, H], [u, S]
            slab.hidden[row] = after
            # 4. Record, then let full windows give their older half away.
            self._record_waves(event, place, waves, outputs, before)
            self._settle(slot, length + waves.length, row, after)
            start, count = start + taken, count - taken
            start, count = start[count > 0], count[count > 0]

    def _record_waves(
        self, event: Ints, place: Ints, waves: Waves, outputs: torch.Tensor, state: torch.Tensor
    ) -> None:
        """Record the rows that are wanted, while the windows still hold all that the waves read. `state`: the
        users' states before the waves.
        """
        slot = self.events.slot[event]
        self.recorder.record(slot, place + 1, self.recorder.place_after[event], outputs)
        before = self.recorder.place_before[event]
        if before.max(initial=-1) >= 0:
            # The output just before an event is that of the user's event before it or of its first state.
            index = np.where(waves.previous >= 0, waves.previous, len(outputs) + waves.lane)
            all_outputs = torch.cat((outputs, self.live.recommender.cell.output(state)))  # [n + u, H]
            self.recorder.record(slot, place, before, all_outputs[self._on_device(index)])

    def _settle(self, slot: Slots, length: Ints, row: torch.Tensor, state: torch.Tensor) -> None:
        """Set the new lengths of rows, whose states are `state`; keep the state at HALF; a full window gives
        its older half to the anchor and to the older items. `row`: the slots on the device.
        """
        slab = self.slab
        half, full = np.empty(len(slot), np.int64), np.empty(len(slot), np.int64)
        halves, fulls = window_loops.set_lengths(self.windows, slot, length, half, full)
        if halves:
            at_half = self._on_device(half[:halves])
            slab.midpoint_state[row[at_half]] = state[at_half]
            slab.midpoint_known[slot[half[:halves]]] = True
        if fulls:
            self._drop_halves(slot[full[:fulls]])

    def _drop_halves(self, full: Slots) -> None:
        """The state at HALF becomes the anchor of these full windows, the state now that at HALF."""
        slab = self.slab
        unknown = full[~slab.midpoint_known[full]]
        if len(unknown):
            begin, end = np.zeros(len(unknown), np.int64), np.full(len(unknown), HALF, np.int64)
            row = self._on_device(unknown)
            slab.midpoint_state[row] = self.live.recompute(slab, unknown, begin, end, slab.anchor[row])
        row = self._on_device(full)
        slab.anchor[row] = slab.midpoint_state[row]
        slab.midpoint_state[row] = slab.hidden[row]
        slab.midpoint_known[full] = True
        window_loops.drop_halves(self.windows, self.live.tables, full)

    def _move_out_of_order(self, begin: Ints, end: Ints) -> None:
        """Move users that have late or repeated events, each by those from `begin` to `end`."""
        recorded = (self.recorder.place_before >= 0) | (self.recorder.place_after >= 0)
        while len(begin):
            prefix = np.empty(len(begin), np.int64)
            window_loops.regular_prefix(
                self.windows, self.events, self.order, begin, end, MOST_IN_ORDER, prefix
            )
            # 1. Long stretches in order go in waves, and short ones as well where a row is to be recorded.
            first_recorded = recorded[self.order[begin]]
            in_waves = (prefix >= HALF) | (first_recorded & (prefix > 0))
            if in_waves.any():
                self._move_in_waves(begin[in_waves], prefix[in_waves])
            taken = np.where(in_waves, prefix, 1)
            # 2. An event at which the row is recorded is inserted alone.
            alone = first_recorded & ~in_waves
            if alone.any():
                self._insert_and_record(begin[alone])
            # 3. Other events are inserted together, up to the next at which the row is recorded.
            together = ~first_recorded & ~in_waves
            if together.any():
                taken[together], moved = self._insert(begin[together], end[together], recorded)
                self._settle_now(moved)
            begin = begin + taken
            begin, end = begin[begin < end], end[begin < end]

    def _insert_and_record(self, begin: Ints) -> None:
        """Insert one event of each user, and record rows just before and just after it; a repeat changes
        nothing in between.
        """
        event = self.order[begin]
        self._record_rows(event, self.recorder.place_before)
        _, moved = self._insert(begin, begin + 1, np.zeros(len(self.kept), np.bool_))
        self._record_rows(event, self.recorder.place_after)  # while the windows still hold all of it
        self._settle_now(moved)

    def _insert(self, begin: Ints, end: Ints, stop_at: NDArray[np.bool_]) -> tuple[Ints, Slots]:
        """Put events into their windows until a state is wanted, then bring the states up to date. Returns
        how many events of each user were gone through, and the slots of the rows that changed, which are
        still to be settled.
        """
        # 1. The windows.
        slab, live = self.slab, self.live
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
        # 2. States go on from the nearest state that still holds: the one before the first new event, the one
        # at HALF, or the anchor.
        moved = changed < WINDOW
        slot, before, changed = slot[moved], before[moved], changed[moved]
        length = slab.length[slot].astype(np.int64)
        appended = changed >= before
        from_half = ~appended & (changed >= HALF) & slab.midpoint_known[slot]
        from_anchor = ~(appended | from_half)
        if from_anchor.any():
            live.recompute_rows(slab, slot[from_anchor])
        for chosen, states, start in (
            (np.flatnonzero(appended), slab.hidden, before),
            (np.flatnonzero(from_half), slab.midpoint_state, np.full(len(slot), HALF, np.int64)),
        ):
            if len(chosen):
                row = self._on_device(slot[chosen])
                slab.hidden[row] = live.recompute(
                    slab, slot[chosen], start[chosen], length[chosen], states[row]
                )
        return taken, slot

    def _settle_now(self, slot: Slots) -> None:
        """`_settle` rows as they are in the slab."""
        row = self._on_device(slot)
        self._settle(slot, self.slab.length[slot].astype(np.int64), row, self.slab.hidden[row])

    def _record_rows(self, event: Ints, place_of: Ints) -> None:
        """Record the rows of events as they are in the slab, at `place_of` each event."""
        place = place_of[event]
        if place.max(initial=-1) >= 0:
            slot = self.events.slot[event]
            output = self.live.recommender.cell.output(self.slab.hidden[self._on_device(slot)])
            self.recorder.record(slot, self.slab.length[slot].astype(np.int64), place, output)


# Station 5: the state moves, once per record; durable with the next checkpoint.
def move_rows(
    slab: Slab, live: LiveVersion, events: EventTable, want_before: NDArray[np.bool_],
    want_after: NDArray[np.bool_], report: BatchReport,
) -> tuple[NDArray[np.bool_], Ints, RowViews]:  # fmt: skip
    """Apply n events that no row includes yet; rows must be of the live version's epoch. `want_before` and
    `want_after` (bool[n]) choose the events of which the row is recorded just before and just after.

    Returns `kept` [n], False for re-sent events, which changed nothing; the items of the events before each
    in its row's order, [n, lags], latest first, -1 = none; and the recorded rows, those just after events
    first. Counts and the rows that changed are added to `report`.
    """
    with torch.inference_mode():
        return _RowMove(slab, live, events, want_before, want_after, report).run()


def warm_up_row_moves(live: LiveVersion) -> None:
    """Move a row of a slab of its own past a full window, then by a late and a repeated event, so that
    everything is compiled.
    """
    slab, n = Slab(live.state_size, live.device, capacity=1), WINDOW + 1
    slot = slab.add_users([""], np.zeros(1, np.int32), live.epoch)
    late, repeated = 2 * n - 3, 2 * n
    _warm_up_by(live, slab, slot, 2 * np.arange(n), np.zeros(n, np.uint64))
    _warm_up_by(live, slab, slot, np.array([late, repeated, repeated]), np.array([0, 1, 1], np.uint64))


def _warm_up_by(
    live: LiveVersion, slab: Slab, slot: Slots, time: NDArray[np.int64], event_id: NDArray[np.uint64]
) -> None:
    n = len(time)
    events = EventTable(
        slot=np.repeat(slot, n),
        item=np.zeros(n, np.int32),
        type=np.zeros(n, np.uint16),
        value=np.zeros(n, np.uint16),
        time=time,
        event_id=event_id,
        offset=np.arange(n),
        negative=np.zeros(n, np.bool_),
    )
    every = np.ones(n, np.bool_)
    move_rows(slab, live, events, every, every, BatchReport())
