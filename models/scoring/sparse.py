"""The sparse parts of many users' scores, at the few hundred items per user where they are not zero, in
torch.

`eddy.models.network.mixture` says what they are, and has the symbols. Here they are summed by item, in a
matrix of zeros as wide as the catalogue, in which only what was written is cleared again: that is cheaper
than to sort or to search.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from eddy.models.network.mixture import with_pointer, with_transitions


class SparseParts(NamedTuple):
    """The sparse parts of B users, made once for all tiles. The first five are what `Mixture.weights`
    returns.
    """

    item: Tensor  # int64[B,W]
    pointer: Tensor  # float32[B,W]
    shift: Tensor  # float32[B,W]
    lag: Tensor  # float32[B,L]
    own: Tensor  # float32[B,2]
    older: Tensor  # int[B,O] as in Window
    of_older: tuple[Tensor, Tensor]  # float32[O] each, by place: see Mixture.of_older
    source: Tensor  # int64[B,L] rows of the two tables below
    successor: Tensor  # int64[U,M] of the distinct items among the users' last ones
    share: Tensor  # float32[U,M] 0 where there is no successor

    @property
    def any(self) -> bool:
        """Whether there are any sparse parts."""
        return self.item.shape[1] > 0 or (self.lag.shape[1] > 0 and self.successor.shape[1] > 0)

    def lay_out(self, rows: slice) -> "SparseTile":
        """The parts of the users in `rows`, laid out for mixing."""
        source = self.source[rows]
        mass = self.lag[rows].unsqueeze(2) * self.share[source]
        older = self.older[rows]
        row, place = (older >= 0).nonzero(as_tuple=True)
        log_mass, shift = (
            by_place.index_select(0, place).add_(of_user.contiguous().index_select(0, row))
            for by_place, of_user in zip(self.of_older, self.own[rows].unbind(dim=1), strict=True)
        )
        return SparseTile(
            self.item[rows], self.pointer[rows], self.shift[rows],
            self.successor[source].flatten(1), mass.flatten(1),
            row, older[row, place].long(), log_mass, shift,
        )  # fmt: skip


class SparseTile(NamedTuple):
    """The sparse parts of the B users of a tile. Their E older items lie one after another, since most users
    have none, and some have hundreds.
    """

    item: Tensor  # int64[B,W]
    pointer: Tensor  # float32[B,W]
    shift: Tensor  # float32[B,W]
    successor: Tensor  # int64[B,C] what transitions lead to, an item perhaps several times
    transition: Tensor  # float32[B,C]
    row: Tensor  # int64[E] the user
    older: Tensor  # int64[E] the item
    older_log_mass: Tensor  # float32[E]
    older_shift: Tensor  # float32[E]

    def mix_into(self, dense: Tensor, log_z: Tensor, zero: Tensor) -> None:
        """Mix transitions, then the pointer, into dense[B,N], in place; log_z[B,1]. zero[B,N] must be all
        zeros, and is so again afterwards.
        """
        # 1. Transitions.
        if self.successor.shape[1]:
            summed = _sum_at(zero, self.successor, self.transition, self.successor)
            before = dense.gather(1, self.successor)
            dense.scatter_(1, self.successor, with_transitions(before, log_z, summed))
        if not self.item.shape[1]:
            return
        before = dense.gather(1, self.item)
        # 2. Older items, each of which occurs once.
        if len(self.row):
            flat, index = dense.view(-1), self._flat_index(dense)
            mass = self.older_log_mass + log_z[:, 0].index_select(0, self.row)
            score = self.older_shift + flat.index_select(0, index)
            flat.scatter_(0, index, torch.logaddexp(score, mass))
        # 3. The window, from the scores before step 2: an item that is in both counts as in the window.
        pointer, shift = (_sum_at(zero, self.item, part, self.item) for part in (self.pointer, self.shift))
        dense.scatter_(1, self.item, with_pointer(before, log_z, pointer, shift))

    def sum_at(self, index: Tensor, zero: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Transition, pointer and shift of the items index[B,S], summed by item: [B,S] each. zero[B,N] must
        be all zeros, and is so again afterwards.
        """
        transition = _sum_at(zero, self.successor, self.transition, index)
        if not self.item.shape[1]:
            return transition, torch.zeros_like(transition), torch.zeros_like(transition)
        pointer, shift = (_sum_at(zero, self.item, part, index) for part in (self.pointer, self.shift))
        if len(self.row):
            in_window = _sum_at(zero, self.item, torch.ones_like(self.pointer), index)
            start = torch.arange(len(index), device=index.device)[:, None] * zero.shape[1]
            flat, older, wanted = zero.view(1, -1), self._flat_index(zero)[None], (start + index).view(1, -1)
            pointer, shift = (
                torch.where(in_window > 0, inside, _sum_at(flat, older, part[None], wanted).view_as(inside))
                for inside, part in ((pointer, torch.exp(self.older_log_mass)), (shift, self.older_shift))
            )
        return transition, pointer, shift

    def _flat_index(self, matrix: Tensor) -> Tensor:
        """Where the older items are in the flattened matrix[B,N]: int64[E]."""
        return self.row * matrix.shape[1] + self.older


def _sum_at(zero: Tensor, item: Tensor, part: Tensor, index: Tensor) -> Tensor:
    """The sums of part[B,C] over the columns whose item[B,C] is index[B,S]: [B,S]. zero[B,N] must be all
    zeros, and is so again afterwards.
    """
    zero.scatter_add_(1, item, part)
    total = zero.gather(1, index)
    zero.scatter_(1, item, 0.0)
    return total
