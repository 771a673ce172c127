"""The gated recurrent unit without gradients, compiled for the CPU: waves of few users, of which a stream has
many, cost what their arithmetic costs and no more.

Symbols are those of `eddy.models.network.cells.GRU`. In torch a step of one user takes 20 µs, a tenth of it
arithmetic.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import linear

from eddy.models.kernels.compiled import Floats, compiled, inlined
from eddy.models.kernels.compiled_maths import LOG2_E, ONE, exp2

FEW = 6
"""Users up to which a wave's product with U is made row by row."""

TWO = np.float32(2)


@inlined
def _sigmoid(a: np.float32) -> np.float32:
    return ONE / (ONE + exp2(-a * LOG2_E))


@compiled
def _gate(w: Floats, u: Floats, h: Floats, outputs: Floats) -> None:
    """h[m,H] one step on, in place and in `outputs`, from w = W x + b_W and u = U h + b_U, [m,3H] each."""
    units = h.shape[1]
    for i in range(len(u)):
        of_x, of_h, own, out = w[i], u[i], h[i], outputs[i]
        for j in range(units):
            r = _sigmoid(of_x[j] + of_h[j])
            z = _sigmoid(of_x[units + j] + of_h[units + j])
            n = TWO * _sigmoid(TWO * (of_x[2 * units + j] + r * of_h[2 * units + j])) - ONE  # tanh
            own[j] = n + z * (own[j] - n)
            out[j] = own[j]


@compiled
def _few(
    w: Floats, sizes: NDArray[np.int64], weight: Floats, bias: Floats, h: Floats, outputs: Floats
) -> None:
    """Step after step of `sizes` users: w[Σ sizes, 3H], weight U[3H,H]."""
    u = np.empty((sizes.max(), len(weight)), np.float32)
    at = 0
    for m in sizes:
        for gate in range(len(weight)):
            row = weight[gate]
            for i in range(m):
                own, total = h[i], bias[gate]
                for j in range(len(row)):
                    total += row[j] * own[j]
                u[i, gate] = total
        _gate(w[at : at + m], u[:m], h, outputs[at : at + m])
        at += m


def layer(x: Tensor, sizes: Tensor, h: Tensor, weights: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """One layer over packed inputs (see `Cell.packed`): x[n,I] and states h[B,H], which move in place, give
    outputs[n,H]. Weights are W, U, b_W, b_U.
    """
    weight_x, weight_h, bias_x, bias_h = (weight.detach() for weight in weights)
    outputs = torch.empty(len(x), h.shape[1])
    w, own, out = linear(x, weight_x, bias_x).numpy(), h.numpy(), outputs.numpy()
    many = int((sizes > FEW).sum())
    at = 0
    for m in sizes[:many].tolist():
        u = linear(h[:m], weight_h, bias_h).numpy()
        _gate(w[at : at + m], u, own, out[at : at + m])
        at += m
    if at < len(x):
        _few(w[at:], sizes.numpy()[many:], weight_h.numpy(), bias_h.numpy(), own, out[at:])
    return outputs
