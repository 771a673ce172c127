"""What a cell reads, without gradients and on the CPU: vectors of each event added up in the cache."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.compiled import Floats, Ints, compiled
from models.compiled_maths import gap_bucket
from models.tensors import Inputs


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


def add_up(inputs: Inputs, items: Tensor, types: Tensor, of_negative: Tensor, gaps: Tensor) -> Tensor:
    """What n events give, [n,D], from the vectors of items, types, negative events and gaps (none: [0,D])."""
    x = torch.empty(len(inputs.item), items.shape[1])
    item, type_, negative = (column.contiguous().numpy() for column in inputs[:3])
    gap_ms = inputs.gap_ms.float().contiguous().numpy()
    tables = (table.detach().numpy() for table in (items, types, of_negative, gaps))
    _add_up(item, type_, negative, gap_ms, *tables, x.numpy())  # type: ignore[call-arg]
    return x
