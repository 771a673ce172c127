"""Evaluation of a recommender: the same events, candidates and moments for it and for the baselines."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from eddy.models.config import ModelConfig, TrainConfig
from eddy.models.descriptions import UNTIL
from eddy.models.errors import EddyError
from eddy.models.evaluation.baselines import Decay, Ranks, rank_by_rules, rule_group
from eddy.models.evaluation.compare import compare
from eddy.models.evaluation.evaluate import Report, evaluate
from eddy.models.evaluation.metrics import MISS
from eddy.models.evaluation.protocols import Protocol, make_trial
from eddy.models.evaluation.ranks import recommender_ranks
from eddy.models.hashing import item_hashes
from eddy.models.logs.events import Events
from eddy.models.network.recommender import Recommender
from eddy.models.registry import publish
from eddy.models.rules import EVERY_EVENT
from eddy.models.tensors import Inputs
from eddy.models.trained import Trained
from eddy.models.vocabulary import Vocabulary

SMALL = ModelConfig(hidden=8, dim=8, item_buckets=4, recent_window=6, transition_lags=3, successors=4)
QUICK = TrainConfig(epochs=1, gate_epochs=1, batch=8, bptt_steps=8, threads=1)


def stream(events: int = 400, users: int = 12, items: int = 25, clock: bool = True, seed: int = 0) -> Events:
    """Users who walk through the items, sometimes jumping; items are numbered by first appearance."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, users, events).astype(np.int32)
    position = rng.integers(0, items, users)
    walked = []
    for who in user:
        position[who] = (position[who] + 1) % items if rng.random() < 0.8 else rng.integers(0, items)
        walked.append(int(position[who]))
    first = list(dict.fromkeys(walked))
    return Events(
        user=user,
        item=np.array([first.index(item) for item in walked], np.int32),
        timestamp=np.sort(rng.integers(0, 10**9, events)) * clock,
        type=np.zeros(events, np.int16),
        value=np.full(events, np.nan, np.float32),
        users=[f"u{n}" for n in range(users)],
        items=[f"i{n}" for n in first],
        types=["view"],
        clock=clock,
    )


def untrained(events: Events, config: ModelConfig = SMALL) -> Trained:
    """Random weights. All items are in the vocabulary: those outside share a vector, so they would all but
    tie.
    """
    torch.manual_seed(0)
    vocabulary = Vocabulary(events.items, events.types, config.item_buckets)
    recommender = Recommender(config, len(vocabulary), len(vocabulary.types))
    with torch.no_grad():
        for weight in recommender.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return Trained(recommender.eval(), vocabulary, EVERY_EVENT)


def ranks_of(events: Events, model: Trained, protocol: Protocol = "prequential", batch: int = 1) -> Ranks:
    return recommender_ranks(
        make_trial(events, protocol), model.recommender, model.vocabulary, EVERY_EVENT, batch
    )


def with_later_events_changed(events: Events, row: int) -> Events:
    item = events.item.copy()
    item[row:] = item[row:][::-1]
    return replace(events, item=item)


@pytest.mark.parametrize("protocol", ["prequential", "temporal"])
def test_recommender_and_baselines_miss_the_same_first_appearances(protocol: Protocol) -> None:
    events = stream(items=300)
    trial = make_trial(events, protocol)
    _, [[popularity]] = rank_by_rules(
        trial, [rule_group(trial, [Decay("none", math.inf, np.zeros(len(events)))])]
    )
    ranks = ranks_of(events, untrained(events), protocol)
    assert (ranks.all == MISS).any()
    assert (ranks.all == MISS).tolist() == (popularity.all == MISS).tolist()


def test_a_rank_does_not_depend_on_what_happens_later() -> None:
    events = stream()
    changed = with_later_events_changed(events, 360)
    before, after = (ranks_of(log, untrained(events)) for log in (events, changed))
    assert before.all[:40].tolist() == after.all[:40].tolist()
    assert before.all[40:].tolist() != after.all[40:].tolist()


def test_in_a_temporal_trial_other_users_no_longer_matter_after_the_split() -> None:
    events = stream()
    late = np.arange(len(events)) >= 320
    others = late & (events.user != 0)
    changed = replace(events, item=np.where(others, events.item[320], events.item).astype(np.int32))
    mine = events.user[320:] == 0
    temporal = [ranks_of(log, untrained(events), "temporal").all[mine].tolist() for log in (events, changed)]
    prequential = [ranks_of(log, untrained(events)).all[mine].tolist() for log in (events, changed)]
    assert temporal[0] == temporal[1]
    assert prequential[0] != prequential[1]


def test_without_statistics_ranks_are_those_of_stepping_the_users_own_events_one_by_one() -> None:
    events, config = stream(items=15), replace(SMALL, half_lives_ms=(), pointer=False, transition_lags=0)
    model = untrained(events, config)
    ranks = ranks_of(events, model)
    recommender, trial = model.recommender, make_trial(events, "prequential")
    index = torch.from_numpy(model.vocabulary.input_index(item_hashes(events.items)))
    for position, row in enumerate(trial.judged.tolist()):
        state, last = recommender.initial(1), -1
        own_rows = np.flatnonzero(events.user[:row] == events.user[row])
        for t in own_rows.tolist():
            gap = -1 if last < 0 else int(events.timestamp[t] - events.timestamp[last])
            event = Inputs(
                index[events.item[t], None], torch.tensor([0]), torch.tensor([False]), torch.tensor([gap])
            )
            state, last = recommender.step(event, state), t
        idle = torch.tensor([events.timestamp[row] - events.timestamp[last] if len(own_rows) else -1])
        scores = recommender.query(state, idle).vector @ recommender.item_columns(index).T
        candidates = scores[0, : trial.candidates[row]].detach().numpy()
        target = events.item[row]
        not_below = candidates >= candidates[target]  # the target itself included: its rank begins at 1
        others_seen = np.setdiff1d(events.item[own_rows], target)
        assert ranks.all[position] == not_below.sum()
        assert ranks.unseen[position] == np.delete(not_below, others_seen).sum()


