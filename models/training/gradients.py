"""How far gradients reach back through a window, measured on real sequences of a log, and what to change
where they vanish or explode.
"""

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eddy.models.errors import EddyError
from eddy.models.network.recommender import Recommender
from eddy.models.tensors import Inputs
from eddy.models.training.sequences import Sequences

QUANTILES = (0.1, 0.5, 0.9)
EXPLODES = 20.0
"""Gradients explode when they are so many times the clipping norm, or grow so many times over the window."""

REACH_USERS, REACH_EVENTS = 32, 8
"""Users on whom a version's gradients are measured, and the least number of events that they must have."""

VANISHES = 0.25
"""Gradients vanish when 1 % is left after less than this share of the window."""


@dataclass(frozen=True)
class Windows:
    """The last T events of B users before a target."""

    inputs: Inputs  # [B,T]
    target: Tensor  # int64[B] vocabulary index
    idle_ms: Tensor  # int64[B] from the last event to the target


def windows(data: Sequences, length: int, users: int, seed: int = 1) -> Windows:
    """The latest window of `length` events before a target, of each of up to `users` users drawn at random.

    Errors: EddyError when no user has so many events before a target.
    """
    user = np.flatnonzero(_longest(data) >= max(length, 1))
    latest = data.first[1:][user] - 1
    if not len(latest):
        raise EddyError(
            f"{data.source}: no user has {length} events before a target; ask for a shorter window"
        )
    picked = np.random.default_rng(seed).permutation(latest)[:users]
    event = torch.from_numpy(data.state_of(picked)[:, None] - np.arange(length)[::-1])
    index = torch.from_numpy(picked)
    return Windows(data.inputs_at(event), data.target[index].long(), data.idle_ms[index])


def _longest(data: Sequences) -> NDArray[np.int64]:
    """How many events each user has before the latest prediction: int64[U]."""
    longest, has = np.zeros(len(data.start) - 1, np.int64), np.diff(data.first) > 0
    longest[has] = data.following[data.first[1:][has] - 1] - data.start[:-1][has]
    return longest


@dataclass(frozen=True)
class GradientReach:
    """Norm of the loss's gradient by the state k events before the target, for k = 0 … K - 1."""

    norm: NDArray[np.float64]  # [K, 3] quantiles 0.1, 0.5, 0.9 over users
    mean: NDArray[np.float64]  # [K] root mean square over users: what the batch's gradient feels
    total: float  # norm of the gradient by all weights of the batch's mean loss: what clipping looks at

    def horizon(self, below: float = 0.01) -> int:
        """The first lag at which the median gradient is below a share of its largest; K when it never is."""
        median = self.norm[:, 1]
        gone = median < below * median.max()
        return int(gone.argmax()) if gone.any() else len(median)

    def clipped(self, clip: float) -> float:
        """The factor by which clipping to this norm scales all gradients."""
        return min(1.0, clip / self.total) if self.total > 0 else 1.0


def gradient_warning(reach: GradientReach, clip: float) -> str | None:
    """What to change where gradients vanish or explode over the window they were measured on, or None."""
    window, median = len(reach.norm), reach.norm[:, 1]
    growth = median[-1] / median[0]
    if reach.total > EXPLODES * clip or growth > EXPLODES:
        return (
            f"gradients explode: norm {reach.total:.3g} where clip is {clip:g}, and {growth:.2g} times as"
            f" large {window - 1} events back as at the target; lower learning_rate, clip or bptt_steps"
        )
    if reach.horizon() < VANISHES * window:
        return (
            f"gradients vanish: 1 % is left after {reach.horizon()} of {window} events, and nothing is"
            " learned from older ones; use cell gru or lstm, or fewer bptt_steps to train faster"
        )
    return None


def long_enough(data: Sequences, most: int) -> int:
    """The number of events before a target that REACH_USERS users have (all users, if there are fewer),
    `most` at most.
    """
    longest = _longest(data)
    return int(min(most, np.sort(longest)[-min(REACH_USERS, len(longest))]))


def gradients(recommender: Recommender, data: Sequences, bptt_steps: int, clip: float) -> dict[str, Any]:
    """How far a trained network's gradients reach on its log: "window" (events), "norm", "horizon" (events),
    and a "warning" where a setting should be changed. Empty where histories are too short to tell.

    Windows have `bptt_steps` events as in training or, in a log of shorter histories, as many as REACH_USERS
    users have.
    """
    length = long_enough(data, bptt_steps)
    if length < REACH_EVENTS:
        return {}
    reach = gradient_reach(recommender, windows(data, length, REACH_USERS))
    figures: dict[str, Any] = {"window": length, "norm": reach.total, "horizon": reach.horizon()}
    warning = gradient_warning(reach, clip)
    return figures if warning is None else figures | {"warning": warning}


def gradient_reach(recommender: Recommender, sample: Windows) -> GradientReach:
    """Backpropagate each user's loss at the target through every event of the window, which begins at a zero
    state.
    """
    recommender = copy.deepcopy(recommender).cpu().eval().requires_grad_(True)
    x = recommender.inputs(sample.inputs)
    state = recommender.initial(len(x)).to(x.dtype).requires_grad_(True)
    states = []
    for t in range(x.shape[1]):
        state = recommender.cell.step(x[:, t], state)
        states.append(state)
    query = recommender.user_vector(recommender.cell.output(state), sample.idle_ms)
    vectors, bias = recommender.item_vectors[: recommender.items], recommender.item_bias
    loss = torch.nn.functional.cross_entropy(query @ vectors.T + bias, sample.target, reduction="sum")
    weights = [weight for weight in recommender.parameters() if weight.requires_grad]
    by_state = torch.autograd.grad(loss, states, retain_graph=True)
    by_weight = torch.autograd.grad(loss / len(x), weights, allow_unused=True)
    norms = torch.stack([gradient.norm(dim=1) for gradient in reversed(by_state)]).double()
    total = math.sqrt(sum(float(gradient.square().sum()) for gradient in by_weight if gradient is not None))
    quantiles = torch.quantile(norms, torch.tensor(QUANTILES, dtype=torch.float64), dim=1).T
    mean = norms.square().mean(dim=1).sqrt()
    return GradientReach(quantiles.detach().numpy(), mean.detach().numpy(), total)
