"""The tensors that pass between the recommender, its callers and the scorer."""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from eddy.models.kernels import window
from eddy.models.kernels.compiled_maths import GAP_BUCKETS

SPARSE_GATES = 4
"""Gates of the sparse parts, per state: log mass of the transitions, log mass of the pointer, shift of items
in the window, and additional log mass of the last event's item.
"""


class Inputs(NamedTuple):
    """n events, any leading shape."""

    item: Tensor  # int64, input index: 0 … V + buckets - 1
    type: Tensor  # int64, 0 … T
    negative: Tensor  # bool
    gap_ms: Tensor  # int64 or float32: since the user's previous event, -1 = first event


Window: TypeAlias = window.Window[Tensor]
"""Recent windows of B users on the model's device."""


class Query(NamedTuple):
    """The users' side of the score, for B states."""

    vector: Tensor  # float32[B, D + 1 + F + TREND]: against item vector, item bias and moving popularities
    gates: Tensor  # float32[B, SPARSE_GATES]
    idle_ms: Tensor  # [B] since the user's last event, -1 = no event yet


class Sparse(NamedTuple):
    """Sparse parts of B scores over C candidates; a candidate may repeat, padding has index 0 and weighs
    nothing.
    """

    item: Tensor  # int64[B,C] catalogue index
    transition: Tensor  # float32[B,C] share of Z
    pointer: Tensor  # float32[B,C] share of Z
    shift: Tensor  # float32[B,C]


def roomy(part: Tensor, length: int, dim: int = 0) -> Tensor:
    """A copy with zeros at the end of a dimension, which is then `length` long.

    Callers ask for a share more than they need, so that they copy rarely and an append costs, in the mean, in
    proportion to what is appended.
    """
    return pad(part, [0, 0] * (part.dim() - 1 - dim) + [0, length - part.shape[dim]])


def gap_bucket(gap_ms: Tensor) -> Tensor:
    """Time gap in ms (-1 = none) -> bucket: int64, 0 … GAP_BUCKETS - 1."""
    since = 1 + gap_ms.to(torch.float32) / 1000
    exponent = (since.view(torch.int32) >> 23) - 127  # the whole part of log2; -1 where the gap is negative
    return (exponent + 1).clamp(0, GAP_BUCKETS - 1).long()


def to_device(column: NDArray[Any], device: torch.device) -> Tensor:
    """A host array on a device; on the CPU it shares the array's memory.

    Pinned memory is not used: for the hundred small arrays of a micro-batch it was no faster
    (tests/bench/README.md).
    """
    return torch.from_numpy(np.ascontiguousarray(column)).to(device)


def all_finite(*parts: Tensor) -> bool:
    """Whether no element is NaN or infinite."""
    return all(bool(torch.isfinite(part).all()) for part in parts)
