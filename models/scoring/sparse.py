"""The sparse parts of many users' scores, at the few hundred items per user where they are not zero.

`eddy.models.network.mixture` says what they are; here they are summed per item, in a matrix of zeros as wide
as the catalogue that is cleared again at the same places: cheaper than to sort or search.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from eddy.models.network.mixture import with_pointer, with_transitions


class SparseParts(NamedTuple):
    """Of B users, made once for all tiles; as in `eddy.models.network.mixture.Mixture`."""

    item: Tensor  # int64[B,W]
    pointer: Tensor  # float32[B,W]
    shift: Tensor  # float32[B,W]
    lag: Tensor  # float32[B,L]
    own: Tensor  # float32[B,2]
    older: Tensor  # int[B,O] as in Window
    of_older: tuple[Tensor, Tensor]  # float32[O], float32[O]: by place
    source: Tensor  # int64[B,L] row of the two tables below
    successor: Tensor  # int64[U,M] of the distinct items among the users' last ones; 0 = none
    share: Tensor  # float32[U,M]

    @property
    def any(self) -> bool:
        """Whether there are sparse parts at all."""
        return self.item.shape[1] > 0 or (self.lag.shape[1] > 0 and self.successor.shape[1] > 0)

    def tile(self, rows: slice) -> "SparseTile":
        """Those of some of the users, laid out for mixing."""
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
    """Of B users; their E older items lie one after another, since most users have none, some hundreds."""

    item: Tensor  # int64[B,W]
    pointer: Tensor  # float32[B,W]
    shift: Tensor  # float32[B,W]
    successor: Tensor  # int64[B,C] what transitions lead to, an item perhaps several times
    transition: Tensor  # float32[B,C]
    row: Tensor  # int64[E]
    older: Tensor  # int64[E]
    older_log_mass: Tensor  # float32[E]
    older_shift: Tensor  # float32[E]

    def mix_into(self, dense: Tensor, log_z: Tensor, zero: Tensor) -> None:
        """Mix transitions, then the pointer, into dense[B,N], in place; log_z[B,1], zero[B,N] all zeros."""
        if self.successor.shape[1]:
            summed = _summed(zero, self.successor, self.transition, self.successor)
            before = dense.gather(1, self.successor)
            dense.scatter_(1, self.successor, with_transitions(before, log_z, summed))
        if not self.item.shape[1]:
            return
        before = dense.gather(1, self.item)
        if len(self.row):
            flat, at = dense.view(-1), self._flat(dense)
            mass = self.older_log_mass + log_z[:, 0].index_select(0, self.row)
            score = self.older_shift + flat.index_select(0, at)
            flat.scatter_(0, at, torch.logaddexp(score, mass))
        pointer, shift = (_summed(zero, self.item, part, self.item) for part in (self.pointer, self.shift))
        # After the older items: one that is in both counts as in the window.
        dense.scatter_(1, self.item, with_pointer(before, log_z, pointer, shift))

    def at(self, index: Tensor, zero: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Transition, pointer and shift of the items index[B,S], summed: [B,S] each; zero[B,N] all zeros."""
        transition = _summed(zero, self.successor, self.transition, index)
        if not self.item.shape[1]:
            return transition, torch.zeros_like(transition), torch.zeros_like(transition)
        pointer, shift = (_summed(zero, self.item, part, index) for part in (self.pointer, self.shift))
        if len(self.row):
            inside = _summed(zero, self.item, torch.ones_like(self.pointer), index)
            start = torch.arange(len(index), device=index.device)[:, None] * zero.shape[1]
            flat, at, asked = zero.view(1, -1), self._flat(zero)[None], (start + index).view(1, -1)
            pointer, shift = (
                torch.where(inside > 0, here, _summed(flat, at, part[None], asked).view_as(here))
                for here, part in ((pointer, torch.exp(self.older_log_mass)), (shift, self.older_shift))
            )
        return transition, pointer, shift

    def _flat(self, matrix: Tensor) -> Tensor:
        """Places of the older items in the flattened matrix[B,N]."""
        return self.row * matrix.shape[1] + self.older


def _summed(zero: Tensor, item: Tensor, part: Tensor, at: Tensor) -> Tensor:
    """part[B,C] of item[B,C], summed over places with the same item, for the items at[B,S]: [B,S];
    `zero`[B,N] is left as it was.
    """
    zero.scatter_add_(1, item, part)
    total = zero.gather(1, at)
    zero.scatter_(1, item, 0.0)
    return total
