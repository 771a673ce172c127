"""The gated recurrent unit without gradients, in compiled loops for the CPU: a stream has many waves of few
users, and a step of one user takes 20 µs in torch, only a tenth of it arithmetic.

Symbols are those of `eddy.models.network.cells.GRU`, which has the equations; m users, H units.
`tests/unit/network/test_cells.py` holds these loops and torch's cell together.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import linear

from eddy.models.kernels.compiled import Floats, compiled, inlined
from eddy.models.kernels.compiled_maths import LOG2_E, ONE, exp2

FEW_USERS = 6
"""Users up to which the compiled loop multiplies a wave with U itself: with more, torch's faster product
makes up for the time that a call of it takes.
"""

TWO = np.float32(2)


@inlined
def _sigmoid(a: np.float32) -> np.float32:
    return ONE / (ONE + exp2(-a * LOG2_E))


@compiled
def _apply_gates(w: Floats, u: Floats, h: Floats, outputs: Floats) -> None:
    """Move the first m rows of h[B,H] one step on, in place, and copy them into outputs[m,H]; from
    w[m,3H] = W x + b_W and u[m,3H] = U h + b_U, whose columns are those of r, z and n.
    """
    units = h.shape[1]
    for i in range(len(u)):
        wx, uh, state, out = w[i], u[i], h[i], outputs[i]
        for j in range(units):
            r = _sigmoid(wx[j] + uh[j])
            z = _sigmoid(wx[units + j] + uh[units + j])
            n = TWO * _sigmoid(TWO * (wx[2 * units + j] + r * uh[2 * units + j])) - ONE  # tanh
            state[j] = n + z * (state[j] - n)
            out[j] = state[j]


@compiled
def _step_few_users(
    w: Floats, sizes: NDArray[np.int64], weight: Floats, bias: Floats, h: Floats, outputs: Floats
) -> None:
    """Step after step of the first sizes[T] rows of h[B,H], in place: w[Σ sizes, 3H] as in `_apply_gates`,
    weight[3H,H] is U, bias[3H] is b_U, outputs[Σ sizes, H]. `sizes` is not empty and does not increase.
    """
    u = np.empty((sizes.max(), len(weight)), np.float32)
    at = 0
    for m in sizes:
        for gate in range(len(weight)):
            row = weight[gate]
            for i in range(m):
                state, total = h[i], bias[gate]
                for j in range(len(row)):
                    total += row[j] * state[j]
                u[i, gate] = total
        _apply_gates(w[at : at + m], u[:m], h, outputs[at : at + m])
        at += m


def run_layer(x: Tensor, sizes: Tensor, h: Tensor, weights: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """Run one layer over packed inputs x[n,I], see `Cell.packed`: returns outputs[n,H] and moves the states
    h[B,H] in place. sizes[T] must not increase; weights are W, U, b_W, b_U.
    """
    weight_x, weight_h, bias_x, bias_h = (weight.detach() for weight in weights)
    outputs = torch.empty(len(x), h.shape[1])
    w, state, out = linear(x, weight_x, bias_x).numpy(), h.numpy(), outputs.numpy()
    many = int((sizes > FEW_USERS).sum())
    at = 0
    for m in sizes[:many].tolist():
        u = linear(h[:m], weight_h, bias_h).numpy()
        _apply_gates(w[at : at + m], u, state, out[at : at + m])
        at += m
    if at < len(x):
        _step_few_users(w[at:], sizes.numpy()[many:], weight_h.numpy(), bias_h.numpy(), state, out[at:])
    return outputs
