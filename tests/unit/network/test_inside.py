"""What is seen inside the cells is what the cells do."""

from __future__ import annotations

import math

import pytest
import torch

from eddy.models.config import CELLS, ModelConfig
from eddy.models.network.cells import RNN, Cell, EchoState, make_cell
from eddy.models.network.inside import MAX_HORIZON, gradient_flow, look_inside, spectral_radius

HIDDEN, DIM, STEPS = 8, 6, 8


def cell_of(name: str, layers: int = 1, **settings: float) -> Cell:
    torch.manual_seed(3)
    return make_cell(ModelConfig(cell=name, hidden=HIDDEN, dim=DIM, layers=layers, **settings)).eval()  # type: ignore[arg-type]


def window(users: int = 1) -> torch.Tensor:
    return torch.randn(users, STEPS, DIM, generator=torch.Generator().manual_seed(1))


def with_layers() -> list[tuple[str, int]]:
    return [(name, layers) for name in CELLS for layers in (1, 2) if (name, layers) != ("esn", 2)]


@pytest.mark.parametrize(("name", "layers"), with_layers())
def test_the_states_that_are_seen_are_those_that_the_cell_steps_through(name: str, layers: int) -> None:
    cell, x = cell_of(name, layers), window()
    state = torch.randn(1, cell.state_size) * 0.1
    seen = look_inside(cell, x[0], state[0])
    last = slice((layers - 1) * HIDDEN, layers * HIDDEN)
    for step in range(STEPS + 1):
        assert torch.allclose(seen.states[step], state[0, last], atol=1e-5)
        if step < STEPS:
            with torch.no_grad():
                state = cell.step(x[:, step], state)
    assert all(gate.shape == (STEPS, HIDDEN) for gate in (*seen.gates.values(), seen.kept, seen.overwritten))


def test_cells_name_their_own_gates() -> None:
    x, gates = window()[0], {}
    for name in CELLS:
        cell = cell_of(name)
        gates[name] = sorted(look_inside(cell, x, torch.zeros(cell.state_size)).gates)
    assert gates == {
        "rnn": [], "gru": ["reset", "update"], "lstm": ["forget", "input", "output"], "mingru": ["update"],
        "esn": [],
    }  # fmt: skip


@pytest.mark.parametrize("name", CELLS)
def test_of_a_window_without_events_the_state_alone_is_seen(name: str) -> None:
    cell = cell_of(name)
    seen = look_inside(cell, window()[0, :0], torch.ones(cell.state_size))
    assert seen.states.tolist() == [[1.0] * HIDDEN]
    assert seen.horizon.shape == (HIDDEN,)


def test_the_horizon_of_units_that_keep_a_share_is_its_half_life() -> None:
    cell = cell_of("gru")
    with torch.no_grad():
        for weight in cell.parameters():
            weight.zero_()
        kept = torch.linspace(0.1, 0.99, HIDDEN)
        cell.get_parameter("kernel.bias_ih_l0")[HIDDEN : 2 * HIDDEN] = torch.logit(kept)
    seen = look_inside(cell, window()[0], torch.zeros(HIDDEN))
    assert torch.allclose(seen.horizon, math.log(0.5) / kept.log(), rtol=1e-4)


@pytest.mark.parametrize("factor", [0.3, 0.8, 0.98, 1.2])
def test_the_horizon_without_gates_is_where_the_derivative_has_halved(factor: float) -> None:
    cell = cell_of("rnn")
    assert isinstance(cell, RNN)
    with torch.no_grad():
        for weight in cell.parameters():
            weight.zero_()
        cell.weights(0)[1].copy_(factor * torch.eye(HIDDEN))
    seen = look_inside(cell, window()[0], torch.zeros(HIDDEN))
    expected = min(math.log(0.5) / math.log(factor), MAX_HORIZON) if factor < 1 else MAX_HORIZON
    assert torch.allclose(seen.horizon, torch.full((HIDDEN,), expected), rtol=1e-3)


@pytest.mark.parametrize("name", CELLS)
def test_the_gradient_flow_is_that_of_the_whole_jacobian(name: str) -> None:
    cell, x, users = cell_of(name), window(3), 3
    lengths = torch.tensor([STEPS, 4, 7])
    state = torch.zeros(users, cell.state_size)
    flow = gradient_flow(cell, x, state, lengths, probes=100)
    for lag in (1, 2, 5):
        ratios = []
        for user in range(users):
            length = int(lengths[user])
            if lag > length:
                continue
            before = state[user]
            with torch.no_grad():
                for step in range(length - lag):
                    before = cell.step(x[user, step][None], before[None])[0]

            def end(at: torch.Tensor, user: int = user, length: int = length, lag: int = lag) -> torch.Tensor:
                for step in range(length - lag, length):
                    at = cell.step(x[user, step][None], at[None])[0]
                return cell.output(at[None])[0]

            jacobian = torch.autograd.functional.jacobian(end, before)  # type: ignore[no-untyped-call]
            ratios.append(float(jacobian.norm()) / math.sqrt(HIDDEN))
        assert float(flow[lag - 1]) == pytest.approx(sum(ratios) / len(ratios), rel=0.25)


def test_the_spectral_radius_of_a_reservoir_is_the_one_that_was_set() -> None:
    cell = cell_of("esn", spectral_radius=0.7)
    assert isinstance(cell, EchoState)
    assert spectral_radius(cell) == pytest.approx(0.7, rel=1e-4)
    assert spectral_radius(cell_of("gru")) is None
