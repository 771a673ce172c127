"""The softmax losses: which items count, and how near to the exact ones the cheaper ones come."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from eddy.models.network.recommender import Recommender
from eddy.models.rules import EVERY_EVENT
from eddy.models.training.losses import LeftOut, full_softmax, sampled_softmax
from eddy.models.training.objective import Objective
from eddy.models.training.sequences import outputs_at, sequences
from eddy.models.training.train import vocabulary_of
from eddy.models.training.trainer import Trainer
from tests.support.training import FAST, SMALL, random_log

pytestmark = pytest.mark.unit


def test_the_full_softmax_is_cross_entropy_with_its_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eddy.models.training.losses.TILE_FLOATS", 700)
    torch.manual_seed(1)
    parts = [torch.randn(30, 8), torch.randn(200, 8), torch.randn(200)]
    prior, moment, target = torch.randn(5, 200), torch.randint(5, (30,)), torch.randint(200, (30,))
    for used in (None, prior):
        query, items, bias = (part.clone().requires_grad_() for part in parts)
        logits = query @ items.T + bias + (0 if used is None else used[moment])
        expected = cross_entropy(logits, target, reduction="sum")
        loss = full_softmax(query, items, bias, target, used, moment)
        torch.testing.assert_close(loss, expected)
        wanted = torch.autograd.grad(expected, (query, items, bias))
        for gradient, want in zip(torch.autograd.grad(loss, (query, items, bias)), wanted, strict=True):
            torch.testing.assert_close(gradient, want, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_what_a_user_already_had_is_left_out_of_the_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss that trains is cross entropy over what is new to the user and the target, repeated or not."""
    monkeypatch.setattr("eddy.models.training.losses.TILE_FLOATS", 100)
    events = random_log()
    vocabulary, _ = vocabulary_of(events, SMALL, EVERY_EVENT)
    data = sequences(events, vocabulary, EVERY_EVENT)
    recommender = Recommender(SMALL, len(vocabulary), 1)
    trainer = Trainer(Objective(recommender, data, replace(FAST, unseen=True)), lambda _: None)
    wanted = range(len(events))
    outputs, predictions = outputs_at(recommender.eval(), data, wanted)
    query = recommender.user_vector(outputs, data.idle_ms)
    logits = query @ recommender.item_vectors[: len(vocabulary)].T
    expected, repeats = 0.0, 0
    states, users = data.state_of(predictions), data.user_of(predictions)
    for p, (state, user) in enumerate(zip(states, users, strict=True)):
        target = int(data.target[p])
        own_items = set(data.inputs.item[data.start[user] : state + 1].tolist()) if state >= 0 else set[int]()
        repeats += target in own_items
        allowed = [item for item in range(len(vocabulary)) if item == target or item not in own_items]
        expected -= float(torch.log_softmax(logits[p, allowed], 0)[allowed.index(target)])
    assert repeats > 10
    assert trainer.loss(wanted) == pytest.approx(expected / len(wanted), rel=1e-4)


def test_the_sampled_softmax_leaves_out_what_the_full_one_does() -> None:
    torch.manual_seed(3)
    query, items, bias = torch.randn(5, 8), torch.randn(40, 8), torch.randn(40)
    target, moment = torch.tensor([1, 2, 3, 2, 1]), torch.zeros(5, dtype=torch.int64)
    left_out = LeftOut(torch.tensor([0, 2, 2, 5, 6, 6]), torch.tensor([7, 9, 30, 4, 5, 39]))
    full = full_softmax(query, items, bias, target, None, moment, left_out)
    assert full < full_softmax(query, items, bias, target, None, moment)
    every, certain = torch.arange(40), torch.ones(40)
    sampled = sampled_softmax(query, items, bias, target, None, moment, every, certain, left_out)
    torch.testing.assert_close(sampled, full)
    few = sampled_softmax(
        query, items, bias, target, None, moment, torch.tensor([30, 30, 8]), certain, left_out
    )
    kept = [1, 2, 3, 8, 30]
    for_all = query @ items[kept].T + bias[kept]
    for_all[2, 4] = -torch.inf  # the only candidate that is left out, by the third prediction
    torch.testing.assert_close(few, cross_entropy(for_all, target - 1, reduction="sum"))


def test_the_sampled_softmax_estimates_the_full_one() -> None:
    """log Z over candidates, weighed by 1 / (probability to be one), is log Z within its error."""
    torch.manual_seed(2)
    query, items, bias = torch.randn(20, 8) * 0.3, torch.randn(3000, 8) * 0.5, torch.randn(3000) * 0.5
    target = torch.multinomial(torch.softmax(bias, 0), 20, replacement=True)
    share = torch.softmax(bias * 0.5, 0)
    inclusion = 1 - (1 - share) ** 1000
    inclusion[target] = 1.0  # these are candidates for certain
    nothing = torch.zeros(20, dtype=torch.int64)
    full = full_softmax(query, items, bias, target, None, nothing) / 20
    sampled = torch.stack(
        [
            sampled_softmax(
                query,
                items,
                bias,
                target,
                None,
                nothing,
                torch.multinomial(share, 1000, replacement=True),
                inclusion,
            )
            / 20
            for _ in range(30)
        ]
    )
    assert abs(sampled.mean() - full) < 0.03
    naive = full_softmax(query, items[:1000], bias[:1000], target % 1000, None, nothing) / 20
    assert abs(naive - full) > 0.3  # the correction is not a formality


def test_a_bfloat16_query_makes_the_softmax_and_its_gradients_within_its_rounding() -> None:
    torch.manual_seed(1)
    parts = [torch.randn(60, 16), torch.randn(200, 16) / 4, torch.randn(200)]
    target, moment = torch.randint(200, (60,)), torch.zeros(60, dtype=torch.int64)
    results = []
    for kind in (torch.float32, torch.bfloat16):
        query, items, bias = (part.clone().requires_grad_() for part in parts)
        loss = full_softmax(query.to(kind), items, bias, target, None, moment)
        results.append([loss, *torch.autograd.grad(loss, (query, items, bias))])
    for low, full in zip(*reversed(results), strict=True):
        assert low.dtype == torch.float32
        assert 0 < (low - full).norm() < 0.01 * full.norm()
