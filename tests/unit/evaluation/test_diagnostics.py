"""Diagnostics: gradients against finite differences, memory where it is known by construction, true
trajectories.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from eddy.models.config import CELLS, ModelConfig
from eddy.models.errors import EddyError
from eddy.models.evaluation.diagnostics import Trajectory, memory, trajectory, typical_user, with_gains
from eddy.models.logs.events import Events
from eddy.models.network.recommender import Recommender
from eddy.models.rules import EVERY_EVENT, EventRules
from eddy.models.tensors import Inputs
from eddy.models.training.gradients import (
    GradientReach,
    Windows,
    gradient_reach,
    gradient_warning,
    gradients,
    windows,
)
from eddy.models.training.sequences import Sequences, sequences
from eddy.models.vocabulary import Vocabulary

SMALL = ModelConfig(hidden=6, dim=5, item_buckets=2, dropout=0.5)
ITEMS, STEPS, USERS = 12, 5, 7


def log(lengths: list[int]) -> Events:
    """Users with so many events each, at random times, of random items."""
    rng = np.random.default_rng(0)
    user = rng.permutation(np.repeat(np.arange(len(lengths)), lengths)).astype(np.int32)
    return Events(
        user=user,
        item=rng.integers(0, ITEMS, len(user)).astype(np.int32),
        timestamp=np.sort(rng.integers(0, 10**9, len(user))),
        type=np.zeros(len(user), np.int16),
        value=np.full(len(user), np.nan, np.float32),
        users=[f"u{n}" for n in range(len(lengths))],
        items=[f"i{n}" for n in range(ITEMS)],
        types=["view"],
    )


def vocabulary(events: Events) -> Vocabulary:
    return Vocabulary(events.items, events.types, SMALL.item_buckets)


def in_sequences(events: Events) -> Sequences:
    return sequences(events, vocabulary(events), EVERY_EVENT)


def recommender(cell: str = "rnn") -> Recommender:
    torch.manual_seed(0)
    model = Recommender(replace(SMALL, cell=cell), ITEMS, 1)
    with torch.no_grad():
        model.item_vectors.mul_(20)
    return model.eval()


def some_windows(steps: int = STEPS) -> Windows:
    events = log([10] * USERS)
    return windows(in_sequences(events), steps, USERS)


def loss_from(model: Recommender, sample: Windows, state: torch.Tensor, step: int) -> torch.Tensor:
    """Losses [B] at the target when the state after `step` events is this one."""
    x = model.inputs(sample.inputs)
    for t in range(step, x.shape[1]):
        state = model.cell.step(x[:, t], state)
    vector = model.user_vector(model.cell.output(state), sample.idle_ms)
    scores = vector @ model.item_vectors[:ITEMS].T + model.item_bias
    return torch.nn.functional.cross_entropy(scores, sample.target, reduction="none")


@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_gradient_norms_are_those_of_finite_differences(cell: str) -> None:
    model, sample = recommender(cell).double(), some_windows()
    with torch.enable_grad():
        reach = gradient_reach(model, sample)
    for lag in range(STEPS):
        state = model.initial(USERS).double()
        for t in range(STEPS - lag):
            state = model.cell.step(model.inputs(sample.inputs)[:, t], state)
        slopes = []
        for unit in range(model.state_size):
            nudge = torch.zeros(model.state_size, dtype=torch.float64)
            nudge[unit] = 1e-6
            up, down = (loss_from(model, sample, state + sign * nudge, STEPS - lag) for sign in (1, -1))
            slopes.append((up - down) / 2e-6)
        norm = torch.stack(slopes).norm(dim=0)
        assert reach.norm[lag, 1] == pytest.approx(float(norm.quantile(0.5)), rel=1e-4)
        assert reach.mean[lag] == pytest.approx(float(norm.square().mean().sqrt()), rel=1e-4)


def test_without_recurrent_weights_nothing_reaches_back() -> None:
    cut = with_gains(recommender("rnn"), recurrent=0.0)
    assert (gradient_reach(cut, some_windows()).mean[1:] == 0).all()
    assert (memory(cut, some_windows(), top=3)[1:] == 0).all()


def test_the_latest_event_changes_the_top_of_the_list() -> None:
    assert memory(recommender("gru"), some_windows(), top=3)[0] > 0


def test_larger_recurrent_weights_carry_the_gradient_further() -> None:
    small, large = (
        gradient_reach(with_gains(recommender("rnn"), gain), some_windows()) for gain in (0.5, 1.5)
    )
    assert small.mean[-1] < large.mean[-1]


@pytest.mark.parametrize("cell", ["rnn", "esn"])
def test_gains_hold_whether_or_not_the_original_has_been_used(cell: str) -> None:
    unused, used = recommender(cell), recommender(cell)
    memory(used, some_windows(), top=3)
    x, state = torch.randn(3, SMALL.dim), torch.randn(3, unused.state_size)
    after = [with_gains(model, recurrent=3.0).cell.step(x, state) for model in (unused, used)]
    assert torch.equal(*after)
    assert not torch.allclose(after[0], unused.cell.step(x, state), atol=1e-3)


def test_gains_leave_the_original_alone() -> None:
    model = recommender("gru")
    before = [weight.clone() for weight in model.cell.parameters()]
    with_gains(model, recurrent=0.0, inputs=0.0)
    assert all(torch.equal(*pair) for pair in zip(before, model.cell.parameters(), strict=True))


def test_the_horizon_is_where_the_median_gradient_falls_to_a_hundredth() -> None:
    def horizon(median: list[float]) -> int:
        norm = np.repeat(np.array(median)[:, None], 3, axis=1)
        return GradientReach(norm, norm[:, 1], total=1.0).horizon()

    assert horizon([1.0, 0.5, 0.009, 0.001]) == 2
    assert horizon([1.0, 0.9, 0.8]) == 3


def test_clipping_scales_only_what_is_too_large() -> None:
    norm = np.ones((1, 3))
    assert GradientReach(norm, norm[:, 1], total=4.0).clipped(1.0) == 0.25
    assert GradientReach(norm, norm[:, 1], total=0.5).clipped(1.0) == 1.0


@pytest.mark.parametrize(
    ("decay", "total", "expected"),
    [
        (0.9, 1.0, None),
        (0.3, 1.0, "gradients vanish: 1 % is left after 4 of 30 events"),
        (1.2, 1.0, "gradients explode"),
        (0.9, 50.0, "gradients explode: norm 50 where clip is 1"),
    ],
)
def test_vanishing_and_exploding_gradients_are_named_with_what_to_change(
    decay: float, total: float, expected: str | None
) -> None:
    median = np.full(30, decay).cumprod()
    warning = gradient_warning(GradientReach(np.repeat(median[:, None], 3, axis=1), median, total), clip=1.0)
    assert (warning is None) if expected is None else (warning is not None and warning.startswith(expected))


def test_a_log_is_measured_over_windows_that_its_users_have() -> None:
    events = log([40] * 40 + [3])
    measured = gradients(recommender("gru"), in_sequences(events), bptt_steps=12, clip=1.0)
    assert measured["window"] == 12
    assert 1 <= measured["horizon"] <= 12
    cut = with_gains(recommender("rnn"), recurrent=0.0)
    longer = gradients(cut, in_sequences(events), bptt_steps=64, clip=100.0)
    assert longer["window"] == 39
    assert "gradients vanish" in longer["warning"]


def test_a_log_of_short_histories_is_not_measured() -> None:
    events = log([4] * 50)
    assert gradients(recommender("gru"), in_sequences(events), 32, 1.0) == {}


def test_windows_hold_each_users_last_events_before_a_target() -> None:
    events = log([3, 8, 4])
    sample = windows(in_sequences(events), 3, users=10)
    ends = {tuple(events.item[events.user == user][-4:].tolist()) for user in (1, 2)}
    assert {
        (*row.tolist(), int(target)) for row, target in zip(sample.inputs.item, sample.target, strict=True)
    } == ends


def test_windows_longer_than_any_history_are_refused() -> None:
    events = log([4] * 5)
    with pytest.raises(EddyError, match="no user has 9 events"):
        windows(in_sequences(events), 9, users=10)


def test_a_trajectory_is_the_state_after_each_event_of_the_user() -> None:
    events, model = log([4, 6, 2]), recommender("gru")
    path = trajectory(model, vocabulary(events), events, EVERY_EVENT, "u1")
    rows = np.flatnonzero(events.user == 1)
    assert path.items == [events.items[item] for item in events.item[rows]]
    state = model.initial(1)
    for step, row in enumerate(rows):
        gap = events.timestamp[row] - events.timestamp[rows[step - 1]] if step else -1
        event = (torch.tensor([int(number)]) for number in (events.item[row], 0, 0, gap))
        item, type_, _, gap_ms = event
        state = model.step(Inputs(item, type_, torch.tensor([False]), gap_ms), state)
        assert path.hidden[step] == pytest.approx(model.cell.output(state)[0].detach().numpy(), abs=1e-5)


def test_moves_are_distances_between_states_from_zero_on() -> None:
    hidden = np.array([[3.0, 4.0], [3.0, 4.0], [3.0, 5.0]], np.float32)
    assert Trajectory("u", ["a"] * 3, np.zeros(3, np.int64), hidden).move.tolist() == [5.0, 0.0, 1.0]


def test_the_latest_part_of_a_trajectory_moves_as_the_whole() -> None:
    events = log([9, 2])
    path = trajectory(recommender("gru"), vocabulary(events), events, EVERY_EVENT, "u0")
    latest = path.latest(4)
    assert latest.items == path.items[-4:]
    assert latest.timestamp.tolist() == path.timestamp[-4:].tolist()
    assert latest.move.tolist() == path.move[-4:].tolist()
    assert path.latest(9) is path


def test_a_trajectory_of_an_unknown_user_is_refused() -> None:
    events = log([3])
    with pytest.raises(EddyError, match="no user 'nobody'"):
        trajectory(recommender(), vocabulary(events), events, EVERY_EVENT, "nobody")


def test_the_typical_user_has_about_so_many_events() -> None:
    assert typical_user(log([3, 9, 20]), EVERY_EVENT, 10) == "u1"


def test_the_typical_user_has_a_state_to_show() -> None:
    """Someone with other events only is nearer to 36 events than users with a hundred."""
    events = log([4, 100])
    bought = replace(events, types=["view", "buy"], type=(events.user == 0).astype(np.int32))
    rules = EventRules(state="view")
    assert typical_user(bought, rules, 36) == "u1"
    with pytest.raises(EddyError, match="no event of user 'u0' moves a state"):
        trajectory(recommender(), vocabulary(bought), bought, rules, "u0")
