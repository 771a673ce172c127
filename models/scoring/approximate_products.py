"""Products of queries with item rows: exact ones, and faster ones in reduced precision.

Rows are brought into the order in which oneDNN reads them once, which every product would do anew otherwise.
Products are about in int8 (oneDNN) or bfloat16, whichever this machine is faster at.
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
"""Of vectors float32[B, D + 1]: scores float32[B, rows], the caller's own, to be multiplied by [B, 1] if
given.
"""

WORTHWHILE = 0.75
"""Of float32's time: a first pass that takes more does not pay for the short list."""

_PACKED_FOR = 64
"""Queries at a time that the order is chosen for; for others it is as good within a few percent."""

_TRIAL_ROWS, _DEVICE_TRIAL_ROWS = 64, 1024

_CANNOT = (RuntimeError, AttributeError, TypeError)
"""What torch raises for what it does not have on this device, or in this version."""


def exact(rows: Tensor) -> Product:
    """Of rows[n, D + 1], packed if the device and this torch can."""
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(rows, _PACKED_FOR)
    except _CANNOT:
        return lambda vector: (torch.mm(vector, rows.T), None)
    linear = torch.ops.mkldnn._linear_pointwise
    return lambda vector: (linear(vector, packed, None, "none", [], ""), None)


def _int8(rows: Tensor) -> Product:
    """Vectors as int8, queries as 7 bits (sums of 8 by 8 bits can overflow on AVX2), with a scale each."""
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


def reduced(rows: Tensor, precision: Precision) -> Product:
    """Of rows[n, D + 1], about. Errors: EddyError where this machine cannot."""
    try:
        return _REDUCED[precision](rows)
    except _CANNOT as error:
        raise EddyError(
            f"no scores in {precision} on this machine ({error}): set EDDY_PRECISION to auto"
        ) from None


def fastest(rows: Tensor) -> Precision:
    """What the first pass should use on this machine: measured, since no flag of the processor says it."""
    best, shortest = "float32", WORTHWHILE * _seconds(exact(rows), rows)
    for name, pack in _REDUCED.items():
        try:
            took = _seconds(pack(rows), rows)
        except _CANNOT:
            continue
        if took < shortest:
            best, shortest = name, took
    return best  # type: ignore[return-value]


def _seconds(product: Product, rows: Tensor) -> float:
    """The shortest of a few runs."""
    trial = _DEVICE_TRIAL_ROWS if rows.is_cuda else _TRIAL_ROWS
    vector = torch.randn(trial, rows.shape[1], device=rows.device)
    product(vector)
    took = []
    for _ in range(3):
        if vector.is_cuda:
            torch.cuda.synchronize()
        began = time.perf_counter()
        product(vector)
        if vector.is_cuda:
            torch.cuda.synchronize()
        took.append(time.perf_counter() - began)
    return min(took)
