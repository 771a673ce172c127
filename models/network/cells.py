"""Recurrent cells. A user's state is one flat float32 vector; every cell has two forms that share weights.

`packed` is what training and the stream run: many users' events in packed order, through fused kernels where
they exist; `sequence` is the same for padded windows. `step` moves B states by one event each, and is the
readable reference. Guarantee, tested for every cell: stepping equals the sequence.

Layout of the state: the h of layer 1 … layer n, then (LSTM) the c of layer 1 … layer n, or (minGRU) the
output after the last event. It starts as zeros.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, silu
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from eddy.models.config import ModelConfig
from eddy.models.kernels import gru_loops

# cuDNN would round the products of a sequence to 10 bits, and not those of a step: the two forms must agree.
torch.backends.cudnn.allow_tf32 = False


class Cell(nn.Module, ABC):
    """A recurrent cell: I inputs, H units per layer, and a state of S (`state_size`) floats per user."""

    state_size: int

    def __init__(self, hidden: int, layers: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.layers = layers

    @abstractmethod
    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """x[B,I], state[B,S] -> the next state[B,S]."""

    @abstractmethod
    def packed(self, x: Tensor, batch_sizes: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """B windows, longest first, packed by time: x[n,I] holds step 0 of all, then step 1 of those that
        have one …

        batch_sizes[T] (on the CPU) counts the rows of each step. state[B,S] -> outputs[n,H] in the same
        order, and the state[B,S] after each window's end.
        """

    def sequence(self, x: Tensor, state: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """x[B,T,I], state[B,S], lengths[B] (on the CPU, 1 … T) -> outputs[B,T,H], state[B,S] after each
        length.

        Outputs beyond a row's length are zeros.
        """
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        order, back = packed.sorted_indices, packed.unsorted_indices
        assert order is not None
        assert back is not None
        data, end = self.packed(packed.data, packed.batch_sizes, state[order])
        outputs = PackedSequence(data, packed.batch_sizes, order, back)
        padded, _ = pad_packed_sequence(outputs, batch_first=True, total_length=x.shape[1])
        return padded, end[back]

    def output(self, state: Tensor) -> Tensor:
        """state[B,S] -> what the cell gives to the score: the last layer's h, [B,H]."""
        return state[:, (self.layers - 1) * self.hidden : self.layers * self.hidden]


