"""What a trained recommender does with time: how long an event still changes the ranking, how a user's hidden
state moves, and copies with other weights, whose gradients vanish or explode. All is measured on real
sequences of a log.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eddy.models.errors import EddyError
from eddy.models.kernels.topk import topk
from eddy.models.logs.events import Events
from eddy.models.network.recommender import Recommender
from eddy.models.rules import EventRules
from eddy.models.tensors import Inputs
from eddy.models.training.gradients import Windows, long_enough, windows
from eddy.models.training.sequences import sequences
from eddy.models.vocabulary import Vocabulary

TOP = 20
"""Items at the top of a ranking that `memory` looks at: as many as a list has by default."""

LAGS, MEASURED_USERS = 40, 256
"""Events of a window, at most, and users that gradients and memory are measured on."""


def latest_windows(events: Events, vocabulary: Vocabulary, rules: EventRules) -> Windows:
    """The last LAGS events, or as many as enough users have, of up to MEASURED_USERS users before a target.

    Errors: EddyError when no user has an event before a target.
    """
    data = sequences(events, vocabulary, rules)
    length = long_enough(data, LAGS)
    if length < 1:
        raise EddyError(
            f"{events.source}: no user has an event before a target that the version knows; give a log with "
            "the items that it was trained on"
        )
    return windows(data, length, MEASURED_USERS)


def has_recurrent_weights(recommender: Recommender) -> bool:
    """Whether the cell multiplies its state by weights U; minGRU does not."""
    return recommender.config.cell != "mingru"


def with_gains(recommender: Recommender, recurrent: float, inputs: float = 1.0) -> Recommender:
    """A copy whose recurrent weights U are multiplied by `recurrent`, and whose input weights W and biases by
    `inputs`.

    Small U makes gradients vanish. Large U makes them explode where inputs are too weak to saturate the
    units.
    """
    scaled = copy.deepcopy(recommender)
    with torch.no_grad():
        for name, weight in [*scaled.cell.named_parameters(), *scaled.cell.named_buffers()]:
            if "weight_hh" in name or name == "strength":
                weight.mul_(recurrent)
            elif "weight_ih" in name or "bias" in name or name in ("w", "b"):
                weight.mul_(inputs)
    return scaled


@torch.no_grad()
def memory(recommender: Recommender, sample: Windows, top: int = TOP) -> NDArray[np.float64]:
    """How much an event still matters k events later: the share of the top items that change when it is
    exchanged, float64[K], lag 0 first.

    Each user's item k events back is exchanged for that of another user at the same lag. Items are ranked by
    the network alone (hidden state and item vectors), without item statistics.
    """
    recommender.eval()
    before = _top(recommender, sample, sample.inputs, top)
    changed = []
    for lag in range(sample.inputs.item.shape[1]):
        step = sample.inputs.item.shape[1] - 1 - lag
        item = sample.inputs.item.clone()
        item[:, step] = item[:, step].roll(1)
        after = _top(recommender, sample, sample.inputs._replace(item=item), top)
        kept = (before[:, :, None] == after[:, None, :]).any(dim=2).double().mean(dim=1)
        differs = item[:, step] != sample.inputs.item[:, step]
        changed.append(float((1 - kept[differs]).mean()) if differs.any() else 0.0)
    return np.array(changed)


def _top(recommender: Recommender, sample: Windows, inputs: Inputs, top: int) -> Tensor:
    users, steps = inputs.item.shape
    lengths = torch.full((users,), steps)
    _, state = recommender.sequence(inputs, recommender.initial(users), lengths)
    vector = recommender.query(state, sample.idle_ms).vector[:, : recommender.config.dim + 1]
    columns = recommender.item_columns(torch.arange(recommender.items))
    index, _ = topk(vector @ columns.T, top)
    return index


@dataclass(frozen=True)
class Trajectory:
    """A user's hidden state after each of T events."""

    user: str
    items: list[str]  # [T]
    timestamp: NDArray[np.int64]  # [T] ms
    hidden: NDArray[np.float32]  # [T,H]
    start: NDArray[np.float32] | None = None  # [H] before the first of these events, None = zeros

    def latest(self, most: int) -> "Trajectory":
        """The last events, at most so many."""
        first = max(len(self.items) - most, 0)
        if not first:
            return self
        items, timestamp, hidden = self.items[first:], self.timestamp[first:], self.hidden[first:]
        return Trajectory(self.user, items, timestamp, hidden, self.hidden[first - 1])

    @property
    def move(self) -> NDArray[np.float32]:
        """How far each event moved the state: the norm of h' - h, float32[T]."""
        start = np.zeros_like(self.hidden[:1]) if self.start is None else self.start
        before = np.vstack([start, self.hidden[:-1]])
        return np.asarray(np.linalg.norm(self.hidden - before, axis=1))


@torch.no_grad()
def trajectory(
    recommender: Recommender, vocabulary: Vocabulary, events: Events, rules: EventRules, user: str
) -> Trajectory:
    """The hidden state of a user after each event of theirs that moves it.

    Errors: EddyError for a user whom the log does not name, and for one without such events.
    """
    if user not in events.users:
        raise EddyError(f"{events.source}: no user {user!r}")
    data = sequences(events, vocabulary, rules)
    number = events.users.index(user)
    of_user = slice(data.start[number], data.start[number + 1])
    if of_user.start == of_user.stop:
        raise EddyError(f"{events.source}: no event of user {user!r} moves a state; name another user")
    inputs = data.inputs_at(torch.arange(of_user.start, of_user.stop)[None])
    lengths = torch.tensor([inputs.item.shape[1]])
    outputs, _ = recommender.eval().sequence(inputs, recommender.initial(1), lengths)
    rows = data.moved[of_user]
    items = [events.items[item] for item in events.item[rows]]
    return Trajectory(user, items, events.timestamp[rows], outputs[0].numpy())


def typical_user(events: Events, rules: EventRules, length: int) -> str:
    """The user with the number of state-moving events that is nearest to `length` (of several the first). One
    without any is nobody's choice, as long as somebody has some.
    """
    count = np.bincount(events.user[events.flags(rules).moves], minlength=len(events.users))
    return events.users[int(np.where(count > 0, np.abs(count - length), np.inf).argmin())]
