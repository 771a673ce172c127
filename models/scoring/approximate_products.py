"""Products of queries with item rows: exact ones, and faster ones in reduced precision.

Item rows are brought into the order in which oneDNN reads them once; every product would do so anew
otherwise. Approximate products are computed in int8 (by oneDNN) or in bfloat16, whichever is faster on this
machine. n items, B queries, D units of an item vector.
"""

import time
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from eddy.models.errors import EddyError
from eddy.models.kernels.quantisation import MIDDLE, TINY, quantise

Precision = Literal["float32", "bfloat16", "int8", "auto"]


class Products(NamedTuple):
    """Products of B queries with n items."""

    raw: Tensor
    """float32[B,n], which the caller may overwrite"""
    unit: Tensor | None = None
    """float32[B,1] that `raw` has to be multiplied by; None = 1"""
    error: Tensor | None = None
    """float32[B], by how much a product differs from the exact one at most; None: it is exact"""


Product = Callable[[Tensor], Products]
"""A function of vectors float32[B, D + 1]."""

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

_BFLOAT16_ERROR = 2.0**-7
"""More than the relative errors of two factors and of their sum, each of which is rounded to 8 bits."""

_CANNOT = (RuntimeError, AttributeError, TypeError)
"""The errors that torch raises where an operation is missing on this device or in this version."""


def exact_product(rows: Tensor) -> Product:
    """The product with rows float32[n, D + 1], packed if the device and this torch can."""
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(rows, _PACKED_FOR)
    except _CANNOT:
        return lambda vector: Products(torch.mm(vector, rows.T))
    linear = torch.ops.mkldnn._linear_pointwise
    return lambda vector: Products(linear(vector, packed, None, "none", [], ""))


def _int8(rows: Tensor) -> Product:
    """Item rows as int8, queries as 7 bits (see `MIDDLE`), each with a scale of its own."""
    scale = rows.abs().amax(dim=1).clamp(min=TINY) / 127
    onednn, whole = torch.ops.onednn, (rows / scale[:, None]).round()
    weight = onednn.qlinear_prepack(whole.to(torch.int8), None)
    zero = torch.zeros(len(rows), dtype=torch.int32)
    quantised = whole.mul_(scale[:, None])
    norm, residual = _greatest_length(quantised), _greatest_length(rows - quantised)

    def product(vector: Tensor) -> Products:
        steps, unit = torch.empty(vector.shape, dtype=torch.uint8), torch.empty(len(vector), 1)
        quantise(vector.numpy(), steps.numpy(), unit.numpy())
        raw = onednn.qlinear_pointwise(
            steps, 1.0, MIDDLE, weight, scale, zero, None, 1.0, 0, torch.float32, "none", [], ""
        )
        lost = torch.linalg.vector_norm(vector - unit * (steps.float() - MIDDLE), dim=1)
        return Products(raw, unit, torch.linalg.vector_norm(vector, dim=1) * residual + lost * norm)

    return product


def _greatest_length(rows: Tensor) -> float:
    return float(torch.linalg.vector_norm(rows, dim=1).max())


def _bfloat16(rows: Tensor) -> Product:
    transposed, norm = rows.bfloat16().T, _greatest_length(rows)

    def product(vector: Tensor) -> Products:
        if rows.is_cuda:  # where sums can stay in float32
            raw = torch.mm(vector.bfloat16(), transposed, out_dtype=torch.float32)
        else:
            raw = torch.mm(vector.bfloat16(), transposed).float()
        return Products(raw, error=torch.linalg.vector_norm(vector, dim=1) * (norm * _BFLOAT16_ERROR))

    return product


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
