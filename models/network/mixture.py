"""The sparse parts of the score: a pointer over the user's own items and transitions from the last items.

Together with the dense part d_j = query · [item vector, bias, log popularities] of item j they make

    score_j = log(exp(log(exp(d_j) + Z t_j) + shift_j) + Z p_j),    Z = Σ_j exp(d_j),

so t (transitions) and p (pointer) are probability mass mixed into the softmax of d, as in pointer-sentinel
mixtures (Merity et al., arXiv:1609.07843) and the neural cache (Grave et al., arXiv:1612.04426). shift raises
or lowers an item of the user whatever its mass, and so can learn "never twice". All three are zero outside a
few hundred candidates per user. Every slot of an item in the recent window adds mass, with a weight of its
own where the item came again later, so both "what was last" and "what is frequent" can be learned; shift
counts once. Of items from before the window only the order is known; an item that is also in the window
counts as there.

In the code d is `dense`, log Z `log_z`, t `transition` and p `pointer`.
"""

import functools

import torch
from torch import Tensor, nn

from eddy.models.config import ModelConfig
from eddy.models.kernels.compiled_maths import GAP_BUCKETS
from eddy.models.tensors import SPARSE_GATES, Query, Sparse, Window, gap_bucket

_TINY = 1e-30

HABITS = 5
"""Numbers that describe a user's habits: see `habits_of`."""

TYPICAL_LOG_SHARE = -7.0
"""Log share of all events, about one in a thousand, of an item whose transitions damping and boost leave as
they are. Any value would do: another one multiplies all transitions alike, which their gate makes up for.
"""