class FusedCell(Cell):
    """A cell that torch has as a fused kernel over sequences; subclasses add the step."""

    kernel: nn.RNNBase
    has_c = False

    def __init__(self, inputs: int, hidden: int, layers: int) -> None:
        super().__init__(hidden, layers)
        self.kernel = self._kernel(inputs, hidden, layers)
        self.state_size = hidden * layers * (2 if self.has_c else 1)

    @abstractmethod
    def _kernel(self, inputs: int, hidden: int, layers: int) -> nn.RNNBase: ...

    def weights(self, layer: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """W, U, b_W, b_U of a layer, gates stacked in torch's order."""
        w, u, b_w, b_u = self.kernel.all_weights[layer]
        return w, u, b_w, b_u

    def packed(self, x: Tensor, batch_sizes: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        parts = state.view(len(state), -1, self.layers, self.hidden).permute(1, 2, 0, 3).contiguous()
        windows = PackedSequence(x, batch_sizes)
        if self.has_c:
            outputs, (h, c) = self.kernel(windows, (parts[0], parts[1]))
            end = torch.cat([h, c])
        else:
            outputs, end = self.kernel(windows, parts[0])
        return outputs.data, end.transpose(0, 1).reshape(len(state), -1)


class RNN(FusedCell):
    """Simple recurrent network (Elman, Cognitive Science 14, 1990): h' = tanh(W x + U h + b)."""

    def _kernel(self, inputs: int, hidden: int, layers: int) -> nn.RNNBase:
        return nn.RNN(inputs, hidden, layers, batch_first=True)

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        after = []
        for layer, h in enumerate(torch.split(state, self.hidden, dim=1)):
            w, u, b_w, b_u = self.weights(layer)
            x = torch.tanh(linear(x, w, b_w) + linear(h, u, b_u))
            after.append(x)
        return torch.cat(after, dim=1)


class GRU(FusedCell):
    """Gated recurrent unit (Cho et al., arXiv:1406.1078, with the reset gate after the product, as cuDNN):

    r = σ(W_r x + U_r h + b_r), z = σ(W_z x + U_z h + b_z), n = tanh(W_n x + b_n + r ⊙ (U_n h + b_Un)),
    h' = (1 - z) ⊙ n + z ⊙ h.
    """

    def _kernel(self, inputs: int, hidden: int, layers: int) -> nn.RNNBase:
        return nn.GRU(inputs, hidden, layers, batch_first=True)

    def packed(self, x: Tensor, batch_sizes: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        if torch.is_grad_enabled() or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            return super().packed(x, batch_sizes, state)
        after = []
        for layer, h in enumerate(torch.split(state, self.hidden, dim=1)):
            after.append(h.clone())
            x = gru_loops.run_layer(x, batch_sizes, after[-1], self.weights(layer))
        return x, torch.cat(after, dim=1)

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        after = []
        for layer, h in enumerate(torch.split(state, self.hidden, dim=1)):
            w, u, b_w, b_u = self.weights(layer)
            x = torch.gru_cell(x, h, w, u, b_w, b_u)
            after.append(x)
        return after[0] if len(after) == 1 else torch.cat(after, dim=1)


class LSTM(FusedCell):
    """Long short-term memory (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000):

    i, f, o = σ(W x + U h + b), g = tanh(W_g x + U_g h + b_g), c' = f ⊙ c + i ⊙ g, h' = o ⊙ tanh(c').
    """

    has_c = True

    def _kernel(self, inputs: int, hidden: int, layers: int) -> nn.RNNBase:
        return nn.LSTM(inputs, hidden, layers, batch_first=True)

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        h_parts, c_parts = (torch.split(part, self.hidden, dim=1) for part in state.chunk(2, dim=1))
        h_after, c_after = [], []
        for layer, (h, c) in enumerate(zip(h_parts, c_parts, strict=True)):
            x, c_next = torch.lstm_cell(x, (h, c), *self.weights(layer))
            h_after.append(x)
            c_after.append(c_next)
        return torch.cat(h_after + c_after, dim=1)


class EchoState(Cell):
    """Echo-state network (Jaeger 2001; leaky units: Jaeger et al., Neural Networks 20, 2007):

    h' = (1 - a) h + a tanh(W x + U h + b), where W, b and the sparse reservoir U are drawn once and never
    learned; U is scaled to a given spectral radius, so that the past fades. Only what reads h is trained.
    """

    columns: Tensor  # int64[H, fan_in] where each row of U is not zero
    strength: Tensor  # float32[H, fan_in] its values there
    w: Tensor
    b: Tensor
    fan_in = 10  # connections into a unit: Lukosevicius 2012 advises a small constant, whatever the size

    def __init__(self, inputs: int, hidden: int, spectral_radius: float, leak: float) -> None:
        super().__init__(hidden, 1)
        self.state_size = hidden
        self.leak = leak
        dense = torch.zeros(hidden, hidden)
        columns = torch.rand(hidden, hidden).argsort(dim=1)[:, : self.fan_in]
        dense.scatter_(1, columns, torch.rand(columns.shape) * 2 - 1)
        if not dense.is_meta:  # a loader makes the shapes only
            dense *= spectral_radius / torch.linalg.eigvals(dense.double()).abs().max().clamp(min=1e-6).item()
        self.register_buffer("columns", columns)
        self.register_buffer("strength", dense.gather(1, columns))
        self.register_buffer("w", (torch.rand(hidden, inputs) * 2 - 1) * (3 / inputs) ** 0.5)
        self.register_buffer("b", torch.rand(hidden) * 0.2 - 0.1)
        self._reservoir: Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_reservoir": None}  # a copy makes its own, of what its buffers are then

    def reservoir(self) -> Tensor:
        """The reservoir as a sparse matrix, which is made again when the buffers are on another device."""
        if self._reservoir is None or self._reservoir.device != self.columns.device:
            rows = torch.arange(self.hidden, device=self.columns.device).repeat_interleave(
                self.columns.shape[1]
            )
            index = torch.stack([rows, self.columns.flatten()])
            unchecked: Any = torch.sparse.check_sparse_tensor_invariants
            with unchecked(False):  # torch 2.11 warns where it is not told
                self._reservoir = torch.sparse_coo_tensor(
                    index, self.strength.flatten(), (self.hidden, self.hidden)
                ).coalesce()
        return self._reservoir

    def _advance(self, wx: Tensor, state: Tensor) -> Tensor:
        return torch.lerp(state, torch.tanh(wx + torch.sparse.mm(self.reservoir(), state.t()).t()), self.leak)

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        return self._advance(linear(x, self.w, self.b), state)

    def packed(self, x: Tensor, batch_sizes: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        # What is never learned has nothing to gain from bfloat16, in which there are no sparse products.
        with torch.autocast(x.device.type, enabled=False):
            return self._packed(x.float(), batch_sizes, state)

    def _packed(self, x: Tensor, batch_sizes: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        outputs, ended = [], []
        for wx in torch.split(linear(x, self.w, self.b), batch_sizes.tolist()):
            if len(wx) < len(state):
                ended.append(state[len(wx) :])
                state = state[: len(wx)]
            state = self._advance(wx, state)
            outputs.append(state)
        return torch.cat(outputs), torch.cat([state, *reversed(ended)])


class _LinearScan(torch.autograd.Function):
    """h_t = a_t ⊙ h_{t-1} + b_t over packed windows, both directions of it in place.

    Autograd through the loop would keep every step as a node of its graph: four times as slow.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, state: Tensor, sizes: list[int]) -> Tensor:
        """a[n,H], b[n,H], state[B,H] before the first step -> h[n,H]; no gradient goes to `state`."""
        h = torch.empty_like(b)
        before = state
        for a_t, b_t, h_t in zip(*(torch.split(part, sizes) for part in (a, b, h)), strict=True):
            before = torch.addcmul(b_t, a_t, before[: len(a_t)], out=h_t)
        ctx.save_for_backward(a, h, state)
        ctx.sizes = sizes
        return h

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        a, h, state = ctx.saved_tensors
        grad_b, grad_a = grad.clone(), torch.empty_like(a)
        per_step = [torch.split(part, ctx.sizes) for part in (a, h, grad_b, grad_a)]
        for t in reversed(range(len(ctx.sizes))):
            a_t, h_before, g_t = per_step[0][t], per_step[1][t - 1] if t else state, per_step[2][t]
            torch.mul(g_t, h_before[: len(g_t)], out=per_step[3][t])
            if t:
                per_step[2][t - 1][: len(g_t)].addcmul_(a_t, g_t)
        return grad_a, grad_b, None, None


class _Block(nn.Module):
    """One layer of MinGRU, H to H."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.gates = nn.Linear(hidden, 3 * hidden)
        self.mix = nn.Linear(hidden, hidden)
        self.forward_norm = nn.LayerNorm(hidden)
        self.widen = nn.Linear(hidden, 2 * hidden)
        self.narrow = nn.Linear(2 * hidden, hidden)
        with torch.no_grad():  # units begin with memories of 1 to 50 events: z from 0.73 to 0.02
            self.gates.bias[:hidden] = torch.linspace(-4, 1, hidden)

    def read(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x[n,H] -> z, candidate, output gate, [n,H] each."""
        z, candidate, gate = self.gates(self.norm(x)).chunk(3, dim=1)
        return torch.sigmoid(z), candidate, silu(gate)

    def write(self, x: Tensor, h: Tensor, gate: Tensor, dropout: nn.Dropout) -> Tensor:
        """The next layer's x[n,H]."""
        x = x + dropout(self.mix(h * gate))
        added: Tensor = dropout(self.narrow(gelu(self.widen(self.forward_norm(x)))))
        return x + added


class MinGRU(Cell):
    """Minimal gated unit (Feng et al., arXiv:2410.01201) in residual blocks as in Griffin (De et al.,
    arXiv:2402.19427). A layer does, with LN for layer normalisation,

    z, c, g = W LN(x) + b, h' = (1 - σ(z)) ⊙ h + σ(z) ⊙ c,
    x' = x + M (h' ⊙ silu(g)), x'' = x' + V gelu(U LN(x')).

    The gates do not look at h, so all products of a window are made at once and only an elementwise
    recurrence is left to walk through time.
    """

    def __init__(self, inputs: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__(hidden, layers)
        self.state_size = hidden * (layers + 1)
        self.enter = nn.Linear(inputs, hidden) if inputs != hidden else nn.Identity()
        self.blocks = nn.ModuleList(_Block(hidden) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)

    def block(self, layer: int) -> "_Block":
        """What a layer consists of beside its h."""
        return self.blocks[layer]  # type: ignore[return-value]

    def _layers(self, state: Tensor) -> Iterator[tuple[_Block, Tensor]]:
        """Each block with its h[B,H]."""
        return zip(self.blocks, torch.split(state, self.hidden, dim=1), strict=False)  # type: ignore[arg-type]

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        x, after = self.enter(x), []
        for block, h in self._layers(state):
            z, candidate, gate = block.read(x)
            after.append(torch.addcmul(z * candidate, 1 - z, h))
            x = block.write(x, after[-1], gate, self.dropout)
        return torch.cat([*after, self.norm(x)], dim=1)

    def packed(self, x: Tensor, batch_sizes: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        sizes = batch_sizes.tolist()
        x, after = self.enter(x), []
        for block, h in self._layers(state):
            z, candidate, gate = block.read(x)
            scanned = _LinearScan.apply(1 - z, z * candidate, h, sizes)
            x = block.write(x, scanned, gate, self.dropout)
            after.append(scanned)
        outputs = self.norm(x)
        steps = (batch_sizes[:, None] > torch.arange(len(state))).sum(dim=0) - 1  # each window's last
        last = (batch_sizes.cumsum(0) - batch_sizes)[steps] + torch.arange(len(state))
        return outputs, torch.cat([part[last.to(x.device)] for part in (*after, outputs)], dim=1)

    def output(self, state: Tensor) -> Tensor:
        return state[:, self.layers * self.hidden :]


def make_cell(config: ModelConfig) -> Cell:
    """The cell that `config` names, with inputs of the length of an item vector."""
    if config.cell == "esn":
        return EchoState(config.dim, config.hidden, config.spectral_radius, config.leak)
    if config.cell == "mingru":
        return MinGRU(config.dim, config.hidden, config.layers, config.dropout)
    cell_class: Callable[[int, int, int], Cell] = {"rnn": RNN, "lstm": LSTM, "gru": GRU}[config.cell]
    return cell_class(config.dim, config.hidden, config.layers)
