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
        item, pointer, shift = self.window(query, window)
        mass = self.lag_weights(query, window).unsqueeze(-1) * share * (successor >= 0)
        before, after = torch.zeros_like(pointer), torch.zeros_like(mass.flatten(1))
        return Sparse(
            torch.cat([item, successor.clamp(min=0).flatten(1).long()], 1),
            torch.cat([before, mass.flatten(1)], 1),
            torch.cat([pointer, after], 1),
            torch.cat([shift, after], 1),
        )

    def window(self, query: Query, window: Window) -> tuple[Tensor, Tensor, Tensor]:
        """The items of the recent window, latest first: index int64[B,W] (0 = none), and what the pointer
        gives them: p float32[B,W] as a share of Z, shift float32[B,W]. W = 0 without a pointer.
        """
        if not self.pointer:
            none = query.vector.new_zeros(len(query.vector), 0)
            return none.long(), none, none
        backwards, age, held = recent(query, window, window.item.shape[1])
        item = window.item.gather(1, backwards)
        held = held & (item >= 0)
        tables = (
            self.place[: item.shape[1]]
            + self.age[gap_bucket(age)]
            + self.kind[window.type.gather(1, backwards)]
            + window.negative.gather(1, backwards).unsqueeze(-1) * self.negative
        )  # [B,W,2]
        pointer = torch.exp(tables[..., 0] + query.gates[:, 1:2]) * held
        return torch.where(held, item, 0), pointer, (tables[..., 1] + query.gates[:, 2:3]) * held

    def lag_weights(self, query: Query, window: Window) -> Tensor:
        """How much the transitions from each of the last L items count, latest first: float32[B,L]."""
        if not self.lags:
            return query.vector.new_zeros(len(query.vector), 0)
        _, age, _ = recent(query, window, self.lags)
        return torch.exp(self.lag[: age.shape[1]] + self.lag_age[gap_bucket(age)] + query.gates[:, :1])


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


def with_transitions(dense: Tensor, log_z: Tensor, transition: Tensor) -> Tensor:
    """log(exp(d_j) + Z t_j) of candidates whose t are summed: all [B,C], log_z[B,1]."""
    return torch.logaddexp(dense, log_z + torch.log(transition + _TINY))


def with_pointer(score: Tensor, log_z: Tensor, pointer: Tensor, shift: Tensor) -> Tensor:
    """The rest of the module's formula, from `with_transitions` on: all [B,C], log_z[B,1]."""
    return torch.logaddexp(score + shift, log_z + torch.log(pointer + _TINY))


def mixed(dense: Tensor, log_z: Tensor, transition: Tensor, pointer: Tensor, shift: Tensor) -> Tensor:
    """The module's formula for candidates whose parts are summed: all [B,C], log_z[B,1] -> score[B,C]."""
    return with_pointer(with_transitions(dense, log_z, transition), log_z, pointer, shift)
