"""The contract of every cell: one state per user, two forms that agree."""

import pytest
import torch

from eddy.models.config import CELLS, ModelConfig
from eddy.models.network.cells import Cell, EchoState, make_cell
from eddy.models.network.recommender import Recommender
from eddy.models.tensors import Inputs

pytestmark = pytest.mark.unit

SHAPES = [(name, layers) for name in CELLS for layers in (1, 2) if not (name == "esn" and layers > 1)]


@pytest.fixture(params=SHAPES, ids=lambda shape: f"{shape[0]}-{shape[1]}")
def cell(request: pytest.FixtureRequest) -> Cell:
    name, layers = request.param
    torch.manual_seed(3)
    return make_cell(ModelConfig(cell=name, layers=layers, hidden=24, dim=12)).eval()


def windows(cell: Cell, lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(5)
    return (
        torch.randn(len(lengths), max(lengths), 12),
        torch.randn(len(lengths), cell.state_size),
        torch.tensor(lengths),
    )


@torch.no_grad()
def test_stepping_equals_the_sequence_with_mixed_lengths(cell: Cell) -> None:
    x, start, lengths = windows(cell, [5, 1, 9, 3, 9])
    outputs, end = cell.sequence(x, start, lengths)
    for row, length in enumerate(lengths.tolist()):
        state = start[row : row + 1]
        for t in range(length):
            state = cell.step(x[row : row + 1, t], state)
            torch.testing.assert_close(outputs[row, t], cell.output(state)[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(end[row], state[0], atol=1e-5, rtol=1e-5)
        assert not outputs[row, length:].any()


def test_without_gradients_a_sequence_gives_what_it_gives_with_them(cell: Cell) -> None:
    x, start, lengths = windows(cell, [9, 2, 5, 5, 1, 7, 4, 9, 3])  # waves of many users, and of few
    outputs, end = cell.sequence(x.clone().requires_grad_(), start, lengths)
    assert outputs.requires_grad
    with torch.inference_mode():
        again, last = cell.sequence(x, start, lengths)
    torch.testing.assert_close(again, outputs, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(last, end, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_a_window_cut_in_two_ends_in_the_same_state(cell: Cell) -> None:
    x, start, _ = windows(cell, [8, 8, 8])
    eight, three = torch.tensor([8, 8, 8]), torch.tensor([3, 3, 3])
    _, whole = cell.sequence(x, start, eight)
    _, middle = cell.sequence(x[:, :3], start, three)
    _, end = cell.sequence(x[:, 3:], middle, eight - three)
    torch.testing.assert_close(end, whole, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_batch_equals_its_rows_one_by_one(cell: Cell) -> None:
    x, start, _ = windows(cell, [1] * 7)
    together = cell.step(x[:, 0], start)
    alone = torch.cat([cell.step(x[i : i + 1, 0], start[i : i + 1]) for i in range(7)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_the_state_depends_on_the_order_of_events(cell: Cell) -> None:
    x, start, lengths = windows(cell, [6])
    _, forwards = cell.sequence(x, start, lengths)
    _, backwards = cell.sequence(x.flip(1), start, lengths)
    assert (forwards - backwards).abs().max() > 1e-3


@pytest.mark.parametrize("time_gaps", [True, False])
def test_what_the_cell_reads_is_the_same_with_and_without_gradients(time_gaps: bool) -> None:
    torch.manual_seed(6)
    recommender = Recommender(ModelConfig(hidden=8, dim=8, item_buckets=4, time_gaps=time_gaps), 20, 3)
    with torch.no_grad():
        for vectors in (recommender.gap_vectors, recommender.negative_vector):
            vectors.copy_(torch.randn_like(vectors))
    gap_ms = torch.tensor([-1, 0, 999, 1_000, 2_999, 3_000, 10**7, 10**12, 2**50])
    events = Inputs(torch.arange(9) * 2, torch.arange(9) % 4, torch.arange(9) % 2 == 0, gap_ms)
    with_them = recommender.inputs(events)
    assert with_them.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(recommender.inputs(events), with_them, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_a_reservoir_stays_float32_in_mixed_precision() -> None:
    cell = make_cell(ModelConfig(cell="esn", hidden=24, dim=12))
    x, start, lengths = windows(cell, [5, 1, 9])
    expected, _ = cell.sequence(x, start, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(cell.sequence(x, start, lengths)[0], expected, atol=0, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@torch.no_grad()
def test_cpu_equals_gpu(cell: Cell) -> None:
    x, start, lengths = windows(cell, [5, 1, 9])
    outputs, end = cell.sequence(x, start, lengths)
    gpu_outputs, gpu_end = cell.cuda().sequence(x.cuda(), start.cuda(), lengths)
    torch.testing.assert_close(gpu_outputs.cpu(), outputs, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(gpu_end.cpu(), end, atol=1e-4, rtol=1e-4)


def test_gradients_reach_the_first_event_of_a_window() -> None:
    for name in ("rnn", "gru", "lstm"):
        cell = make_cell(ModelConfig(cell=name, hidden=24, dim=12))
        x, start, lengths = windows(cell, [6])
        x.requires_grad_()
        torch.autograd.backward(cell.sequence(x, start, lengths)[1].sum())
        assert x.grad is not None
        assert x.grad[0, 0].abs().max() > 0


def test_a_reservoir_is_sparse_has_its_spectral_radius_and_learns_nothing() -> None:
    torch.manual_seed(1)
    cell = EchoState(8, 50, spectral_radius=0.9, leak=0.5)
    reservoir = cell.reservoir().to_dense()
    assert torch.linalg.eigvals(reservoir.double()).abs().max().item() == pytest.approx(0.9, rel=1e-4)
    assert (reservoir != 0).sum(dim=1).max() <= EchoState.fan_in
    assert not list(cell.parameters())


@torch.no_grad()
def test_a_reservoir_below_radius_one_forgets_where_it_started() -> None:
    torch.manual_seed(1)
    cell = EchoState(8, 50, spectral_radius=0.8, leak=0.7)
    x = torch.randn(1, 200, 8)
    ends = [
        cell.sequence(x, start, torch.tensor([200]))[1] for start in (torch.zeros(1, 50), torch.randn(1, 50))
    ]
    torch.testing.assert_close(*ends, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", CELLS)
def test_the_recommender_steps_as_it_was_trained(name: str) -> None:
    torch.manual_seed(2)
    recommender = Recommender(ModelConfig(cell=name, hidden=16, dim=8), items=20, types=2).eval()
    inputs = Inputs(
        torch.randint(20, (3, 5)),
        torch.randint(3, (3, 5)),
        torch.rand(3, 5) < 0.3,
        torch.randint(-1, 10**9, (3, 5)),
    )
    _, end = recommender.sequence(inputs, recommender.initial(3), torch.tensor([5, 5, 5]))
    state = recommender.initial(3)
    for t in range(5):
        state = recommender.step(Inputs(*(part[:, t] for part in inputs)), state)
    torch.testing.assert_close(state, end, atol=1e-5, rtol=1e-5)
