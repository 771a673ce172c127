"""Moves rows forward: each record changes its user's row exactly once, in the order (timestamp, arrival).

Two ways to the same result. Users whose events come in order and are no repeats move in packed waves, up to
HALF events at a time, so that the states that may become anchors are met at the end of a call. Users with a
late or a repeated event move one event at a time, with the window re-ordered and encoded anew where it must
be. An exception leaves the slab half written: the caller must end the process, and the log brings
everything back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from models.order import groups
from stream.encoder import Encoder, gaps
from stream.rows import TIME_SPAN, WINDOW, mix
from stream.slab import HALF, Slab, Slots
from stream.waves import pack

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Columns:
    """n accepted events in arrival order per user; see `stream.events.EventBatch` for the columns."""

    slot: Slots
    item: NDArray[np.int32]
    type: NDArray[np.uint16]
    value: NDArray[np.float16]
    time: NDArray[np.int64]
    event_id: NDArray[np.uint64]
    offset: NDArray[np.int64]

    def take(self, index: Index) -> "Columns":
        return Columns(**{name: column[index] for name, column in vars(self).items()})

    def __len__(self) -> int:
        return len(self.slot)


@dataclass(frozen=True)
class View:
    """What m answers are made from: the cell's output and the recent window, at one moment of each row."""

    event: Index
    """[m] which event of the given columns it stands at"""
    output: torch.Tensor
    """[m, H]"""
    item: NDArray[np.int32]
    """[m, WINDOW] catalogue indices, oldest first, -1 beyond the window"""
    time: NDArray[np.int64]
    """[m, WINDOW] ms"""
    type: NDArray[np.uint16]
    """[m, WINDOW]"""
    value: NDArray[np.float16]
    """[m, WINDOW]"""
    length: Index
    """[m] entries in use"""
    older: NDArray[np.int32]
    """[m, 0 … OLDER] catalogue indices of items from before the window, latest first, -1 = none"""
    last_time: NDArray[np.int64]
    """[m] ms of the last event that the row includes, NO_TIME for an empty row"""


@dataclass
class Report:
    """What `advance` did with n events."""

    previous: NDArray[np.int64]
    """[n, lags] items of the events before in the row's order, latest first, -1 = none"""
    kept: NDArray[np.bool_]
    """[n] False for re-sent events, which changed nothing"""
    repeats: int = 0
    late: int = 0
    too_late: int = 0
    before: list[View] = field(default_factory=list)
    after: list[View] = field(default_factory=list)

    @classmethod
    def of_nothing(cls) -> "Report":
        """Of no events."""
        return cls(np.zeros((0, 0), np.int64), np.zeros(0, np.bool_))


def joined_views(views: Sequence[View]) -> View:
    """One after another."""
    if len(views) == 1:
        return views[0]
    columns = {name: [getattr(view, name) for view in views] for name in vars(views[0])}
    output = torch.cat(columns.pop("output"))
    width = max(older.shape[1] for older in columns["older"])
    columns["older"] = [
        np.pad(older, ((0, 0), (0, width - older.shape[1])), constant_values=-1) for older in columns["older"]
    ]
    return View(output=output, **{name: np.concatenate(parts) for name, parts in columns.items()})


def view_rows(slab: Slab, slots: Slots, length: Index, output: torch.Tensor, event: Index) -> View:
    """A copy of the first `length` window entries of each row, and of its older items."""
    filled = np.arange(WINDOW) < length[:, None]
    last = np.where(length > 0, slab.time[slots, np.maximum(length - 1, 0)], slab.anchor_time[slots])
    item = np.where(filled, slab.item[slots], -1)
    return View(
        event, output, item, slab.time[slots], slab.type[slots], slab.value[slots], length,
        slab.older_items(slots) - 1, last,
    )  # fmt: skip


