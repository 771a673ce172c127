"""A look inside a cell while it reads a window: states, gates, and how far back a state depends on itself.

The equations are those of `eddy.models.network.cells`, written so that the gates can be seen; a test holds
the two together. Of a cell with several layers the last one is shown.

| cell | gates | kept | overwritten |
| --- | --- | --- | --- |
| GRU | update z, reset r | z | 1 - z |
| LSTM | input i, forget f, output o | f | i |
| minGRU | update σ(z) | 1 - σ(z) | σ(z) |
| echo state | none | 1 - a | a |
| RNN | none | 0 | 1 |
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import linear

from eddy.models.network.cells import GRU, LSTM, RNN, Cell, EchoState, MinGRU

MAX_HORIZON = 1_000.0
"""Events; a unit that holds something for longer is said to hold it for so long."""

MAX_MATRIX = 1_024
"""Units up to which a recurrent matrix is multiplied and its eigenvalues are computed: it takes a second."""

_LEAST_SHARE = 1e-6


@dataclass(frozen=True)
class Inside:
    """T events, H units of the last layer."""

    states: Tensor
    """[T + 1, H], the state before the first event first"""
    gates: dict[str, Tensor]
    """[T, H] each"""
    kept: Tensor
    """[T, H] share of what a unit held before the event"""
    overwritten: Tensor
    """[T, H] share that the event writes"""
    horizon: Tensor
    """[H] number of events after which what a unit held counts half"""


class _Layer(NamedTuple):
    """A layer that has read a window: what it gives to the next one, and what could be seen."""

    outputs: Tensor
    states: list[Tensor]
    gates: dict[str, list[Tensor]]
    kept: list[Tensor]
    overwritten: list[Tensor]


@torch.inference_mode()
def look_inside(cell: Cell, x: Tensor, state: Tensor) -> Inside:
    """Read a window x[T, I] from state[S]."""
    layer: _Layer | None = None
    outputs = cell.enter(x) if isinstance(cell, MinGRU) else x
    for number in range(cell.layers):
        layer = _read_layer(cell, number, outputs, state)
        outputs = layer.outputs
    assert layer is not None
    states = torch.stack(layer.states)
    kept, overwritten = (_stacked(part, states) for part in (layer.kept, layer.overwritten))
    gates = {name: _stacked(steps, states) for name, steps in layer.gates.items()}
    u = recurrent_matrix(cell)
    if u is None or cell.hidden > MAX_MATRIX:
        horizon = _horizon_of_shares(kept)
    else:
        horizon = _horizon_of_jacobians(u, cell.leak if isinstance(cell, EchoState) else 1.0, states)
    return Inside(states, gates, kept, overwritten, horizon)


def _stacked(steps: Sequence[Tensor], like: Tensor) -> Tensor:
    return torch.stack(list(steps)) if steps else like[:0]


def _read_layer(cell: Cell, number: int, x: Tensor, state: Tensor) -> _Layer:
    hidden = cell.hidden
    h = state[number * hidden : (number + 1) * hidden]
    if isinstance(cell, LSTM):
        c = state[(cell.layers + number) * hidden : (cell.layers + number + 1) * hidden]
        return _read_lstm(cell.weights(number), x, h, c)
    if isinstance(cell, GRU):
        return _read_gru(cell.weights(number), x, h)
    if isinstance(cell, RNN):
        return _read_rnn(cell.weights(number), x, h)
    if isinstance(cell, EchoState):
        return _read_echo_state(cell, x, h)
    return _read_mingru(cast(MinGRU, cell), number, x, h)


Weights = tuple[Tensor, Tensor, Tensor, Tensor]


def _read_rnn(weights: Weights, x: Tensor, h: Tensor) -> _Layer:
    w, u, b_w, b_u = weights
    states = [h]
    for wx in linear(x, w, b_w):
        states.append(torch.tanh(wx + linear(states[-1], u, b_u)))
    nothing, all_ = [torch.zeros_like(h)] * len(x), [torch.ones_like(h)] * len(x)
    return _Layer(_stacked(states[1:], x), states, {}, nothing, all_)


def _read_gru(weights: Weights, x: Tensor, h: Tensor) -> _Layer:
    w, u, b_w, b_u = weights
    states, updates, resets = [h], list[Tensor](), list[Tensor]()
    for wx in linear(x, w, b_w):
        x_r, x_z, x_n = wx.chunk(3)
        h_r, h_z, h_n = linear(states[-1], u, b_u).chunk(3)
        r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
        n = torch.tanh(x_n + r * h_n)
        states.append((1 - z) * n + z * states[-1])
        updates.append(z)
        resets.append(r)
    gates = {"update": updates, "reset": resets}
    return _Layer(_stacked(states[1:], x), states, gates, updates, [1 - z for z in updates])


def _read_lstm(weights: Weights, x: Tensor, h: Tensor, c: Tensor) -> _Layer:
    w, u, b_w, b_u = weights
    states = [h]
    gates: dict[str, list[Tensor]] = {"input": [], "forget": [], "output": []}
    for wx in linear(x, w, b_w):
        i, f, g, o = (wx + linear(states[-1], u, b_u)).chunk(4)
        i, f, o = torch.sigmoid(i), torch.sigmoid(f), torch.sigmoid(o)
        c = f * c + i * torch.tanh(g)
        states.append(o * torch.tanh(c))
        for steps, gate in zip(gates.values(), (i, f, o), strict=True):
            steps.append(gate)
    return _Layer(_stacked(states[1:], x), states, gates, gates["forget"], gates["input"])


def _read_echo_state(cell: EchoState, x: Tensor, h: Tensor) -> _Layer:
    states = [h]
    for x_t in x:
        states.append(cell.step(x_t[None], states[-1][None])[0])
    kept = [torch.full_like(h, 1 - cell.leak)] * len(x)
    return _Layer(_stacked(states[1:], x), states, {}, kept, [1 - each for each in kept])


def _read_mingru(cell: MinGRU, number: int, x: Tensor, h: Tensor) -> _Layer:
    block = cell.block(number)
    z, candidate, gate = block.read(x)
    states = [h]
    for z_t, candidate_t in zip(z, candidate, strict=True):
        states.append((1 - z_t) * states[-1] + z_t * candidate_t)
    outputs = block.write(x, _stacked(states[1:], h[None]), gate, cell.dropout)
    return _Layer(outputs, states, {"update": list(z)}, list(1 - z), list(z))


# -- how long a unit holds what it held ---------------------------------------------------------------------


def _horizon_of_shares(kept: Tensor) -> Tensor:
    """kept[T, H] -> [H]: the half-life of a product of such shares."""
    if not len(kept):
        return kept.new_zeros(kept.shape[1])
    decay = -kept.clamp(min=_LEAST_SHARE).log().mean(dim=0)
    return (math.log(2) / decay.clamp(min=math.log(2) / MAX_HORIZON)).clamp(max=MAX_HORIZON)


def _horizon_of_jacobians(u: Tensor, leak: float, states: Tensor) -> Tensor:
    """h' = (1 - a) h + a tanh(… + U h) through states[T + 1, H] -> [H]: after so many events the derivative
    of the last state by what a unit held, a vector, is half as long. Beyond the window, it goes on as it went
    in the window.
    """
    steps, hidden = len(states) - 1, states.shape[1]
    if not steps:
        return states.new_zeros(hidden)
    identity = torch.eye(hidden)
    product, lengths = identity, [torch.ones(hidden)]
    for before, after in zip(states[:-1].flip(0), states[1:].flip(0), strict=True):
        tanh = (after - (1 - leak) * before) / leak
        product = product @ ((1 - leak) * identity + leak * (1 - tanh**2)[:, None] * u)
        lengths.append(product.norm(dim=0))
    length = torch.stack(lengths).clamp(min=1e-30)
    below = length < 0.5
    first = torch.where(below.any(dim=0), below.float().argmax(dim=0), steps)
    unit = torch.arange(hidden)
    at, before = length[first, unit].log(), length[first - 1, unit].log()
    within = first - 1 + ((before - math.log(0.5)) / (before - at).clamp(min=1e-12))
    beyond = steps * math.log(2) / (-at).clamp(min=1e-12)
    return torch.where(below.any(dim=0), within, beyond).clamp(0.0, MAX_HORIZON)


def recurrent_matrix(cell: Cell) -> Tensor | None:
    """U[H, H] of the last layer of a cell in which nothing but U stands between two states; None for cells
    with gates.
    """
    if isinstance(cell, RNN):
        return cell.weights(cell.layers - 1)[1].detach()
    return cell.reservoir().to_dense() if isinstance(cell, EchoState) else None


# -- how far back a state depends on itself -----------------------------------------------------------------


def gradient_flow(cell: Cell, x: Tensor, state: Tensor, lengths: Tensor, probes: int = 4) -> Tensor:
    """‖∂h_t/∂h_{t-lag}‖ at the ends of B windows x[B, T, I] from state[B, S], over that at lag 0, in the mean
    of those windows that reach so far: [lags], lags 1 ….

    lengths[B], 1 … T. The Frobenius norm is estimated by random directions: for v of independent normal
    numbers, the mean of ‖vᵀ J‖² is ‖J‖² (Hutchinson 1990).
    """
    users, steps = x.shape[:2]
    with torch.inference_mode(False), torch.enable_grad():
        step_once = _differentiable_step(cell)
        at = state.clone().requires_grad_()
        states = [at]
        for step, read in enumerate(x.clone().unbind(dim=1)):
            at = torch.where((lengths > step)[:, None], step_once(read, at), at)
            states.append(at)
        squares = torch.zeros(users, steps + 1)
        generator = torch.Generator().manual_seed(0)
        for _ in range(probes):
            direction = torch.randn(users, cell.hidden, generator=generator)
            read_out = (cell.output(at) * direction).sum()
            gradients = torch.autograd.grad(read_out, states, retain_graph=True)
            for back, gradient in enumerate(reversed(gradients)):
                squares[:, back] += gradient.square().sum(dim=1)
    # The last state of a window of n < T events stands still until step T, and its gradient with it.
    shift = steps - lengths
    lag = torch.arange(1, int(lengths.max()) + 1)
    place = (shift[:, None] + lag[None]).clamp(max=steps)
    reaches = lag[None] <= lengths[:, None]
    norm = squares.gather(1, place).sqrt()
    at_zero = squares.gather(1, shift[:, None]).sqrt().clamp(min=1e-30)
    ratio = torch.where(reaches, norm / at_zero, 0.0)
    return ratio.sum(dim=0) / reaches.sum(dim=0).clamp(min=1)


def _differentiable_step(cell: Cell) -> Callable[[Tensor, Tensor], Tensor]:
    """The cell's step; a reservoir may have been made where no gradients are kept, and is copied."""
    if not isinstance(cell, EchoState):
        return cell.step
    u, w, b, leak = cell.reservoir().to_dense().clone(), cell.w, cell.b, cell.leak
    return lambda x, h: torch.lerp(h, torch.tanh(linear(x, w, b) + h @ u.T), leak)


def spectral_radius(cell: Cell) -> float | None:
    """The largest absolute eigenvalue of the matrix that multiplies the last layer's state; None for cells
    where gates stand between, and for matrices of more than MAX_MATRIX units.
    """
    matrix = None if cell.hidden > MAX_MATRIX else recurrent_matrix(cell)
    return None if matrix is None else float(torch.linalg.eigvals(matrix.double()).abs().max())


__all__ = [
    "MAX_HORIZON",
    "MAX_MATRIX",
    "Inside",
    "gradient_flow",
    "look_inside",
    "recurrent_matrix",
    "spectral_radius",
]
