"""The echo-state network's readout in closed form."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from eddy.models.config import ModelConfig, TrainConfig
from eddy.models.errors import EddyError
from eddy.models.network.recommender import Recommender
from eddy.models.rules import EVERY_EVENT, EventRules
from eddy.models.training.objective import Objective
from eddy.models.training.ridge import NormalEquations, fit_scale
from eddy.models.training.sequences import sequences
from eddy.models.training.train import train, vocabulary_of
from eddy.models.training.trainer import Trainer
from tests.support.training import FAST, SMALL, log

pytestmark = pytest.mark.unit

ECHO = replace(SMALL, cell="esn", hidden=32, dim=24)
RIDGE = replace(FAST, ridge=1e-3)


def walks(users: int = 60, length: int = 20, items: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Users who go round the items, each from a place of their own: the last item tells the next."""
    start = np.random.default_rng(3).integers(items, size=users)
    step, user = (part.ravel() for part in np.mgrid[:length, :users])
    return user, (start[user] + step) % items


def test_the_readout_is_the_least_squares_solution_whatever_the_chunks() -> None:
    """Ridge regression is least squares with one more row per weight: solved here by another method."""
    torch.manual_seed(1)
    h, y, strength = torch.randn(300, 7), torch.randn(300, 5), 0.03
    equations = NormalEquations(7, 5)
    for rows in torch.split(torch.arange(300), 77):
        equations.add_chunk(h[rows], y[rows])
    weight, bias = equations.solve(strength)
    x = torch.cat([h, torch.ones(300, 1)], dim=1).double()
    penalty = (strength * 300) ** 0.5 * torch.eye(8, dtype=torch.float64)[:7]
    padded = torch.cat([y.double(), torch.zeros(7, 5, dtype=torch.float64)])
    expected = torch.linalg.lstsq(torch.cat([x, penalty]), padded).solution.T.float()
    torch.testing.assert_close(torch.cat([weight, bias[:, None]], dim=1), expected, atol=1e-5, rtol=1e-5)


def test_the_scale_with_the_least_loss_is_kept() -> None:
    recommender = Recommender(ECHO, 9, 1)
    size = recommender.project.weight.detach().norm()
    tried = fit_scale(recommender, lambda: float((recommender.project.weight.norm() / size - 3.1).abs()))
    assert tried[-1]["scale"] == 4.0
    torch.testing.assert_close(recommender.project.weight.norm() / size, torch.tensor(4.0))


def test_a_readout_in_closed_form_is_better_than_none_and_learns_what_follows() -> None:
    events = log(*walks())
    vocabulary, _ = vocabulary_of(events, ECHO, EVERY_EVENT)
    torch.manual_seed(1)
    data = sequences(events, vocabulary, EVERY_EVENT)
    trainer = Trainer(Objective(Recommender(ECHO, len(vocabulary), 1), data, RIDGE), lambda _: None)
    held_out = range(900, len(events))
    untrained = trainer.loss(held_out)
    metrics = trainer.fit_ridge(900)
    assert metrics["curve"][-1]["validation_loss"] == pytest.approx(trainer.loss(held_out))
    assert trainer.loss(held_out) < 0.5 * np.log(12) < untrained


def test_training_takes_the_closed_form_on_request_and_leaves_the_rest_as_it_was_drawn() -> None:
    events = log(*walks())
    torch.manual_seed(RIDGE.seed)
    drawn = Recommender(ECHO, 12, 1).state_dict()
    trained = train(events, ECHO, RIDGE, EVERY_EVENT).recommender.state_dict()
    for name in ("item_vectors", "type_vectors", "cell.w", "cell.strength"):
        torch.testing.assert_close(trained[name], drawn[name], atol=0, rtol=0)
    assert not torch.equal(trained["project.weight"], drawn["project.weight"])


def test_a_ridge_that_is_too_small_for_the_units_is_refused_in_a_line() -> None:
    with pytest.raises(EddyError, match=r"ridge=1e-30 is too small for .* 500 units .* give a larger ridge"):
        train(log(*walks(users=3)), replace(ECHO, hidden=500), replace(RIDGE, ridge=1e-30), EVERY_EVENT)


def test_where_all_targets_are_held_out_the_readout_is_that_of_the_whole_log() -> None:
    events = log(*walks())
    bought = replace(events, types=["view", "buy"], type=(np.arange(len(events)) >= 1150).astype(np.int32))
    trained = train(bought, ECHO, RIDGE, EventRules(target="buy"))
    assert np.isfinite(trained.metrics["curve"][-1]["validation_loss"])
    assert trained.recommender.project.weight.any()


def test_only_an_echo_state_network_has_such_a_readout() -> None:
    with pytest.raises(EddyError, match="esn"):
        train(log(*walks()), ModelConfig(hidden=8, dim=8), TrainConfig(ridge=1.0), EVERY_EVENT)