class _Advance:
    """One call of `advance`: the parts share the slab, the columns and the report."""

    def __init__(
        self,
        slab: Slab,
        encoder: Encoder,
        columns: Columns,
        want_before: NDArray[np.bool_],
        want_after: NDArray[np.bool_],
    ) -> None:
        self.slab, self.encoder, self.columns = slab, encoder, columns
        self.want_before, self.want_after = want_before, want_after
        n, lags = len(columns), encoder.recommender.config.transition_lags
        self.report = Report(previous=np.full((n, lags), -1, np.int64), kept=np.ones(n, np.bool_))

    def run(self) -> Report:
        order, start, count = groups(self.columns.slot)
        if not len(order):
            return self.report
        one_by_one = self._irregular(order, start, count)
        self._in_waves(order, start[~one_by_one], count[~one_by_one])
        if one_by_one.any():
            self._one_by_one(order, start[one_by_one], count[one_by_one])
        self._include(order, start)
        return self.report

    def _irregular(self, order: Index, start: Index, count: Index) -> NDArray[np.bool_]:
        """Which users have a late event, or one whose id was perhaps met before: bool[users]."""
        slab, columns = self.slab, self.columns
        user = np.repeat(np.arange(len(start)), count)
        time, slot = columns.time[order], columns.slot[order]
        base = slab.last_time(slot[start])
        latest = np.maximum.accumulate((user << 42) + np.maximum(time, base[user]) + 1) - (user << 42) - 1
        before = np.concatenate((base[:1], latest[:-1]))
        before[start] = base
        suspect = time < before
        event_id = columns.event_id[order]
        named = np.flatnonzero(event_id)
        if len(named):
            held = (slab.event_id[slot[named]] == event_id[named, None]).any(axis=1)
            pair = np.stack((slot[named].astype(np.uint64), event_id[named]), axis=1)
            _, first, inverse = np.unique(pair, axis=0, return_index=True, return_inverse=True)
            held |= first[inverse.ravel()] != np.arange(len(named))
            suspect[named[held]] = True
        return np.asarray(np.logical_or.reduceat(suspect, start), np.bool_)

    def _where(self, slots: Slots) -> torch.Tensor:
        return torch.from_numpy(slots).to(self.slab.device)

    def _write(self, event: Index, slot: Slots, place: Index, time: NDArray[np.int64]) -> None:
        slab, columns = self.slab, self.columns
        slab.item[slot, place] = columns.item[event]
        slab.time[slot, place] = time
        slab.type[slot, place] = columns.type[event]
        slab.value[slot, place] = columns.value[event]
        if columns.event_id[event].any() or slab.event_id[slot, place].any():
            slab.event_id[slot, place] = columns.event_id[event]

    def _look_back(self, event: Index, slot: Slots, place: Index) -> NDArray[np.int64]:
        """Note the items before each event (the statistics count transitions); returns the time just
        before, ms.
        """
        slab = self.slab
        behind = place[:, None] - 1 - np.arange(self.report.previous.shape[1])
        item = slab.item[slot[:, None], np.maximum(behind, 0)]
        self.report.previous[event] = np.where(behind >= 0, item, -1)
        return np.where(place > 0, slab.time[slot, np.maximum(place - 1, 0)], slab.anchor_time[slot])

    def _in_waves(self, order: Index, start: Index, count: Index) -> None:
        slab, columns, encoder = self.slab, self.columns, self.encoder
        while len(start):
            users = columns.slot[order[start]]
            length = slab.length[users].astype(np.int64)
            take = np.minimum(count, np.where(length < HALF, HALF, WINDOW) - length)
            waves = pack(start, take)
            event = order[waves.event]
            slot = columns.slot[event]
            place = length[waves.user][waves.row] + waves.rank
            first_time = np.where(length > 0, slab.time[users, 0], columns.time[order[start]])[waves.user][
                waves.row
            ]
            time = np.minimum(columns.time[event], first_time + TIME_SPAN)
            self._write(event, slot, place, time)
            time_before = self._look_back(event, slot, place)
            inputs = encoder.inputs(
                columns.item[event], columns.type[event], columns.value[event], gaps(time, time_before)
            )
            users = users[waves.user]
            where = self._where(users)
            state = slab.hidden[where]
            outputs, after = encoder.run(inputs, waves, state)
            slab.hidden[where] = after
            self._look(event, slot, place, waves.previous, waves.row, outputs, state)
            self._settle(users, length[waves.user] + waves.count, where, after)
            start, count = start + take, count - take
            start, count = start[count > 0], count[count > 0]

    def _look(
        self,
        event: Index,
        slot: Slots,
        place: Index,
        previous: Index,
        row: Index,
        outputs: torch.Tensor,
        state: torch.Tensor,
    ) -> None:
        """Copy what was asked for, while the windows still hold all that this call read."""
        chosen = np.flatnonzero(self.want_before[event])
        if len(chosen):
            index = torch.from_numpy(
                np.where(previous[chosen] >= 0, previous[chosen], len(outputs) + row[chosen])
            )
            known = torch.cat((outputs, self.encoder.recommender.cell.output(state)))
            output = known[index.to(known.device)]
            self.report.before.append(
                view_rows(self.slab, slot[chosen], place[chosen], output, event[chosen])
            )
        chosen = np.flatnonzero(self.want_after[event])
        if len(chosen):
            output = outputs[torch.from_numpy(chosen).to(outputs.device)]
            self.report.after.append(
                view_rows(self.slab, slot[chosen], place[chosen] + 1, output, event[chosen])
            )

    def _settle(self, users: Slots, length: Index, where: torch.Tensor, state: torch.Tensor) -> None:
        """Note new lengths; keep the state at HALF; a full window gives its older half to the anchor
        and to the older items.
        """
        slab = self.slab
        slab.length[users] = length
        half = np.flatnonzero(length == HALF)
        if len(half):
            at = torch.from_numpy(half).to(slab.device)
            slab.middle[where[at]] = state[at]
            slab.middle_known[users[half]] = True
        full = users[length >= WINDOW]
        if not len(full):
            return
        unknown = full[~slab.middle_known[full]]
        if len(unknown):
            begin, end = np.zeros(len(unknown), np.int64), np.full(len(unknown), HALF, np.int64)
            at = self._where(unknown)
            slab.middle[at] = self.encoder.encode(slab, unknown, begin, end, slab.anchor[at])
        at = self._where(full)
        slab.anchor[at] = slab.middle[at]
        slab.middle[at] = slab.hidden[at]
        slab.middle_known[full] = True
        slab.anchor_time[full] = slab.time[full, HALF - 1]
        leaving = slab.item[full, :HALF]
        negative = self.encoder.negative(slab.type[full, :HALF], slab.value[full, :HALF])
        slab.remember(full, np.where(negative, -1, leaving))
        for column in (slab.item, slab.time, slab.type, slab.value):
            column[full, :HALF] = column[full, HALF:]
        if slab.event_id[full].any():
            slab.event_id[full, :HALF] = slab.event_id[full, HALF:]
            slab.event_id[full, HALF:] = 0
        slab.length[full] = HALF

    def _one_by_one(self, order: Index, start: Index, count: Index) -> None:
        for k in range(int(count.max())):
            event = order[start[count > k] + k]
            self._apply_each(event)

    def _apply_each(self, event: Index) -> None:
        """One event of each of some users, in any place of the window that its time asks for."""
        slab, columns, encoder, report = self.slab, self.columns, self.encoder, self.report
        slot = columns.slot[event]
        event_id = columns.event_id[event]
        entries = np.arange(WINDOW) < slab.length[slot][:, None]
        repeat = (event_id > 0) & ((slab.event_id[slot] == event_id[:, None]) & entries).any(axis=1)
        report.repeats += int(repeat.sum())
        report.kept[event[repeat]] = False
        if repeat.any():
            self._look_before(event[repeat])  # a repeat is still ranked and answered: nothing changes between
            self._look_after(event[repeat])
        event, slot, entries = event[~repeat], slot[~repeat], entries[~repeat]
        if not len(event):
            return
        self._look_before(event)
        time, last = columns.time[event], slab.last_time(slot)
        length = slab.length[slot].astype(np.int64)
        behind = (length > 0) & (time < last)
        too_late = behind & (time < slab.anchor_time[slot])
        report.late += int((behind & ~too_late).sum())
        report.too_late += int(too_late.sum())
        time = np.where(too_late, last, time)  # applied on arrival: for the row it happened now
        inside = behind & ~too_late
        place = np.where(inside, ((slab.time[slot] <= time[:, None]) & entries).sum(axis=1), length)
        self._make_room(slot[inside], place[inside])
        first_time = np.where((length > 0) & (place > 0), slab.time[slot, 0], time)
        self._write(event, slot, place, np.minimum(time, first_time + TIME_SPAN))
        slab.time[slot] = np.minimum(slab.time[slot], first_time[:, None] + TIME_SPAN)
        time_before = self._look_back(event, slot, place)
        slab.length[slot] = length + 1
        append = np.flatnonzero(~inside)
        if len(append):
            where = self._where(slot[append])
            waves = pack(np.arange(len(append)), np.ones(len(append), np.int64))
            at = event[append]
            inputs = encoder.inputs(
                columns.item[at],
                columns.type[at],
                columns.value[at],
                gaps(slab.time[slot, place], time_before)[append],
            )
            _, slab.hidden[where] = encoder.run(inputs, waves, slab.hidden[where])
        young = inside & ((place < HALF) | ~slab.middle_known[slot])
        if young.any():
            encoder.re_encode(slab, slot[young])
        old = np.flatnonzero(inside & ~young)
        if len(old):
            where = self._where(slot[old])
            begin = np.full(len(old), HALF, np.int64)
            slab.hidden[where] = encoder.encode(slab, slot[old], begin, length[old] + 1, slab.middle[where])
        self._look_after(event)
        where = self._where(slot)
        self._settle(slot, length + 1, where, slab.hidden[where])

    def _make_room(self, slot: Slots, place: Index) -> None:
        """Move the entries from `place` on one to the right."""
        slab = self.slab
        target = np.arange(WINDOW)
        source = np.where(target > place[:, None], target - 1, target)
        for column in (slab.item, slab.time, slab.type, slab.value, slab.event_id):
            column[slot] = np.take_along_axis(column[slot], source, axis=1)

    def _look_before(self, event: Index) -> None:
        self._look_at(event[self.want_before[event]], self.report.before)

    def _look_after(self, event: Index) -> None:
        self._look_at(event[self.want_after[event]], self.report.after)

    def _look_at(self, event: Index, into: list[View]) -> None:
        if len(event):
            slot = self.columns.slot[event]
            output = self.encoder.recommender.cell.output(self.slab.hidden[self._where(slot)])
            into.append(view_rows(self.slab, slot, self.slab.length[slot].astype(np.int64), output, event))

    def _include(self, order: Index, start: Index) -> None:
        slab, columns, kept = self.slab, self.columns, self.report.kept[order]
        users = columns.slot[order[start]]
        slab.offset[users] = np.maximum.reduceat(columns.offset[order], start)
        slab.applied[users] += np.add.reduceat(kept.astype(np.uint32), start)
        digest = np.where(kept, mix(columns.offset[order]), np.uint64(0))
        slab.digest[users] += np.add.reduceat(digest, start)


def advance(
    slab: Slab,
    encoder: Encoder,
    columns: Columns,
    want_before: NDArray[np.bool_],
    want_after: NDArray[np.bool_],
) -> Report:
    """Apply n events that no row includes yet; rows must be of the encoder's epoch.

    `want_before` and `want_after` (bool[n]) choose the events at which the row is looked at just before and
    just after.
    """
    with torch.inference_mode():
        return _Advance(slab, encoder, columns, want_before, want_after).run()
