"""Products of queries with item rows: exact ones, and faster ones in reduced precision.

Item rows are brought into the order in which oneDNN reads them once; every product would do so anew
otherwise. Approximate products are computed in int8 (by oneDNN) or in bfloat16, whichever is faster on this
machine. n items, B queries, D units of an item vector.
"""

import time
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from eddy.models.errors import EddyError
from eddy.models.kernels.quantisation import TINY, quantise

Precision = Literal["float32", "bfloat16", "int8", "auto"]

Product = Callable[[Tensor], tuple[Tensor, Tensor | None]]
"""A function of vectors float32[B, D + 1]: it returns float32[B,n], which the caller may overwrite, and the
unit [B, 1] that this has to be multiplied by to be the product; None = 1.
"""

WORTHWHILE = 0.75
"""A first pass that takes more than this share of float32's time is not worth it: the short list has to be
scored again, which costs time as well.
"""

_PACKED_FOR = 64
"""Queries in the product that oneDNN chooses the order for. With other numbers of queries the product is as
fast within a few percent.
"""

_TRIAL_ROWS, _DEVICE_TRIAL_ROWS = 64, 1024
"""Queries in the products that are timed, on a CPU as many as the order is chosen for."""

_CANNOT = (RuntimeError, AttributeError, TypeError)
"""The errors that torch raises where an operation is missing on this device or in this version."""


def exact_product(rows: Tensor) -> Product:
    """The product with rows float32[n, D + 1], packed if the device and this torch can."""
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(rows, _PACKED_FOR)
    except _CANNOT:
        return lambda vector: (torch.mm(vector, rows.T), None)
    linear = torch.ops.mkldnn._linear_pointwise
    return lambda vector: (linear(vector, packed, None, "none", [], ""), None)


def _int8(rows: Tensor) -> Product:
    """Item rows as int8, queries as 7 bits (sums of products of 8 by 8 bits can overflow on AVX2), each with
    a scale of its own.
    """
    scale = rows.abs().amax(dim=1).clamp(min=TINY) / 127
    onednn = torch.ops.onednn
    weight = onednn.qlinear_prepack((rows / scale[:, None]).round().to(torch.int8), None)
    zero = torch.zeros(len(rows), dtype=torch.int32)

    def product(vector: Tensor) -> tuple[Tensor, Tensor]:
        steps, unit = torch.empty(vector.shape, dtype=torch.uint8), torch.empty(len(vector), 1)
        quantise(vector.numpy(), steps.numpy(), unit.numpy())
        raw = onednn.qlinear_pointwise(
            steps, 1.0, 128, weight, scale, zero, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return raw, unit

    return product


def _bfloat16(rows: Tensor) -> Product:
    transposed = rows.bfloat16().T
    if rows.is_cuda:  # where sums can stay in float32
        return lambda vector: (torch.mm(vector.bfloat16(), transposed, out_dtype=torch.float32), None)
    return lambda vector: (torch.mm(vector.bfloat16(), transposed).float(), None)


_REDUCED: dict[str, Callable[[Tensor], Product]] = {"int8": _int8, "bfloat16": _bfloat16}


def reduced_product(rows: Tensor, precision: Precision) -> Product:
    """The approximate product with rows float32[n, D + 1]. Errors: EddyError where this machine has none."""
    try:
        return _REDUCED[precision](rows)
    except _CANNOT as error:
        raise EddyError(
            f"no scores in {precision} on this machine ({error}): set EDDY_PRECISION to auto"
        ) from None


def fastest_precision(rows: Tensor) -> Precision:
    """The precision that the first pass over rows like these should have on this machine: it is measured,
    since no flag of the processor tells.
    """
    best, shortest = "float32", WORTHWHILE * _measure_seconds(exact_product(rows), rows)
    for name, pack in _REDUCED.items():
        try:
            seconds = _measure_seconds(pack(rows), rows)
        except _CANNOT:
            continue
        if seconds < shortest:
            best, shortest = name, seconds
    return best  # type: ignore[return-value]


def _measure_seconds(product: Product, rows: Tensor) -> float:
    """The time of a product in s: the shortest of three, after one that is not counted."""
    trial = _DEVICE_TRIAL_ROWS if rows.is_cuda else _TRIAL_ROWS
    vector = torch.randn(trial, rows.shape[1], device=rows.device)
    product(vector)
    seconds = []
    for _ in range(3):
        if vector.is_cuda:
            torch.cuda.synchronize()
        began = time.perf_counter()
        product(vector)
        if vector.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
