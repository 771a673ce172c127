"""The input vectors of events without gradients, in a compiled loop for the CPU: each event's vectors are
added up in the cache. `eddy.models.network.recommender.Recommender.inputs` has the same in torch.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eddy.models.kernels.compiled import Floats, Ints, compiled
from eddy.models.kernels.compiled_maths import gap_bucket


@compiled
def _add_vectors(
    item: Ints, type_: Ints, negative: NDArray[np.bool_], gap_ms: Floats,
    items: Floats, types: Floats, negative_vector: Floats, gaps: Floats, x: Floats,
) -> None:  # fmt: skip
    """Write the sums of `input_vectors` into x[n,D]. Items must be below V, types below T."""
    for i in range(len(x)):
        into, item_vector, type_vector = x[i], items[item[i]], types[type_[i]]
        for j in range(len(into)):
            into[j] = item_vector[j] + type_vector[j]
        if negative[i]:
            for j in range(len(into)):
                into[j] += negative_vector[j]
        if len(gaps):
            gap_vector = gaps[gap_bucket(gap_ms[i])]
            for j in range(len(into)):
                into[j] += gap_vector[j]


def input_vectors(
    item: Tensor, type_: Tensor, negative: Tensor, gap_ms: Tensor,
    items: Tensor, types: Tensor, negative_vector: Tensor, gaps: Tensor,
) -> Tensor:  # fmt: skip
    """The input vectors of n events, float32[n,D]: the vector of the item, plus that of the type, plus
    `negative_vector` where the event is negative, plus that of the gap's bucket.

    The first four arguments are the columns [n] of `eddy.models.tensors.Inputs`. The others are vectors:
    items [V,D], types [T,D], negative_vector [D], gaps [GAP_BUCKETS,D], or [0,D] where gaps do not count.
    """
    x = torch.empty(len(item), items.shape[1])
    columns = (column.contiguous().numpy() for column in (item, type_, negative, gap_ms.float()))
    tables = (table.detach().numpy() for table in (items, types, negative_vector, gaps))
    _add_vectors(*columns, *tables, x.numpy())  # type: ignore[call-arg]
    return x