@pytest.mark.parametrize("batch", [7, 1000])
def test_the_size_of_a_micro_batch_changes_nothing_but_the_age_of_the_statistics(batch: int) -> None:
    events = stream(items=15)
    without_statistics = untrained(events, replace(SMALL, half_lives_ms=(), transition_lags=0))
    by_event, by_batch = (ranks_of(events, without_statistics, batch=size) for size in (1, batch))
    assert by_event.all.tolist() == by_batch.all.tolist()
    assert by_event.unseen.tolist() == by_batch.unseen.tolist()


def test_a_recommender_whose_scores_are_not_numbers_ranks_last() -> None:
    events = stream(items=15)
    model = untrained(events)
    with torch.no_grad():
        model.recommender.item_bias.fill_(math.nan)
    assert set(ranks_of(events, model).all) == {15}


def test_training_on_the_training_part_learns_the_walk() -> None:
    events = stream(events=3000, users=30)
    report = evaluate(events, "prequential", config=SMALL, settings=replace(QUICK, epochs=15))
    assert report.judged.reported["all"]["recall@10"] > report.baselines[2].metrics["all"]["recall@10"]
    assert report.warning is None


@pytest.fixture(scope="module")
def report() -> Report:
    return evaluate(stream(), "prequential", mode="unseen", config=SMALL, settings=QUICK)


def test_the_json_names_the_mode_and_holds_both(report: Report) -> None:
    written = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert (written["protocol"], written["mode"]) == ("prequential", "unseen")
    assert written["model"] == written["modes"]["unseen"]["model"]
    assert written["baselines"] == written["modes"]["unseen"]["baselines"]
    assert written["modes"]["all"]["judged"] == 40
    assert written["judged"] < 40  # repeats cannot be asked for in mode "unseen"
    for metrics_by_name in written["modes"].values():
        assert {"mrr@20", "recall@20", "hr@10", "ndcg@10"} <= set(metrics_by_name["model"])
        assert set(metrics_by_name["baselines"]) == {baseline.name for baseline in report.baselines}


def repeats() -> Events:
    """Everyone always takes the same item."""
    events = stream()
    return replace(events, item=(events.user % 12).astype(np.int32))


def test_a_mode_without_events_is_null_in_json_and_only_a_title_in_the_table() -> None:
    report = evaluate(repeats(), "prequential", config=SMALL, settings=QUICK)
    written = report.to_dict()
    assert written["modes"]["unseen"]["judged"] == 0
    assert written["modes"]["unseen"]["model"]["mrr@20"] is None
    assert written["modes"]["all"]["baselines"]["repeats_then_popularity"]["mrr@20"] == 1.0
    assert report.table().endswith("\n\nprequential, mode unseen: 0 events judged")


def test_a_mode_without_events_is_refused_before_anything_is_trained() -> None:
    with pytest.raises(EddyError, match="mode unseen has no event to judge"):
        evaluate(repeats(), "prequential", "unseen")
    with pytest.raises(EddyError, match="mode unseen has no event to judge"):
        compare(repeats(), "prequential", SMALL, QUICK, mode="unseen")


@pytest.mark.parametrize(
    ("events", "config", "reason"),
    [
        (stream(), replace(SMALL, layers=2), "echo-state network has one layer"),
        (
            replace(stream(400, 400), user=np.arange(400, dtype=np.int32)),
            SMALL,
            "no user has an event before",
        ),
    ],
)
def test_a_comparison_that_one_cell_or_its_figures_would_end_is_refused_before_the_first_is_trained(
    events: Events, config: ModelConfig, reason: str
) -> None:
    with pytest.raises(EddyError, match=reason):
        compare(events, "prequential", config, QUICK, progress=lambda _: pytest.fail("it trains"))


def test_the_table_has_a_line_for_everyone_best_first(report: Report) -> None:
    first, *lines = report.table().split("\n\n")[0].splitlines()
    assert first.startswith("prequential, mode unseen")
    assert len(lines) == 1 + len(report.baselines) + 1
    scores = [float(match[1]) for match in (re.search(r" (\d\.\d{4})", line) for line in lines[1:]) if match]
    assert len(scores) == len(lines) - 1
    assert scores == sorted(scores, reverse=True)


def test_a_version_that_was_trained_on_the_judged_events_is_reported_with_a_warning(tmp_path: Path) -> None:
    events = stream()
    model = untrained(events)
    for until, expected in ((int(events.timestamp[-1]), "trained on 100%"), (0, None), (None, "not known")):
        version = publish(tmp_path, replace(model, metrics={} if until is None else {UNTIL: until}), {})
        warning = evaluate(events, "prequential", version=version).warning
        assert (warning is None) if expected is None else (warning is not None and expected in warning)


def test_evaluation_is_refused_for_an_unknown_mode_and_an_empty_micro_batch() -> None:
    with pytest.raises(EddyError, match="mode 'fresh'"):
        evaluate(stream(), "prequential", mode="fresh")  # type: ignore[arg-type]
    with pytest.raises(EddyError, match="micro-batch of 0"):
        evaluate(stream(), "prequential", batch=0)
