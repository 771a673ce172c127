"""What a cell reads, without gradients and on the CPU: vectors of each event added up in the cache."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eddy.models.kernels.compiled import Floats, Ints, compiled
from eddy.models.kernels.compiled_maths import gap_bucket


@compiled
def _add_up(
    item: Ints, type_: Ints, negative: NDArray[np.bool_], gap_ms: Floats,
    items: Floats, types: Floats, of_negative: Floats, gaps: Floats, x: Floats,
) -> None:  # fmt: skip
    for i in range(len(x)):
        own, of_item, of_type = x[i], items[item[i]], types[type_[i]]
        for j in range(len(own)):
            own[j] = of_item[j] + of_type[j]
        if negative[i]:
            for j in range(len(own)):
                own[j] += of_negative[j]
        if len(gaps):
            of_gap = gaps[gap_bucket(gap_ms[i])]
            for j in range(len(own)):
                own[j] += of_gap[j]


def add_up(
    item: Tensor, type_: Tensor, negative: Tensor, gap_ms: Tensor,
    items: Tensor, types: Tensor, of_negative: Tensor, gaps: Tensor,
) -> Tensor:  # fmt: skip
    """The input vectors of n events, float32[n,D]. The first four are the columns of
    `eddy.models.tensors.Inputs`, the others the vectors of items [V,D], of types [T,D], of negative events
    [D] and of gaps ([0,D]: none).
    """
    x = torch.empty(len(item), items.shape[1])
    columns = (column.contiguous().numpy() for column in (item, type_, negative, gap_ms.float()))
    tables = (table.detach().numpy() for table in (items, types, of_negative, gaps))
    _add_up(*columns, *tables, x.numpy())  # type: ignore[call-arg]
    return x