class Mixture(nn.Module):
    """The learned parameters of the sparse parts: tables that weigh window slots (by place, age, type,
    negative, and whether the item came again) and transition lags; gates by the user's habits and the last
    event's type; and the powers by which a transition depends on how common its two items are.
    """

    def __init__(self, config: ModelConfig, types: int) -> None:
        super().__init__()
        self.pointer = config.pointer
        self.lags = config.transition_lags
        if config.pointer:  # two columns: log mass, shift
            self.place = nn.Parameter(torch.zeros(config.recent_window, 2))
            self.age = nn.Parameter(torch.zeros(GAP_BUCKETS, 2))
            self.kind = nn.Parameter(torch.zeros(types + 1, 2))
            self.negative = nn.Parameter(torch.zeros(2))
            self.earlier = nn.Parameter(torch.tensor(-3.0))  # log mass of slots whose item came again later
            self.older = nn.Parameter(torch.zeros(config.older.bit_length(), 2))  # by log2 of the place
            self.habit = nn.Linear(HABITS, SPARSE_GATES, bias=False)
            nn.init.zeros_(self.habit.weight)
            self.last_kind = nn.Parameter(torch.zeros(types + 1, SPARSE_GATES))
            with torch.no_grad():
                self.place[:, 0] = -torch.log1p(torch.arange(config.recent_window))
                self.older[:, 0] = -torch.log(config.recent_window + 2.0 ** torch.arange(len(self.older)))
        if config.transition_lags:
            self.lag = nn.Parameter(-torch.log1p(torch.arange(config.transition_lags)))
            self.lag_age = nn.Parameter(torch.zeros(GAP_BUCKETS))
            self.damping = nn.Parameter(torch.zeros(()))
            self.boost = nn.Parameter(torch.zeros(()))

    def forward(self, query: Query, window: Window, successor: Tensor, share: Tensor) -> Sparse:
        """The sparse parts of B scores over all candidates of a user: items in the window, then successors,
        then older items, whose number differs between batches.

        successor[B,L,M] (-1 = none), share[B,L,M]: transitions from the last L items, latest first.
        """
        item, pointer, shift, lag, of_own = self.weights(query, window)
        mass = (lag.unsqueeze(-1) * share * (successor >= 0)).flatten(1)
        older, is_item = window.older.clamp(min=0).long(), window.older >= 0
        if not self.pointer:
            older, is_item = older[:, :0], is_item[:, :0]
        alone = is_item & (older.unsqueeze(2) != item.unsqueeze(1)).all(dim=2)
        log_mass, older_shift = (
            by_place + of_user.unsqueeze(1)
            for by_place, of_user in zip(self.of_older(older.shape[1]), of_own.unbind(dim=1), strict=True)
        )
        none = torch.zeros_like
        return Sparse(
            torch.cat([item, successor.clamp(min=0).flatten(1).long(), older], 1),
            torch.cat([none(pointer), mass, none(log_mass)], 1),
            torch.cat([pointer, none(mass), torch.exp(log_mass) * alone], 1),
            torch.cat([shift, none(mass), older_shift * alone], 1),
        )

    def weights(self, query: Query, window: Window) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The parts by slot and by lag, (item, pointer, shift, lag, own):

        of the recent window, slots latest first, item int64[B,W], pointer float32[B,W] as a share of Z, and
        shift float32[B,W]; lag float32[B,L], how much the transitions from each of the last L items count;
        and own float32[B,2], the log mass and the shift that all of the user's own items have. Empty slots
        repeat the latest item, or item 0, and weigh nothing. Without a pointer W is 0.
        """
        gates = query.gates
        item = pointer = shift = gates.new_zeros(len(gates), 0)
        if self.pointer:
            slot, age, is_item = latest_slots(query, window, window.item.shape[1])
            item = window.item.gather(1, slot)
            is_item = is_item & (item >= 0)
            latest = latest_of(item, is_item)
            type_ = window.type.gather(1, slot)
            gates = gates + self.habit(habits_of(item, is_item, latest)) + self.last_kind[type_[:, 0]]
            tables = (
                self.place[: item.shape[1]]
                + self.age[gap_bucket(age)]
                + self.kind[type_]
                + window.negative.gather(1, slot).unsqueeze(-1) * self.negative
            )  # [B,W,2]
            mass = tables[..., 0] + gates[:, 1:2] + torch.where(latest, 0.0, self.earlier)
            mass = mass + gates[:, 3:4] * (item == item[:, :1])
            pointer = torch.exp(mass) * is_item
            shift = (tables[..., 1] + gates[:, 2:3]) * latest
            item = torch.where(is_item, item, item[:, :1].clamp(min=0))
        lag = gates.new_zeros(len(gates), 0)
        if self.lags:
            _, age, _ = latest_slots(query, window, self.lags)
            lag = torch.exp(self.lag[: age.shape[1]] + self.lag_age[gap_bucket(age)] + gates[:, :1])
        return item.long(), pointer, shift, lag, gates[:, 1:3]

    def of_older(self, places: int) -> tuple[Tensor, Tensor]:
        """What older items weigh by their place, 0 = the latest: log mass float32[places], shift
        float32[places]. They are added to what all of the user's own items have, and hold for items that are
        not in the window.
        """
        if not self.pointer:
            nothing = self.lag.new_zeros(0) if self.lags else torch.zeros(0)
            return nothing, nothing
        weights = self.older[_log2(len(self.older), self.older.device)[:places]]
        return weights[:, 0].contiguous(), weights[:, 1].contiguous()

    def damped(self, transition: Tensor, log_share: Tensor) -> Tensor:
        """Transition mass to items with these log shares of all events (same shape), damped by a learned
        power: an item that follows everything is preferred less.
        """
        return transition * torch.exp(self.damping * (TYPICAL_LOG_SHARE - log_share))

    def boost_of(self, log_share: Tensor) -> Tensor:
        """The weight of transitions out of items with these log shares of all events (same shape): the share
        to a learned power, 1 at a typical share. Common items are counted more often, and tell more. A power
        of 0.5 here and in `damped` makes transitions a cosine.
        """
        return torch.exp(self.boost * (log_share - TYPICAL_LOG_SHARE))


@functools.cache
def _log2(bits: int, device: torch.device) -> Tensor:
    """floor(log2(place + 1)) of places below 2**bits - 1: int64."""
    with torch.inference_mode(False):  # the cached tensor may be needed in training
        return torch.log2(torch.arange(1, 2**bits, device=device)).long()


def latest_of(item: Tensor, is_item: Tensor) -> Tensor:
    """Which slots [B,W], latest first, are the latest occurrence of their item: bool[B,W]."""
    slots = item.shape[1]
    key = (item * slots + torch.arange(slots, device=item.device)).sort(dim=1).values
    same = key // slots
    first = torch.ones_like(is_item)
    first[:, 1:] = same[:, 1:] != same[:, :-1]
    return is_item & torch.zeros_like(is_item).scatter_(1, key - same * slots, first)


def habits_of(item: Tensor, is_item: Tensor, latest: Tensor) -> Tensor:
    """A user's habits, from slots [B,W], latest first: float32[B,HABITS], each of the order of 1. They are:
    log of the length; share of repeats; share of repeats of the event before; whether the last event was a
    repeat; log of how often in a row the last item came.
    """
    length = is_item.sum(dim=1)
    events = length.clamp(min=1)
    follows = ((item[:, 1:] == item[:, :-1]) & is_item[:, 1:]).sum(dim=1)
    same = (item == item[:, :1]) & is_item
    last = same[:, 1:].any(dim=1)
    run = same.cumprod(dim=1).sum(dim=1)
    return torch.stack(
        [
            torch.log1p(length) / 4, 1 - latest.sum(dim=1) / events, follows / events, last.float(),
            torch.log1p(run) / 2,
        ],
        dim=1,
    )  # fmt: skip


def latest_slots(query: Query, window: Window, places: int) -> tuple[Tensor, Tensor, Tensor]:
    """The last `places` slots of the windows, latest first: slot[B,places], age_ms[B,places] at query time,
    and whether there is an event, bool[B,places].
    """
    place = torch.arange(min(places, window.item.shape[1]), device=window.item.device)
    slot = window.length[:, None] - 1 - place
    is_event = slot >= 0
    slot = slot.clamp(min=0)
    time = window.timestamp.gather(1, slot)
    age = (time[:, :1] - time).clamp(min=0) + query.idle_ms.clamp(min=0)[:, None]
    return slot, age, is_event


def with_transitions(dense: Tensor, log_z: Tensor, transition: Tensor) -> Tensor:
    """log(exp(d_j) + Z t_j) of candidates whose t are summed: all [B,C], log_z[B,1]."""
    return torch.logaddexp(dense, log_z + torch.log(transition + _TINY))


def with_pointer(score: Tensor, log_z: Tensor, pointer: Tensor, shift: Tensor) -> Tensor:
    """The rest of the module's formula, from `with_transitions` on: all [B,C], log_z[B,1]."""
    return torch.logaddexp(score + shift, log_z + torch.log(pointer + _TINY))


def mixed(dense: Tensor, log_z: Tensor, transition: Tensor, pointer: Tensor, shift: Tensor) -> Tensor:
    """The module's formula for candidates whose parts are summed: all [B,C], log_z[B,1] -> score[B,C]."""
    return with_pointer(with_transitions(dense, log_z, transition), log_z, pointer, shift)
