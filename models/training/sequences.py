"""Event logs as sequences of users, and the batches that truncated backpropagation through time walks along.

A batch holds one window of backpropagation (at most T = bptt_steps consecutive events; not the recent window
of the stream) of each of many users. A user stays in the batches until their last event, and the state is
carried on from window to window. Others join as there is room, so that every optimiser step sees about the
same number of events.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eddy.models.hashing import item_hashes, type_hashes
from eddy.models.logs.column_store import ColumnStore, slices
from eddy.models.logs.events import Events
from eddy.models.logs.order import Rows, order_by_number, row_type
from eddy.models.network.recommender import Recommender
from eddy.models.rules import EventRules
from eddy.models.tensors import Inputs
from eddy.models.vocabulary import Vocabulary


@dataclass(frozen=True)
class Sequences:
    """m events that move states, user after user, each user's in order; and p predictions of targets, in the
    same order. The arrays are as narrow as what they hold allows, and may lie in files.
    """

    start: NDArray[np.int64]  # [U + 1] first event of each user
    inputs: Inputs  # [m] items and types are int32: see `inputs_at`
    first: NDArray[np.int64]  # [U + 1] first prediction of each user
    following: Rows  # [p] the event before which the target is predicted; start[u + 1] = after the last one
    target: Tensor  # int32[p] vocabulary index, -1 = outside the vocabulary
    idle_ms: Tensor  # int64[p] from the event before to the target, -1 = no event yet
    row: Rows  # [p] the target's row in the event log, increasing for each user
    moved: Rows  # [m] the event's row in the event log
    rows: int  # n, of the event log
    store: ColumnStore
    source: str  # for error messages

    def user_of(self, prediction: NDArray[np.int64]) -> NDArray[np.int64]:
        """The users of predictions."""
        return np.searchsorted(self.first, prediction, "right") - 1

    def state_of(self, prediction: NDArray[np.int64]) -> NDArray[np.int64]:
        """The events after which targets are predicted: int64[q], -1 = none before it."""
        following = self.following[prediction].astype(np.int64)
        return np.where(following > self.start[self.user_of(prediction)], following - 1, -1)

    def inputs_at(self, event: Tensor) -> Inputs:
        """The inputs of events (of any shape), as a recommender reads them."""
        item, type_, negative, gap_ms = (part[event] for part in self.inputs)
        return Inputs(item.long(), type_.long(), negative, gap_ms)

    def predictions_before(self, row: int) -> NDArray[np.int64]:
        """How many predictions each user has of targets before a row of the log: int64[U]. They are the
        user's first ones.
        """
        if row <= 0:
            return np.zeros(len(self.first) - 1, np.int64)
        if row >= self.rows:
            return np.diff(self.first)
        (count,) = np.diff(_counts_before(self.first, len(self.row), lambda part: self.row[None, part] < row))
        return np.asarray(count, np.int64)

    def count(self, wanted: range) -> int:
        """The number of predictions of targets in these rows of the log."""
        until, begin = (self.predictions_before(row).sum() for row in (wanted.stop, wanted.start))
        return int(until - begin)


def sequences(
    events: Events, vocabulary: Vocabulary, rules: EventRules, outside: bool = False,
    targets: NDArray[np.bool_] | None = None,
) -> Sequences:  # fmt: skip
    """Sort a log by user. Targets outside the vocabulary are left out unless `outside`.

    targets: which events are targets, bool[n], where it is not the rules that say so.

    1. Order the events. 2. Count what moves states and what is a target, to know where each slice's go.
    3. Fill the arrays, slice by slice.
    """
    store, flags = events.store, events.flags(rules)
    wanted = flags.target if targets is None else targets
    input_of = vocabulary.input_index(item_hashes(events.items)).astype(np.int32)
    type_of = vocabulary.type_index(type_hashes(events.types)).astype(np.int32)
    is_target = (input_of < len(vocabulary)) | outside  # by item
    # 1. User after user.
    order, of_user = order_by_number(events.user, len(events.users), store)

    def chosen(part: slice) -> tuple[Rows, NDArray[np.bool_], NDArray[np.bool_]]:
        """Rows of the log in this order; which of them move states, and which are targets."""
        rows = order[part]
        return rows, flags.moves[rows], wanted[rows] & is_target[events.item[rows]]

    # 2. How many there are before each user.
    start, first = _counts_before(of_user, len(order), lambda part: np.stack(chosen(part)[1:]))
    moved_count, target_count = int(start[-1]), int(first[-1])
    # 3. The arrays.
    type_ = row_type(len(events))
    item, types = store.empty(moved_count, np.int32), store.empty(moved_count, np.int32)
    negative, gap = store.empty(moved_count, np.bool_), store.empty(moved_count, np.int64)
    moved = store.empty(moved_count, type_)
    following, row = store.empty(target_count, type_), store.empty(target_count, type_)
    target, idle = store.empty(target_count, np.int32), store.empty(target_count, np.int64)
    events_before = targets_before = 0
    last = 0  # time of the last event before the slice that moves a state
    for part in slices(len(order)):
        rows, moves, targets = chosen(part)
        # a. The events that move states.
        moving = rows[moves]
        into = slice(events_before, events_before + len(moving))
        time = events.timestamp[moving]
        moved[into], item[into] = moving, input_of[events.item[moving]]
        types[into], negative[into] = type_of[events.type[moving]], flags.negative[moving]
        gap[into] = np.diff(time, prepend=last)
        # b. The targets: the event before one may lie in the slice before.
        predicted = rows[targets]
        to = slice(targets_before, targets_before + len(predicted))
        next_event = events_before + (np.cumsum(moves) - moves)[targets]
        begin = start[events.user[predicted]]
        with_last = np.concatenate([[last], time])
        before = with_last[next_event - events_before]
        following[to], row[to] = next_event, predicted
        index = input_of[events.item[predicted]]
        target[to] = np.where(index < len(vocabulary), index, -1)
        idle[to] = np.where(next_event > begin, events.timestamp[predicted] - before, -1)
        events_before, targets_before, last = into.stop, to.stop, int(with_last[-1])
    gap[start[:-1][np.diff(start) > 0]] = -1
    inputs = Inputs(*(torch.from_numpy(column) for column in (item, types, negative, gap)))
    return Sequences(
        start=start, inputs=inputs, first=first, following=following, target=torch.from_numpy(target),
        idle_ms=torch.from_numpy(idle), row=row, moved=moved, rows=len(events), store=store,
        source=events.source,
    )  # fmt: skip


def _counts_before(
    begin: NDArray[np.int64], length: int, marks: Callable[[slice], NDArray[np.bool_]]
) -> NDArray[np.int64]:
    """How many rows of each of several kinds come before the rows begin[k], which increase: int64[kinds, k].
    `marks` says by slices of the rows below `length` which rows are of which kind: bool[kinds, rows].
    """
    parts = [np.zeros((len(marks(slice(0, 0))), 0), np.int64)]
    total, done = np.zeros((len(parts[0]), 1), np.int64), 0
    for part in slices(length):
        of_part = marks(part)
        end = int(np.searchsorted(begin, part.stop, "left"))
        before = np.pad(np.cumsum(of_part, axis=1), ((0, 0), (1, 0)))
        parts.append(total + before[:, begin[done:end] - part.start])
        total, done = total + before[:, -1:], end
    parts.append(np.repeat(total, len(begin) - done, axis=1))
    return np.concatenate(parts, axis=1)


@dataclass(frozen=True)
class Batch:
    """Windows of B users, longest first, packed by time (see Cell.packed); B = 0 where a share has none."""

    event: Tensor  # int64[n] index into Sequences.inputs
    batch_sizes: Tensor  # int64[T] on the CPU
    carried: Tensor  # int64[B] row of the previous batch's end state, -1 = zeros
    prediction: Tensor  # int64[q] index into the predictions
    output: Tensor  # int64[q] 1 + row of the packed outputs; 0 = the initial state's output


def batches(
    data: Sequences, wanted: range, users: NDArray[np.int64], steps: int, events: int,
    total: Callable[[NDArray[np.int64]], NDArray[np.int64]] = lambda of_own: of_own,
) -> Iterator[Batch]:  # fmt: skip
    """Walk along the users' events, the users in the given order: about `events` per batch, at most `steps`
    of each user.

    wanted: rows of the log whose targets are predicted; users without any are passed over. total: adds up an
    array over processes, each of which has the events of users of its own, and calls this with the same
    arguments. All agree on the batches, and each walks along its own users' part of each.

    1. Find each user's predictions, and their last event of interest. 2. Let all processes know the lengths
    of all walks. 3. Fill batches: those users who have events left, then new ones while there is room.
    """
    # 1. Events after the last prediction teach nothing.
    low, high = (data.first[:-1] + data.predictions_before(row) for row in (wanted.start, wanted.stop))
    begin, has = data.start[:-1], high > low
    end = begin.copy()
    last = data.following[high[has] - 1]
    end[has] = np.minimum(np.maximum(last, begin[has] + 1), data.start[1:][has])
    # 2. A user is in one process.
    own = end - begin
    length = total(own)
    users = users[length[users] > 0]
    walk = _Walk(data, steps, own[users] > 0, begin[users], low[users], high[users], length[users])
    # 3. `active` are positions in `users`.
    active = np.zeros(0, np.int64)
    joined = 0
    while len(active) or joined < len(users):
        size = np.minimum(walk.left[active], steps).sum()
        new = joined
        while new < len(users) and size < events:
            size += min(walk.left[new], steps)
            new += 1
        active = np.concatenate([active, np.arange(joined, new)])
        joined = new
        yield walk.batch(active)
        active = active[walk.left[active] > 0]


class _Walk:
    """Where the users of a walk are; all arrays are by position in the walk's order of users."""

    def __init__(
        self, data: Sequences, steps: int, own: NDArray[np.bool_], at: NDArray[np.int64],
        low: NDArray[np.int64], high: NDArray[np.int64], left: NDArray[np.int64],
    ) -> None:  # fmt: skip
        """own: which users' events are here. at: their next event. low, high: their wanted predictions that
        are still to come are low … high - 1. left: events until the last of them, also of the others.
        """
        self.data, self.steps, self.own, self.at = data, steps, own, at
        self.low, self.high, self.left = low, high, left
        self._row = np.full(len(at), -1)  # where the previous batch left this user's state

    def batch(self, active: NDArray[np.int64]) -> Batch:
        """The next window of each active user whose events are here."""
        # 1. All move on, in the order of the lengths of their windows; the others only as far as is known.
        length = np.minimum(self.left[active], self.steps)
        order = np.argsort(-length, kind="stable")
        active, length = active[order], length[order]
        self.left[active] -= length
        active, length = active[self.own[active]], length[self.own[active]]
        begin = self.at[active]
        until = begin + length
        self.at[active] = until
        # 2. The events: the k-th of all users that have so many, for each k in turn.
        batch_sizes = np.searchsorted(-length, -np.arange(length.max(initial=0)), side="left")
        step_of = np.repeat(np.arange(len(batch_sizes)), batch_sizes)
        offset = np.cumsum(batch_sizes) - batch_sizes
        lane = np.arange(len(step_of)) - offset[step_of]
        event = begin[lane] + step_of
        # 3. The predictions that follow them, or that come before the user's first event.
        following = self.data.following
        low, high = self.low[active], self.high[active]
        end = np.searchsorted(following, until.astype(following.dtype), "right").clip(low, high)
        self.low[active] = end
        of_lane, prediction = expand_ranges(low, end)
        step = following[prediction] - 1 - begin[of_lane]
        output = np.where(step >= 0, 1 + offset[np.maximum(step, 0)] + of_lane, 0) if len(step) else step
        batch = Batch(
            event=torch.from_numpy(event), batch_sizes=torch.from_numpy(batch_sizes),
            carried=torch.from_numpy(self._row[active]), prediction=torch.from_numpy(prediction),
            output=torch.from_numpy(output),
        )  # fmt: skip
        self._row[active] = np.arange(len(active))
        return batch


