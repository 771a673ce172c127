"""Event logs as sequences of users, and the batches that truncated backpropagation through time walks along.

A batch holds one window of backpropagation (at most T = bptt_steps consecutive events; not the recent window
of the stream) of each of many users. A user stays in the batches until their last event, and the state is
carried on from window to window. Others join as there is room, so that every optimiser step sees about the
same number of events.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eddy.models.hashing import item_hashes, type_hashes
from eddy.models.logs.events import Events
from eddy.models.network.recommender import Recommender
from eddy.models.rules import EventRules
from eddy.models.tensors import Inputs
from eddy.models.vocabulary import Vocabulary


@dataclass(frozen=True)
class Sequences:
    """m events that move states, user after user, each user's in order; and p predictions of targets."""

    start: NDArray[np.int64]  # [U + 1] first event of each user
    inputs: Inputs  # [m]
    state: NDArray[np.int64]  # [p] the event after which the target is predicted, -1 = none before it
    user: NDArray[np.int64]  # [p]
    target: Tensor  # int64[p] vocabulary index, -1 = outside the vocabulary
    idle_ms: Tensor  # int64[p] from that event to the target, -1 = no event yet
    row: NDArray[np.int64]  # [p] the target's row in the event log
    moved: NDArray[np.int64]  # [m] the event's row in the event log
    before: NDArray[np.int64]  # [n] for each row of the log: its user's last event before it, or -1


def sequences(events: Events, vocabulary: Vocabulary, rules: EventRules, outside: bool = False) -> Sequences:
    """Sort a log by user. Targets outside the vocabulary are left out unless `outside`."""
    flags = events.flags(rules)
    input_of = vocabulary.input_index(item_hashes(events.items))
    types = vocabulary.type_index(type_hashes(events.types))
    order = np.argsort(events.user, kind="stable")
    user, moves = events.user[order].astype(np.int64), flags.moves[order]
    moved = order[moves]
    start = np.searchsorted(user[moves], np.arange(len(events.users) + 1))
    last = np.cumsum(moves) - moves - 1  # in this order: the last event before that moves any state
    before = np.empty(len(events), np.int64)
    before[order] = np.where(last >= start[user], last, -1)
    timestamp = events.timestamp[moved]
    gap = np.diff(timestamp, prepend=0)
    gap[start[:-1][np.diff(start) > 0]] = -1
    inputs = Inputs(
        torch.from_numpy(input_of[events.item[moved]]),
        torch.from_numpy(types[events.type[moved]]),
        torch.from_numpy(flags.negative[moved]),
        torch.from_numpy(gap),
    )
    in_vocabulary = input_of[events.item] < len(vocabulary)
    row = order[(flags.target & (in_vocabulary | outside))[order]]
    idle = np.full(len(row), -1)
    has_state = before[row] >= 0
    idle[has_state] = events.timestamp[row][has_state] - timestamp[before[row][has_state]]
    return Sequences(
        start=start, inputs=inputs, state=before[row], user=events.user[row].astype(np.int64),
        target=torch.from_numpy(np.where(in_vocabulary[row], input_of[events.item[row]], -1)),
        idle_ms=torch.from_numpy(idle), row=row, moved=moved, before=before,
    )  # fmt: skip


@dataclass(frozen=True)
class Batch:
    """Windows of B users, longest first, packed by time (see Cell.packed); B = 0 where a share has none."""

    event: Tensor  # int64[n] index into Sequences.inputs
    batch_sizes: Tensor  # int64[T] on the CPU
    carried: Tensor  # int64[B] row of the previous batch's end state, -1 = zeros
    prediction: Tensor  # int64[q] index into the predictions
    output: Tensor  # int64[q] 1 + row of the packed outputs; 0 = the initial state's output
    all_predictions: Tensor  # int64[Q >= q] the predictions of all shares of the batch


