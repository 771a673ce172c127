"""The sparse parts of the score: a pointer over the recent window and transitions from the last items.

Together with the dense part d_j = query · [item vector, bias, log popularities] of item j they make

    score_j = log(exp(log(exp(d_j) + Z t_j) + shift_j) + Z p_j),    Z = Σ_j exp(d_j),

so t (transitions) and p (pointer) are probability mass mixed into the softmax of d, as in pointer-sentinel
mixtures (Merity et al., arXiv:1609.07843) and the neural cache (Grave et al., arXiv:1612.04426), and shift
raises or lowers an item in the window whatever its mass: it is what learns "never twice". All three are zero
outside a few hundred candidates per user.
"""

import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.tensors import GAP_BUCKETS, Query, Sparse, Window, gap_bucket

_TINY = 1e-30


class Mixture(nn.Module):
    """Learned tables that weigh window slots (place, age, type, negative) and transition lags."""

    def __init__(self, config: ModelConfig, types: int) -> None:
        super().__init__()
        self.pointer = config.pointer
        self.lags = config.transition_lags
        if config.pointer:  # two columns: log mass, shift
            self.place = nn.Parameter(torch.zeros(config.window, 2))
            self.age = nn.Parameter(torch.zeros(GAP_BUCKETS, 2))
            self.kind = nn.Parameter(torch.zeros(types + 1, 2))
            self.negative = nn.Parameter(torch.zeros(2))
            with torch.no_grad():
                self.place[:, 0] = -torch.log1p(torch.arange(config.window))
        if config.transition_lags:
            self.lag = nn.Parameter(-torch.log1p(torch.arange(config.transition_lags)))
            self.lag_age = nn.Parameter(torch.zeros(GAP_BUCKETS))

    def forward(self, query: Query, window: Window, successor: Tensor, share: Tensor) -> Sparse:
        """successor[B,L,M] (-1 = none), share[B,L,M]: transitions from the last L items, latest first."""
        backwards, slot_age, held = recent(query, window, window.item.shape[1])
        item = window.item.gather(1, backwards)
        index, transition, pointer, shift = [], [], [], []
        if self.pointer:
            tables = (
                self.place[: item.shape[1]]
                + self.age[gap_bucket(slot_age)]
                + self.kind[window.type.gather(1, backwards)]
                + window.negative.gather(1, backwards).unsqueeze(-1) * self.negative
            )  # [B,W,2]
            held = held & (item >= 0)
            index.append(torch.where(held, item, 0))
            pointer.append(torch.exp(tables[..., 0] + query.gates[:, 1:2]) * held)
            shift.append((tables[..., 1] + query.gates[:, 2:3]) * held)
            transition.append(torch.zeros_like(pointer[0]))
        if self.lags and successor.shape[2]:
            lags = successor.shape[1]
            weight = self.lag[:lags] + self.lag_age[gap_bucket(slot_age[:, :lags])] + query.gates[:, :1]
            mass = torch.exp(weight).unsqueeze(-1) * share * (successor >= 0)
            index.append(successor.clamp(min=0).flatten(1).long())
            transition.append(mass.flatten(1))
            pointer.append(torch.zeros_like(transition[-1]))
            shift.append(torch.zeros_like(transition[-1]))
        if not index:
            none = query.vector.new_zeros(len(query.vector), 0)
            return Sparse(none.long(), none, none, none)
        return Sparse(
            torch.cat(index, 1), torch.cat(transition, 1), torch.cat(pointer, 1), torch.cat(shift, 1)
        )


def recent(query: Query, window: Window, places: int) -> tuple[Tensor, Tensor, Tensor]:
    """The last `places` slots, latest first: slot[B,places], age_ms[B,places] at query time, held
    bool[B,places].
    """
    place = torch.arange(min(places, window.item.shape[1]), device=window.item.device)
    slot = window.length[:, None] - 1 - place
    held = slot >= 0
    slot = slot.clamp(min=0)
    time = window.timestamp.gather(1, slot)
    age = (time[:, :1] - time).clamp(min=0) + query.idle_ms.clamp(min=0)[:, None]
    return slot, age, held


def mixed(dense: Tensor, log_z: Tensor, transition: Tensor, pointer: Tensor, shift: Tensor) -> Tensor:
    """The module's formula for candidates whose parts are summed: all [B,C], log_z[B,1] -> score[B,C]."""
    score = torch.logaddexp(dense, log_z + torch.log(transition + _TINY)) + shift
    return torch.logaddexp(score, log_z + torch.log(pointer + _TINY))