def expand_ranges(
    low: NDArray[np.int64], high: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers low[i] … high[i] - 1 for each i in turn. Returns the i of each number, and the numbers."""
    count = high - low
    of = np.repeat(np.arange(len(count)), count)
    return of, np.arange(len(of)) - (np.cumsum(count) - count)[of] + low[of]


def carried(before: Tensor, batch: Batch) -> Tensor:
    """The states [B,S] at which the windows of a batch begin, from the end states of the batch before."""
    row = batch.carried.to(before.device)
    return torch.where((row >= 0)[:, None], before[row.clamp(min=0)], 0.0)


@torch.inference_mode()
def outputs_at(recommender: Recommender, data: Sequences, wanted: range) -> tuple[Tensor, NDArray[np.int64]]:
    """The cell's outputs at the predictions of targets in the wanted rows, each after its user's whole
    history: float32[q,H], and which predictions they are, in increasing order: int64[q].
    """
    device = recommender.item_bias.device
    initial = recommender.cell.output(recommender.initial(1))
    before = (data.first[:-1] + data.predictions_before(row) for row in (wanted.start, wanted.stop))
    _, predictions = expand_ranges(*before)
    result = torch.empty(len(predictions), recommender.config.hidden)
    state = recommender.initial(1)
    users = np.arange(len(data.start) - 1)
    result[:] = initial.cpu()
    for batch in batches(data, wanted, users, steps=128, events=1 << 14):
        inputs = Inputs(*(part.to(device) for part in data.inputs_at(batch.event)))
        outputs, state = recommender.packed(inputs, batch.batch_sizes, carried(state, batch))
        position = torch.from_numpy(np.searchsorted(predictions, batch.prediction.numpy()))
        result[position] = torch.cat([initial, outputs])[batch.output.to(device)].cpu()
    return result, predictions
