"""The interface of scoring one batch of users, tile by tile, and what its two implementations have in common.

The score (formula: `eddy.models.network.mixture`) is computed in two ways:

- `TorchBackend`, with `eddy.models.scoring.sparse`, is the reference: torch operations on whole tiles of
  users, for any device, and for numbers that are not finite.
- `CpuBackend`, with `eddy.models.kernels.score_rows`, is the optimised path: on a CPU, where all numbers are
  finite, compiled loops follow the product, one user's row at a time.

`tests/unit/scoring/test_scorer.py` holds them together: `test_compiled_loops_score_as_any_device_does`
compares scores and lists of the two, and `test_scores_follow_the_formula` compares each of them with the
formula written out item by item in float64. Whoever changes one of them must change the other.
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
"""A first pass in reduced precision gives SHORT_LIST times k candidates that are scored again, and at least
LEAST_LISTED: more cost time, fewer cost recall (tests/bench/README.md has recall@10 and recall@20 of 1).
"""


class Exclude(NamedTuple):
    """What is not to be ranked: pairs (row of the query, catalogue index), int64[n] each, and items for
    nobody.
    """

    row: Tensor
    item: Tensor
    everywhere: Tensor | None = None


class Adjust(NamedTuple):
    """What is added to whole scores before the best are taken: A columns of numbers, of which each user has
    one at most. A filter is a column of zeros and -inf; a factor by which items count more or less is the
    logarithm of that factor.
    """

    column: Tensor
    """int64[B] the user's column, -1 = none"""
    added: Tensor
    """float32[A,N], below +inf, for every item of the scorer"""


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


class ScoreParts(NamedTuple):
    """What the scores of S items consist of, for one user; symbols as in `eddy.models.network.mixture`."""

    state: Tensor
    """float32[S], a part of d: hidden state · item vector, and bias"""
    popularity: Tensor
    """float32[S], the rest of d"""
    shift: Tensor
    """float32[S]"""
    transition: Tensor
    """float32[S,L] t as a share of Z, by the user's last items, latest first"""
    pointer: Tensor
    """float32[S,W] p as a share of Z, by slots of the window, latest first"""
    older: Tensor
    """float32[S] p of items from before the window, as a share of Z"""
    log_z: Tensor
    """float32[1]"""


class ScoringBackend(Protocol):
    """The questions of B users. Its methods may run on several threads at a time, each for other users."""

    def scores(self, rows: slice) -> Tensor:
        """Exact scores float32[n,N] of the n users in `rows`, -inf where an item is not to be ranked. The
        next call on the same thread overwrites them.
        """

    def topk(self, rows: slice, k: int, target: Tensor) -> TopK:
        """For the n users in `rows`: lists of the k best items for the first n - R, which has fewer columns
        if the catalogue has fewer items, and exact ranks of target[R] for the last R.
        """


def short_list(k: int) -> int:
    """How many candidates are scored again for a list of k."""
    return max(SHORT_LIST * k, LEAST_LISTED)


def last_items(query: Query, window: Window, lags: int) -> Tensor:
    """Each user's last L items, latest first: int64[B,L] catalogue index, -1 = none."""
    slot, _, filled = latest_slots(query, window, lags)
    return torch.where(filled, window.item.gather(1, slot), -1)


class TransitionWeights(NamedTuple):
    """Factors of a transition by how common its two items are; see `Mixture.damped` and
    `Mixture.boost_of`.
    """

    to: Tensor
    """float32[N or more] by the item that it leads to"""
    origin: Tensor
    """float32[N or more] by the item that it comes from"""


class SuccessorTables(NamedTuple):
    """Successors of the U distinct items among the last L items of B users."""

    source: NDArray[np.int64]  # [B,L] rows of the tables below, of which each user's last items have one each
    distinct: NDArray[np.int64]  # [U] the items; N = no item
    successor: NDArray[np.int32]  # [U,M] -1 = none
    share: NDArray[np.float32]  # [U,M] of all transitions from the item, 0 = none


def successor_tables(
    last: NDArray[np.int64], items: int, statistics: Statistics, now: float, successors: int
) -> SuccessorTables:
    """The M = `successors` best successors of last[B,L] (-1 = no item) at `now`, ms of the stream clock, in a
    catalogue of N = `items`. Each distinct item is looked up once.
    """
    distinct, row = np.unique(np.where(last < 0, items, last), return_inverse=True)
    successor, share = statistics.successors_of(np.where(distinct < items, distinct, -1), now, successors)
    return SuccessorTables(row.reshape(last.shape), distinct, successor, share)
