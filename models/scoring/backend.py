"""What scoring makes of one batch of users, tile by tile: the interface, and what the two ways of doing it
have in common.
"""

from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eddy.models.network.mixture import latest_slots
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.tensors import Query, Window

SHORT_LIST, LEAST_LISTED = 2, 20
"""Candidates of a first pass that are scored again: so many times k, and at least so many."""


class Exclude(NamedTuple):
    """What is not to be ranked: pairs (row of the query, catalogue index), int64[n] each, and items for
    nobody.
    """

    row: Tensor
    item: Tensor
    everywhere: Tensor | None = None


class TopK(NamedTuple):
    """What was found for B users: lists for the first ones, ranks for the last R."""

    item: Tensor
    """int64[B - R, k] catalogue indices, best first, ties to the lower index; -1 beyond what may be
    recommended
    """
    score: Tensor
    """float32[B - R, k], -inf beyond"""
    own: Tensor
    """float32[R] the targets' scores"""
    above: Tensor
    """int64[R] how many other items score at least as high as the target: 0 = first"""


class ScoringBackend(Protocol):
    """B users' questions; parts of them may be answered on several threads at a time."""

    def scores(self, rows: slice) -> Tensor:
        """Exact scores float32[rows, N], -inf where an item is not to be ranked; until the next call."""

    def topk(self, rows: slice, k: int, target: Tensor) -> TopK:
        """Lists of the k best items for the first of these users, ranks of target[R] for the last R."""


def short_list(k: int) -> int:
    """Candidates to score again for a list of k."""
    return max(SHORT_LIST * k, LEAST_LISTED)


def last_items(query: Query, window: Window, lags: int) -> Tensor:
    """Each user's last L items, latest first: int64[B,L] catalogue index, -1 = none."""
    slot, _, held = latest_slots(query, window, lags)
    return torch.where(held, window.item.gather(1, slot), -1)


class Weights(NamedTuple):
    """How much transitions count by how common the items are that they lead to and from: float32[N or more]
    each.
    """

    to: Tensor
    origin: Tensor


class Successors(NamedTuple):
    """Of the distinct items among the last ones of B users."""

    source: NDArray[np.int64]  # [B,L] row of the two tables below
    distinct: NDArray[np.int64]  # [U] the items; N = none
    successor: NDArray[np.int32]  # [U,M] -1 = none
    share: NDArray[np.float32]  # [U,M] 0 where none


def successors(last: NDArray[np.int64], items: int, statistics: Statistics, now: float) -> Successors:
    """Of last[B,L] at `now`; each distinct item is looked up once."""
    used = np.zeros(items + 1, np.bool_)
    used[last] = True  # -1, no item, is the last place
    distinct = np.flatnonzero(used)
    place = np.zeros(items + 1, np.int64)
    place[distinct] = np.arange(len(distinct))
    index, share = statistics.successors_of(np.where(distinct < items, distinct, -1), now)
    return Successors(place[last], distinct, index, share)