def batches(
    data: Sequences, wanted: NDArray[np.bool_], users: NDArray[np.int64], steps: int, events: int,
    share: int = 0, shares: int = 1,
) -> Iterator[Batch]:  # fmt: skip
    """Walk along the users' events, the users in the given order: about `events` per batch, at most `steps`
    of each user.

    wanted[p] picks the predictions; users without any are passed over. share, shares: each batch is divided
    among so many walks (processes), which agree on all batches. A user is always in the same walk's share, so
    that the state can be carried on there.

    1. Sort the predictions by the event that they follow. 2. Find each user's first and last event of
    interest. 3. Fill batches: those users who have events left, then new ones while there is room.
    """
    # 1. Predictions of users before their first event sort before those after it.
    chosen = np.flatnonzero(wanted)
    by_state = chosen[np.lexsort((data.state[chosen], data.user[chosen]))]
    first = data.start[data.user[by_state]]
    sort_key = np.where(data.state[by_state] >= 0, data.state[by_state], first) * 2 + (
        data.state[by_state] >= 0
    )
    # 2. Events after the last prediction teach nothing.
    has = np.zeros(len(data.start) - 1, bool)
    has[data.user[chosen]] = True
    last = np.zeros(len(data.start) - 1, np.int64)
    np.maximum.at(last, data.user[chosen], np.maximum(data.state[chosen], data.start[data.user[chosen]]) + 1)
    end = np.minimum(last, data.start[1:])
    users = users[has[users] & (end > data.start[:-1])[users]]
    at, until = data.start[users], end[users]
    row = np.full(len(users), -1)  # where the previous batch left this user's state
    # 3. `active` are positions in `users`.
    active = np.zeros(0, np.int64)
    joined = 0
    while len(active) or joined < len(users):
        size = np.minimum(until[active] - at[active], steps).sum()
        new = joined
        while new < len(users) and size < events:
            size += min(until[new] - at[new], steps)
            new += 1
        active = np.concatenate([active, np.arange(joined, new)])
        joined = new
        yield _batch(data, by_state, sort_key, at, until, row, active, steps, active % shares == share)
        done = at[active] >= until[active]
        active = active[~done]


def _batch(
    data: Sequences, by_state: NDArray[np.int64], sort_key: NDArray[np.int64], at: NDArray[np.int64],
    until: NDArray[np.int64], row: NDArray[np.int64], active: NDArray[np.int64], steps: int,
    in_share: NDArray[np.bool_],
) -> Batch:  # fmt: skip
    """The next window of the active users, of whom those `in_share` are yielded; moves `at` and `row` on."""
    length = np.minimum(until[active] - at[active], steps)
    order = np.argsort(-length, kind="stable")
    active, length, in_share = active[order], length[order], in_share[order]
    begin = at[active].copy()
    at[active] += length
    low, high = np.searchsorted(sort_key, begin * 2), np.searchsorted(sort_key, (begin + length) * 2)
    _, of_all_shares = expand_ranges(low, high)
    active, begin, length = active[in_share], begin[in_share], length[in_share]
    batch_sizes = np.searchsorted(-length, -np.arange(length.max(initial=0)), side="left")
    step_of = np.repeat(np.arange(len(batch_sizes)), batch_sizes)
    offset = np.cumsum(batch_sizes) - batch_sizes
    lane = np.arange(len(step_of)) - offset[step_of]
    event = begin[lane] + step_of
    of_lane, prediction = expand_ranges(low[in_share], high[in_share])
    step = sort_key[prediction] // 2 - begin[of_lane]
    output = (
        np.where(sort_key[prediction] % 2 == 1, 1 + offset[step] + of_lane, 0)
        if len(prediction)
        else prediction
    )
    batch = Batch(
        event=torch.from_numpy(event), batch_sizes=torch.from_numpy(batch_sizes),
        carried=torch.from_numpy(row[active].copy()), prediction=torch.from_numpy(by_state[prediction]),
        output=torch.from_numpy(output), all_predictions=torch.from_numpy(by_state[of_all_shares]),
    )  # fmt: skip
    row[active] = np.arange(len(active))
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
def outputs_at(recommender: Recommender, data: Sequences, wanted: NDArray[np.bool_]) -> Tensor:
    """The cell's outputs at the wanted predictions, each after its user's whole history:
    float32[wanted.sum(), H].
    """
    device = recommender.item_bias.device
    initial = recommender.cell.output(recommender.initial(1))
    position = torch.from_numpy(np.cumsum(wanted) - 1)
    result = torch.empty(int(wanted.sum()), recommender.config.hidden)
    state = recommender.initial(1)
    users = np.arange(len(data.start) - 1)
    result[:] = initial.cpu()
    for batch in batches(data, wanted, users, steps=128, events=1 << 14):
        inputs = Inputs(*(part[batch.event].to(device) for part in data.inputs))
        outputs, state = recommender.packed(inputs, batch.batch_sizes, carried(state, batch))
        result[position[batch.prediction]] = torch.cat([initial, outputs])[batch.output.to(device)].cpu()
    return result
