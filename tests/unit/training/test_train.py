"""Training by truncated backpropagation through time: what it sees, what it learns, what stops it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from eddy.models.config import CELLS, ModelConfig, TrainConfig
from eddy.models.errors import EddyError, UnfitModel
from eddy.models.hashing import item_hashes
from eddy.models.logs.events import Events
from eddy.models.network.recommender import Recommender
from eddy.models.rules import EVERY_EVENT, EventRules
from eddy.models.tensors import Inputs
from eddy.models.training.distributed import ALONE
from eddy.models.training.gate_fitting import collect
from eddy.models.training.gate_log import gate_log
from eddy.models.training.group_log import GroupLog
from eddy.models.training.objective import Objective
from eddy.models.training.sequences import Batch, Sequences, batches, carried, outputs_at, sequences
from eddy.models.training.train import _held_out, train, vocabulary_of
from eddy.models.training.trainer import Progress, Trainer
from tests.support.training import FAST, SMALL, log, random_log, same

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("rules", [EVERY_EVENT, EventRules(), EventRules(state="rating>=3", negative="")])
def test_every_target_is_predicted_once_from_exactly_the_events_before_it(rules: EventRules) -> None:
    events = random_log()
    vocabulary, _ = vocabulary_of(events, SMALL, rules)
    data = sequences(events, vocabulary, rules)
    recommender = Recommender(SMALL, len(vocabulary), 1).eval()
    flags = events.flags(rules)
    outputs, predictions = outputs_at(recommender, data, range(len(events)))
    assert predictions.tolist() == list(range(len(data.row)))
    assert sorted(data.row.tolist()) == np.flatnonzero(flags.target).tolist()
    with torch.no_grad():
        for p in range(0, len(data.row), 7):
            row = data.row[p]
            earlier = np.flatnonzero((events.user[:row] == events.user[row]) & flags.moves[:row])
            state, before = recommender.initial(1), None
            for e in earlier:
                gap = -1 if before is None else int(events.timestamp[e] - events.timestamp[before])
                state = recommender.step(
                    Inputs(
                        torch.from_numpy(vocabulary.input_index(item_hashes([events.items[events.item[e]]]))),
                        torch.tensor([0]), torch.from_numpy(flags.negative[e : e + 1]), torch.tensor([gap]),
                    ),
                    state,
                )  # fmt: skip
                before = e
            torch.testing.assert_close(outputs[p], recommender.cell.output(state)[0], atol=1e-5, rtol=1e-5)
            idle = -1 if before is None else int(events.timestamp[row] - events.timestamp[before])
            assert data.idle_ms[p] == idle


def random_walk() -> tuple[Recommender, Sequences, range, torch.Tensor, NDArray[np.int64]]:
    """A recommender and a log, all of whose rows are wanted, the outputs, and the users in any order."""
    events = random_log()
    vocabulary, _ = vocabulary_of(events, SMALL, EVERY_EVENT)
    data = sequences(events, vocabulary, EVERY_EVENT)
    recommender = Recommender(SMALL, len(vocabulary), 1).eval()
    wanted = range(len(events))
    expected, _ = outputs_at(recommender, data, wanted)
    return recommender, data, wanted, expected, np.random.default_rng(0).permutation(len(data.start) - 1)


@pytest.mark.parametrize("window", [1, 3, 50])
def test_states_are_carried_whole_across_truncated_windows(window: int) -> None:
    recommender, data, wanted, expected, users = random_walk()
    found = torch.full_like(expected, torch.nan)
    state = recommender.initial(1)
    with torch.no_grad():
        for batch in batches(data, wanted, users, window, events=40):
            outputs, state = recommender.packed(
                data.inputs_at(batch.event), batch.batch_sizes, carried(state, batch)
            )
            start = recommender.cell.output(recommender.initial(1))
            assert torch.isnan(found[batch.prediction]).all()
            found[batch.prediction] = torch.cat([start, outputs])[batch.output]
            assert len(batch.batch_sizes) <= window
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_processes_that_have_users_of_their_own_walk_along_the_same_batches() -> None:
    events = random_log()
    vocabulary, _ = vocabulary_of(events, SMALL, EVERY_EVENT)
    recommender = Recommender(SMALL, len(vocabulary), 1).eval()
    data = sequences(events, vocabulary, EVERY_EVENT)
    expected, _ = outputs_at(recommender, data, range(len(events)))
    of_row = dict(zip(data.row.tolist(), expected, strict=True))
    users = np.random.default_rng(0).permutation(len(data.start) - 1)
    lengths: list[NDArray[np.int64]] = []

    def noted(of_own: NDArray[np.int64]) -> NDArray[np.int64]:
        lengths.append(of_own)
        return of_own

    def rows(data: Sequences, batch: Batch, row: NDArray[np.int64]) -> list[int]:
        return sorted(row[data.row[batch.prediction.numpy()]].tolist())

    every = np.arange(len(events))
    whole = [rows(data, batch, every) for batch in batches(data, range(len(events)), users, 5, 40, noted)]
    shared: list[list[int]] = [[] for _ in whole]
    for share in range(3):
        row = np.flatnonzero(events.user % 3 == share)
        own = sequences(events.take(row), vocabulary, EVERY_EVENT)
        objective = Objective(recommender, own, FAST)
        state = recommender.initial(1)
        walk = list(batches(own, range(len(row)), users, 5, 40, total=lambda of_own: lengths[0]))
        for batch, of_batch in zip(walk, shared, strict=True):
            of_batch.extend(rows(own, batch, row))
            if len(batch.event):
                with torch.no_grad():
                    outputs, state = objective.outputs(batch, state)
                told = [of_row[int(each)] for each in row[own.row[batch.prediction.numpy()]]]
                torch.testing.assert_close(outputs, torch.stack(told), atol=1e-5, rtol=1e-5)
    assert [sorted(of_batch) for of_batch in shared] == whole


def test_a_share_of_a_batch_without_users_adds_nothing_to_the_loss() -> None:
    events = log(np.zeros(40, int), np.arange(40) % 7)
    vocabulary, _ = vocabulary_of(events, SMALL, EVERY_EVENT)
    data = sequences(events, vocabulary, EVERY_EVENT)
    elsewhere = sequences(events.take(slice(0, 0)), vocabulary, EVERY_EVENT)
    objective = Objective(Recommender(SMALL, len(vocabulary), 1), elsewhere, FAST)
    (batch,) = batches(elsewhere, range(40), np.arange(1), 50, 100, total=lambda of_own: np.diff(data.start))
    loss, _ = objective(batch, objective.recommender.initial(1), data.target.long())
    torch.autograd.backward(loss)  # as the others' averaging of gradients waits for
    assert loss == 0


def cyclic_log() -> Events:
    """Each user walks round a circle of 12 items: what comes next follows from the last item."""
    user = np.tile(np.arange(20), 40)
    step = np.repeat(np.arange(40), 20)
    return log(user, (user * 5 + step) % 12)


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_learns_what_follows_what(cell: str) -> None:
    config = ModelConfig.from_dict({**SMALL.to_dict(), "cell": cell, "hidden": 32})
    settings = TrainConfig(epochs=30, batch=4, bptt_steps=8, gate_epochs=0, threads=1, learning_rate=0.01)
    trained = train(cyclic_log(), config, settings, EVERY_EVENT)
    curve = trained.metrics["curve"]
    assert curve[trained.metrics["best_epoch"] - 1]["validation_loss"] < 0.5 < np.log(12)


def test_a_seed_fixes_every_weight() -> None:
    first, second = (train(random_log(), SMALL, FAST, EVERY_EVENT) for _ in range(2))
    assert same(first, second)
    other = train(random_log(), SMALL, TrainConfig.from_dict({**FAST.to_dict(), "seed": 2}), EVERY_EVENT)
    assert not same(first, other)


@pytest.mark.parametrize("unseen", [False, True])
def test_gates_are_fitted_against_the_items_that_lists_show(unseen: bool) -> None:
    events = random_log()
    vocabulary, _ = vocabulary_of(events, SMALL, EVERY_EVENT)
    recommender = Recommender(SMALL, len(vocabulary), 1)
    of_gates = gate_log(GroupLog(events, ALONE), 350, 50, vocabulary, SMALL, EVERY_EVENT)
    assert of_gates is not None
    pools = collect(recommender, vocabulary, of_gates, EVERY_EVENT, unseen)
    assert pools is not None
    assert len(pools) == 50
    trained_items = np.unique(events.item[:350])
    assert len(trained_items) == len(vocabulary)  # so few that a pool holds them all
    for q, row in enumerate(range(350, 400)):
        own_items = set(events.item[:row][events.user[:row] == events.user[row]].tolist()) - {
            events.item[row]
        }
        counts = torch.isfinite(pools.log_weight[q])  # an item that was chosen twice weighs nothing again
        assert (pools.is_candidate[q] & counts).sum() == len(trained_items) - (
            len(own_items) if unseen else 0
        )
        assert pools.is_candidate[q, pools.target[q]]
        assert pools.in_likelihood[q].sum() >= pools.is_candidate[q].sum()


@pytest.mark.parametrize("average", [0.5, 0.999])
def test_the_average_of_the_weights_is_what_is_kept(average: float) -> None:
    """With few steps behind it, a slow average must already have left the random weights it began from."""
    settings = {
        **FAST.to_dict(),
        "epochs": 30,
        "patience": 30,
        "learning_rate": 0.01,
        "gate_epochs": 0,
        "whole": 0.0,
    }
    last = train(cyclic_log(), SMALL, TrainConfig.from_dict(settings), EVERY_EVENT)
    averaged = train(
        cyclic_log(), SMALL, TrainConfig.from_dict({**settings, "average": average}), EVERY_EVENT
    )
    assert not same(last, averaged)
    assert [p["loss"] for p in averaged.metrics["curve"]] == [p["loss"] for p in last.metrics["curve"]]
    assert averaged.metrics["curve"][-1]["validation_loss"] < 0.7 < np.log(12)


def test_without_a_clock_every_users_last_event_is_held_out() -> None:
    events = log(np.repeat(np.arange(9), [5, 2, 9, 1, 3, 7, 4, 2, 6]), np.arange(39) % 13, clock=False)
    reordered, first = _held_out(GroupLog(events, ALONE), 0.1)
    ordered = reordered.events
    assert len(ordered) - first == 6  # three users have fewer than three events
    for row in range(first, len(ordered)):
        of_user = np.flatnonzero(events.user == ordered.user[row])
        assert ordered.item[row] == events.item[of_user[-1]]
    for user in range(9):
        assert (ordered.item[ordered.user == user] == events.item[events.user == user]).all()


class Killed(Exception):
    pass


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    settings = TrainConfig.from_dict({**FAST.to_dict(), "epochs": 4, "patience": 4, "average": 0.9})
    straight = train(random_log(), SMALL, settings, EVERY_EVENT)

    def kill(progress: Progress) -> None:
        if progress.phase == "network" and progress.epoch == 3:
            raise Killed

    file = tmp_path / "training.pt"
    with pytest.raises(Killed):
        train(random_log(), SMALL, settings, EVERY_EVENT, kill, file)
    seen: list[int] = []
    resumed = train(
        random_log(), SMALL, settings, EVERY_EVENT,
        lambda progress: seen.append(progress.epoch) if progress.phase == "network" else None, file,
    )  # fmt: skip
    assert min(seen) == 3
    assert same(straight, resumed)
    assert [p["loss"] for p in resumed.metrics["curve"]] == [p["loss"] for p in straight.metrics["curve"]]


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "training.pt"
    train(random_log(), SMALL, FAST, EVERY_EVENT, checkpoint=file)
    with pytest.raises(EddyError, match="other events or settings"):
        train(random_log(seed=2), SMALL, FAST, EVERY_EVENT, checkpoint=file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(EddyError, match="not a training checkpoint"):
        train(random_log(), SMALL, FAST, EVERY_EVENT, checkpoint=file)


def test_a_version_keeps_its_learning_curve_and_how_far_its_gradients_reach() -> None:
    user, item = np.arange(40 * 20) % 40, np.random.default_rng(1).integers(9, size=800)
    metrics = train(log(user, item), SMALL, FAST, EVERY_EVENT).metrics
    assert [point["epoch"] for point in metrics["curve"]] == [1, 2]
    assert {"loss", "validation_loss", "events_per_s"} < set(metrics["curve"][0])
    assert metrics["gradients"]["window"] == FAST.bptt_steps
    assert 1 <= metrics["gradients"]["horizon"] <= FAST.bptt_steps


def test_early_stopping_keeps_the_best_epoch() -> None:
    settings = TrainConfig.from_dict({**FAST.to_dict(), "epochs": 30, "patience": 2, "learning_rate": 0.05})
    trained = train(random_log(), SMALL, settings, EVERY_EVENT)  # nothing to learn: it soon overfits
    losses = [point["validation_loss"] for point in trained.metrics["curve"]]
    assert len(losses) < 30
    assert trained.metrics["best_epoch"] == 1 + int(np.argmin(losses)) == len(losses) - 2


def test_without_a_clock_users_last_events_are_held_out() -> None:
    events = random_log()
    timeless = log(events.user, events.item, events.value, clock=False)
    trained = train(timeless, SMALL, FAST, EVERY_EVENT)
    assert trained.metrics["gates"]["targets"] > 0
    assert np.isfinite(trained.metrics["curve"][-1]["validation_loss"])


def test_the_network_is_not_trained_on_what_the_gates_are_fitted_on() -> None:
    events = random_log()
    vocabulary, _ = vocabulary_of(events, SMALL, EVERY_EVENT)
    data = sequences(events, vocabulary, EVERY_EVENT)
    changed = events.item.copy()
    changed[int(len(events) * 0.9) :] = 0  # the held-out part tells another story
    other = sequences(log(events.user, changed, events.value), vocabulary, EVERY_EVENT)
    weights = []
    for each in (data, other):
        torch.manual_seed(1)
        recommender = Recommender(SMALL, len(vocabulary), 1)
        settings = TrainConfig.from_dict({**FAST.to_dict(), "epochs": 1, "sampled": 0})
        trainer = Trainer(Objective(recommender, each, settings), lambda _: None)
        trainer.fit_network(int(len(events) * 0.9))
        weights.append(recommender.project.weight)
    assert torch.equal(*weights)


@pytest.mark.parametrize(
    ("events", "rules", "message"),
    [
        (log(np.array([0, 0, 1]), np.array([0, 0, 0])), EVERY_EVENT, "at least two"),
        (random_log(), EventRules(state="buy", negative=""), "no event moves"),
        (random_log(), EventRules(target="buy"), "no event is a target"),
    ],
)  # fmt: skip
def test_a_log_that_teaches_nothing_is_refused_in_one_line(
    events: Events, rules: EventRules, message: str
) -> None:
    with pytest.raises(EddyError, match=message) as caught:
        train(events, SMALL, FAST, rules)
    assert "\n" not in str(caught.value)


def test_one_user_is_enough() -> None:
    trained = train(log(np.zeros(60, int), np.arange(60) % 7), SMALL, FAST, EVERY_EVENT)
    assert all(torch.isfinite(p).all() for p in trained.recommender.parameters())


def test_one_event_per_user_is_enough() -> None:
    trained = train(log(np.arange(60), np.arange(60) % 7), SMALL, FAST, EVERY_EVENT)
    assert all(torch.isfinite(p).all() for p in trained.recommender.parameters())


def test_a_diverging_run_stops_and_says_what_to_change() -> None:
    wild = TrainConfig.from_dict({**FAST.to_dict(), "learning_rate": 1e30, "clip": 1e30, "epochs": 10})
    with pytest.raises(EddyError, match="learning_rate"):
        train(random_log(), SMALL, wild, EVERY_EVENT)


def test_a_run_that_diverges_in_its_last_step_is_no_version_of_random_weights() -> None:
    """The loss is that before the step; only the held-out part tells what the step has done."""
    settings = replace(FAST, epochs=1, batch=64, bptt_steps=200, learning_rate=1e30, whole=0.0, gate_epochs=0)
    with pytest.raises(UnfitModel, match="not a number in epoch 1; lower learning_rate"):
        train(random_log(n=200), SMALL, settings, EVERY_EVENT)


def test_the_first_epoch_is_trained_whatever_the_budget_of_time() -> None:
    metrics = train(random_log(), SMALL, replace(FAST, seconds=1e-9), EVERY_EVENT).metrics
    assert [point["epoch"] for point in metrics["curve"]] == [1]
    assert metrics["best_epoch"] == 1


@pytest.mark.parametrize("cell", ["lstm", "gru", "esn"])
def test_mixed_precision_reaches_nearly_the_same_loss(cell: str) -> None:
    config = replace(SMALL, cell=cell)
    full, low = (
        train(random_log(), config, replace(FAST, precision=precision), EVERY_EVENT)
        for precision in ("float32", "bfloat16")
    )
    assert low.metrics["curve"][-1]["loss"] != full.metrics["curve"][-1]["loss"]
    assert low.metrics["curve"][-1]["loss"] == pytest.approx(full.metrics["curve"][-1]["loss"], rel=0.01)
    assert {weight.dtype for weight in low.recommender.parameters()} == {torch.float32}
