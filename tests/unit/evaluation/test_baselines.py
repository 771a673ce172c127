"""Baselines: what each rule counts, and that the fast walk ranks like the definition, written out naively."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eddy.models.errors import EddyError
from eddy.models.evaluation.baselines import (
    DAMPING,
    LAGS,
    Decay,
    History,
    Ranks,
    baselines,
    rank_by_rules,
    rule_group,
    treat_own,
)
from eddy.models.evaluation.counts import Popularity, Transitions
from eddy.models.evaluation.metrics import MISS
from eddy.models.evaluation.protocols import Protocol, Trial, make_trial
from eddy.models.logs.events import Events
from eddy.models.rules import EventRules

HOUR = 3_600_000


def log(pairs: list[tuple[int, int]], clock: bool = True) -> Events:
    """(user, item) pairs an hour apart, as read from a file: numbered by first appearance."""
    users = list(dict.fromkeys(user for user, _ in pairs))
    items = list(dict.fromkeys(item for _, item in pairs))
    return Events(
        user=np.array([users.index(user) for user, _ in pairs], np.int32),
        item=np.array([items.index(item) for _, item in pairs], np.int32),
        timestamp=np.arange(len(pairs), dtype=np.int64) * HOUR * clock,
        type=np.zeros(len(pairs), np.int16),
        value=np.full(len(pairs), np.nan, np.float32),
        users=[str(user) for user in users],
        items=[str(item) for item in items],
        types=["view"],
        clock=clock,
    )


logs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 7)), min_size=20, max_size=60).map(log)


def naive_ranks(trial: Trial, half_life_h: float, lags: int, damping: float) -> tuple[list[int], list[int]]:
    """Ranks of the judged events by the definition: score every candidate from the whole past, then sort."""
    ranks, unseen = [], []
    users, items = trial.events.user.tolist(), trial.events.item.tolist()
    for row in trial.judged.tolist():
        past = range(row if trial.learns else trial.train)
        popularity: dict[int, float] = defaultdict(float)
        count = Counter(items[t] for t in past)
        transition: dict[tuple[int, int], float] = defaultdict(float)
        for t in past:
            popularity[items[t]] += 2.0 ** (-(row - t) / half_life_h)
            before = [items[s] for s in range(t) if users[s] == users[t]][::-1]
            for lag, source in enumerate(before[:lags], start=1):
                transition[source, items[t]] += 1 / lag
        recent = [items[t] for t in range(row) if users[t] == users[row]][::-1]

        def key(item: int) -> tuple[float, float]:
            reached = sum(transition[source, item] / lag for lag, source in enumerate(recent[:lags], start=1))  # noqa: B023
            return round(reached * max(count[item], 1) ** -damping, 9), round(popularity[item], 9)  # noqa: B023

        target, candidates = items[row], range(trial.candidates[row])
        if target not in candidates:
            ranks.append(MISS)
            unseen.append(MISS)
            continue
        others = [item for item in candidates if item != target and key(item) >= key(target)]
        ranks.append(1 + len(others))
        unseen.append(1 + len(set(others) - set(recent)))
    return ranks, unseen


@given(logs, st.sampled_from([("prequential", math.inf), ("prequential", 3.0), ("temporal", 3.0)]))
def test_popularity_ranks_as_defined(events: Events, setting: tuple[Protocol, float]) -> None:
    protocol, half_life_h = setting
    trial = make_trial(events, protocol, train=0.5, validation=0.25)
    decay = Decay("", half_life_h * HOUR, events.timestamp.astype(float))
    _, [[ranks]] = rank_by_rules(trial, [rule_group(trial, [decay])])
    assert (ranks.all.tolist(), ranks.unseen.tolist()) == naive_ranks(trial, half_life_h, 0, 0.0)


@given(logs, st.sampled_from([(1, 0.0), (LAGS, DAMPING)]), st.sampled_from(["prequential", "temporal"]))
def test_markov_rules_rank_as_defined(events: Events, rule: tuple[int, float], protocol: Protocol) -> None:
    trial = make_trial(events, protocol, train=0.5, validation=0.25)
    decay = Decay("", 5.0 * HOUR, events.timestamp.astype(float))
    _, [[ranks]] = rank_by_rules(trial, [rule_group(trial, [decay], *rule)])
    assert (ranks.all.tolist(), ranks.unseen.tolist()) == naive_ranks(trial, 5.0, *rule)


def test_own_items_come_as_they_score_or_never_or_first_by_recency() -> None:
    # Three judged events of users with 4 own items: one new to its user, one the second most recent, one
    # first seen.
    ranks = Ranks(all=np.array([9, 7, MISS]), unseen=np.array([6, 1, MISS]))
    history = History(np.array([4, 4, 4]), np.array([0, 2, 0]))
    assert treat_own(ranks, history, "as scored", "all").tolist() == [9, 7, MISS]
    assert treat_own(ranks, history, "never", "all").tolist() == [6, MISS, MISS]
    assert treat_own(ranks, history, "first", "all").tolist() == [10, 2, MISS]
    assert treat_own(ranks, history, "first", "unseen")[history.new].tolist() == [6, MISS]


def test_recency_is_the_place_among_distinct_own_items() -> None:
    events = log([(0, item) for item in (0, 1, 0, 2, 1, 2, 0, 3)])
    trial = make_trial(events, "prequential", train=0.5, validation=0.25)
    history, _ = rank_by_rules(trial, [rule_group(trial, [])])
    assert history.recency.tolist() == [3, 2, 3, 0]
    assert history.count.tolist() == [3, 3, 3, 3]


def test_an_item_that_is_no_candidate_is_a_miss_also_for_whoever_repeats_own_items_first() -> None:
    """After the training part of a temporal trial new items come, which no recommender may list."""
    events = log([(0, item) for item in (0, 1, 2, 3, 0, 1, 2, 3, 4, 4, 4, 3, 5, 0)])
    trial = make_trial(events, "temporal", train=0.6, validation=0.2)
    history, [[ranks]] = rank_by_rules(trial, [rule_group(trial, [Decay("", math.inf, np.zeros(14))])])
    assert set(trial.candidates[trial.judged]) == {4}
    assert treat_own(ranks, history, "first", "all").tolist() == [MISS, MISS, MISS, 1, MISS, 4]
    assert treat_own(ranks, history, "never", "all").tolist() == [MISS] * 6


def test_where_users_alternate_the_markov_rule_is_right_and_popularity_is_not() -> None:
    tuned = baselines(make_trial(log([(t % 2, (t // 2) % 5) for t in range(200)]), "prequential"))
    by_name = {baseline.name: baseline.metrics["all"] for baseline in tuned}
    assert by_name["markov_last"]["mrr@20"] == by_name["markov_last_20"]["mrr@20"] == 1.0
    assert by_name["popularity"]["mrr@20"] < 0.5


def test_where_users_repeat_themselves_own_repeats_win_and_never_repeat_is_not_chosen() -> None:
    rng = np.random.default_rng(0)
    pairs = [(int(user), 2 * int(user) + int(rng.random() < 0.2)) for user in rng.integers(0, 20, 600)]
    tuned = {baseline.name: baseline for baseline in baselines(make_trial(log(pairs), "prequential"))}
    assert tuned["repeats_then_popularity"].settings["all"]["own items"] == "first"
    assert tuned["repeats_then_popularity"].metrics["all"]["mrr@20"] > 0.7
    assert tuned["decayed_popularity"].metrics["all"]["mrr@20"] < 0.3


def test_where_nobody_repeats_never_repeat_is_chosen_and_both_modes_agree() -> None:
    rng = np.random.default_rng(0)
    order = [rng.permutation(30) for _ in range(20)]
    pairs = [(user, int(order[user][step])) for step in range(30) for user in range(20)]
    for baseline in baselines(make_trial(log(pairs), "prequential")):
        assert baseline.settings["all"]["own items"] == "never"
        assert baseline.metrics["all"] == baseline.metrics["unseen"]


def test_a_short_half_life_is_chosen_where_fashion_changes() -> None:
    rng = np.random.default_rng(0)
    pairs = [
        (int(user), t // 60 + int(rng.random() < 0.3)) for t, user in enumerate(rng.integers(0, 50, 1200))
    ]
    tuned = {baseline.name: baseline for baseline in baselines(make_trial(log(pairs), "prequential"))}
    assert tuned["decayed_popularity"].settings["all"]["half-life"] in (
        "0.17 d",
        "0.042 d",
        "0.5 d",
        "30 events",
    )
    assert (
        tuned["decayed_popularity"].metrics["all"]["mrr@20"]
        > 2 * tuned["popularity"].metrics["all"]["mrr@20"]
    )


def test_events_that_are_no_targets_are_not_judged_and_negative_ones_are_not_counted() -> None:
    events = log([(t % 3, t % 4) for t in range(40)])
    value = np.where(np.arange(40) % 2 == 0, 1.0, 9.0).astype(np.float32)
    rated = Events(**{**vars(events), "value": value, "types": ["rating"]})
    trial = make_trial(rated, "prequential", EventRules())
    assert len(trial.judged) == 4
    assert trial.counted.sum() == 20


def test_popularity_is_the_same_before_and_after_its_weights_are_scaled_down() -> None:
    moving, times = Popularity(3, half_life=1.0), [0.0, 1.0, 300.0, 301.0, 302.0, 700.0, 701.0]
    for index, time in enumerate(times):
        moving.learn(index % 3, time)
    age = 701.0 - np.array(times)
    expected = np.bincount(np.arange(7) % 3, 2.0**-age)
    assert moving.scores / moving.scores[0] == pytest.approx(expected / expected[0])
    assert np.isfinite(moving.scores).all()


def test_transitions_are_the_same_in_sparse_and_dense_rows() -> None:
    transitions = Transitions(items=2000, lags=1)
    for item in [*range(1, 100), *range(1, 40)]:
        transitions.learn([0], item)
    scores = transitions.scores([0])
    assert scores[1:40].tolist() == [2.0] * 39
    assert scores[40:100].tolist() == [1.0] * 60
    assert scores[100:].sum() == scores[0] == 0


def test_a_log_without_a_clock_has_no_stream_to_evaluate() -> None:
    with pytest.raises(EddyError, match=r"no timestamp column.*leave-one-out"):
        make_trial(log([(0, 0)] * 20, clock=False), "prequential")


def test_leave_one_out_judges_the_last_two_events_of_each_user_among_all_items() -> None:
    trial = make_trial(log([(t % 3, t % 5) for t in range(30)], clock=False), "leave-one-out")
    assert trial.events.user[trial.judged].tolist() == [0, 1, 2, 0, 1, 2]
    assert trial.tuning.tolist() == [True] * 3 + [False] * 3
    assert set(trial.candidates[trial.judged]) == {5}


def test_in_a_temporal_trial_candidates_are_those_of_the_training_part() -> None:
    trial = make_trial(log([(0, t) for t in range(20)]), "temporal")
    assert set(trial.candidates[trial.judged]) == {16}


def test_in_a_prequential_trial_candidates_are_all_items_seen_before_the_event() -> None:
    trial = make_trial(log([(0, t) for t in range(20)]), "prequential")
    assert trial.candidates[trial.judged].tolist() == [16, 17, 18, 19]


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(EddyError, match="protocol 'random' is not known"):
        make_trial(log([(0, 0)] * 20), "random")  # type: ignore[arg-type]
