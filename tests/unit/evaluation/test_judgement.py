"""Whether a version may go live: what it is judged on, how sure that is, and what the gate makes of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eddy.models.descriptions import UNTIL
from eddy.models.errors import EddyError, UnfitModel
from eddy.models.evaluation.bootstrap import Interval, interval
from eddy.models.evaluation.judgement import (
    LEAST_TARGETS,
    METRIC,
    Judgement,
    Rule,
    Window,
    decide,
    judge_candidate,
    window_trial,
)
from eddy.models.evaluation.protocols import make_trial
from eddy.models.registry import Version, publish
from eddy.models.rules import EVERY_EVENT, EventRules
from eddy.models.training.train import train
from eddy.models.training.warm_start import unseen_row
from tests.support.training import FAST, SMALL, random_log
from tests.support.walks import in_a_row, walks

pytestmark = pytest.mark.unit

EVENTS = in_a_row(walks(30, 20), walks(30, 10, first_round=20))
WINDOW = Window(400, 600)


def version_of(registry: Path, until_row: int | None = WINDOW.start, seed: int = 1) -> Version:
    """A version that was trained on the events before a row; None: nobody knows on which."""
    trained = train(EVENTS.take(slice(0, WINDOW.start)), SMALL, replace(FAST, seed=seed), EVERY_EVENT)
    until = {} if until_row is None else {UNTIL: int(EVENTS.timestamp[until_row - 1])}
    return publish(registry, replace(trained, metrics=until), {})


def test_the_same_version_gains_nothing_over_itself_and_that_is_certain(tmp_path: Path) -> None:
    version = version_of(tmp_path)
    judgement = judge_candidate(EVENTS, WINDOW, version, version, EVERY_EVENT, "all")
    assert judgement.gains["live"] == Interval(0.0, 0.0, 0.0)
    assert judgement.metrics["candidate"] == judgement.metrics["live"]
    assert judgement.targets == len(EVENTS) - WINDOW.start
    assert judgement.users == 30
    assert set(judgement.metrics) == {"candidate", "live", "decayed_popularity"}


def test_all_rank_the_same_events_also_where_a_version_was_trained_to_aim_at_others(tmp_path: Path) -> None:
    """After a change of EDDY_TARGET_EVENTS the live version still has the old rules."""
    live = version_of(tmp_path)
    for rules in (EventRules(target="buy", negative=""), EventRules(target="*", negative="buy")):
        candidate = replace(live, rules=rules)
        for judged in (EVERY_EVENT, EventRules(negative="rating<1")):
            judgement = judge_candidate(EVENTS, WINDOW, candidate, live, judged, "all")
            assert judgement.targets == len(EVENTS) - WINDOW.start
            assert judgement.gains["live"] == Interval(0.0, 0.0, 0.0)


def test_a_log_that_has_lost_the_events_to_judge_on_is_refused(tmp_path: Path) -> None:
    shorter = EVENTS.take(slice(0, WINDOW.start))
    with pytest.raises(EddyError, match="no event is left to judge on"):
        judge_candidate(shorter, WINDOW, version_of(tmp_path), None, EVERY_EVENT, "all")


def test_without_a_live_version_all_counting_rules_are_beside_the_candidate(tmp_path: Path) -> None:
    judgement = judge_candidate(EVENTS, WINDOW, version_of(tmp_path), None, EVERY_EVENT, "all")
    assert {"markov_last", "markov_last_20", "repeats_then_popularity"} < set(judgement.gains)
    mine = judgement.metrics["candidate"][METRIC]
    for name, gain in judgement.gains.items():
        assert gain.mean == pytest.approx(mine - judgement.metrics[name][METRIC])
        assert gain.low <= gain.mean <= gain.high


def test_the_metric_is_the_user_s_choice(tmp_path: Path) -> None:
    version = version_of(tmp_path)
    judged = judge_candidate(EVENTS, WINDOW, version, None, EVERY_EVENT, "all", metric="recall@10")
    metrics = judged.metrics
    assert judged.gains["markov_last"].mean == pytest.approx(
        metrics["candidate"]["recall@10"] - metrics["markov_last"]["recall@10"]
    )
    assert "recall@10" in decide(judged, "not-worse").reason


@pytest.mark.parametrize("side", ["candidate", "live"])
@pytest.mark.parametrize(
    ("until_row", "message"), [(WINDOW.start + 1, "a leak"), (None, "not known which events")]
)
def test_a_version_that_may_have_seen_the_window_is_not_judged_on_it(
    tmp_path: Path, side: str, until_row: int | None, message: str
) -> None:
    fair, other = version_of(tmp_path), version_of(tmp_path, until_row)
    candidate, live = (other, fair) if side == "candidate" else (fair, other)
    with pytest.raises(UnfitModel, match=message):
        judge_candidate(EVENTS, WINDOW, candidate, live, EVERY_EVENT, "all")


@pytest.mark.parametrize("until", ["soon", -1, 10**30, 1.5, True, [1]])
def test_a_version_that_says_nonsense_of_what_it_has_seen_is_as_one_that_says_nothing(
    tmp_path: Path, until: object
) -> None:
    fair = version_of(tmp_path)
    hostile = replace(fair, metrics={UNTIL: until})
    with pytest.raises(UnfitModel, match="not known which events"):
        judge_candidate(EVENTS, WINDOW, hostile, fair, EVERY_EVENT, "all")
    with pytest.raises(EddyError, match="cannot be known"):
        unseen_row(EVENTS, hostile)


def test_where_no_event_moves_a_state_everything_is_new() -> None:
    events = random_log()
    trial = window_trial(events, Window(0, 300), EventRules(state="buy", target="rating"))
    assert len(trial.judged)
    assert trial.in_mode("unseen").all()


def test_too_few_targets_decide_nothing(tmp_path: Path) -> None:
    version = version_of(tmp_path)
    window = Window(400, len(EVENTS) - LEAST_TARGETS + 1)
    with pytest.raises(EddyError, match="too few"):
        judge_candidate(EVENTS, window, version, version, EVERY_EVENT, "all")


def judgement(over_popularity: Interval, **others: Interval) -> Judgement:
    return Judgement(0, 1, 500, 50, "all", METRIC, {}, {"decayed_popularity": over_popularity, **others})


BETTER, NOISE, WORSE = Interval(0.2, 0.1, 0.3), Interval(0.0, -0.1, 0.1), Interval(-0.2, -0.3, -0.1)


@pytest.mark.parametrize(
    ("popularity", "live", "rule", "passed"),
    [
        (BETTER, BETTER, "not-worse", True),
        (BETTER, NOISE, "not-worse", True),
        (BETTER, WORSE, "not-worse", False),
        (BETTER, BETTER, "better", True),
        (BETTER, NOISE, "better", False),
        (BETTER, WORSE, "better", False),
        (NOISE, BETTER, "not-worse", False),
        (WORSE, BETTER, "better", False),
    ],
)
def test_the_gate(popularity: Interval, live: Interval, rule: Rule, passed: bool) -> None:
    verdict = decide(judgement(popularity, live=live), rule)
    assert verdict.passed == passed
    assert METRIC in verdict.reason


def test_a_first_version_must_not_be_below_any_counting_rule() -> None:
    assert decide(judgement(BETTER, markov_last=NOISE, popularity=BETTER), "not-worse").passed
    refused = decide(judgement(BETTER, markov_last=WORSE, popularity=BETTER), "not-worse")
    assert not refused.passed
    assert "markov_last" in refused.reason


def test_an_interval_is_as_wide_as_users_differ_not_as_events_do() -> None:
    rng = np.random.default_rng(5)
    of_user = rng.normal(size=40)
    many = np.repeat(np.arange(40), 100)
    same_for_all_events = interval(of_user[many], many)
    one_each = interval(of_user, np.arange(40))
    assert same_for_all_events.high - same_for_all_events.low == pytest.approx(one_each.high - one_each.low)
    independent = interval(rng.normal(size=4000), many)
    assert independent.high - independent.low < 0.3 * (one_each.high - one_each.low)


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(6)
    covered = 0
    for _ in range(200):
        events = rng.integers(1, 20, 60)
        user = np.repeat(np.arange(60), events)
        gain = np.repeat(rng.normal(size=60), events) + rng.normal(size=len(user))
        found = interval(gain, user, resamples=300)
        covered += found.low <= 0 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


@pytest.mark.parametrize("rules", [EVERY_EVENT, EventRules(state="rating>=3", target="rating>=5")])
def test_what_is_new_to_a_user_is_what_no_event_of_theirs_has_brought(rules: EventRules) -> None:
    trial = make_trial(random_log(), "prequential", rules)
    events, moves = trial.events, trial.flags.moves
    expected = [
        not any(
            moves[row] and events.user[row] == events.user[judged] and events.item[row] == events.item[judged]
            for row in range(judged)
        )
        for judged in trial.judged
    ]
    assert trial.in_mode("unseen").tolist() == expected
    assert any(expected)
    assert not all(expected)
    assert trial.in_mode("all").all()


def test_only_the_events_of_the_window_are_judged() -> None:
    trial = window_trial(EVENTS, WINDOW, EVERY_EVENT)
    assert trial.judged.tolist() == list(range(WINDOW.start, len(EVENTS)))
    assert not trial.tuning.any()
    with_tuning = window_trial(EVENTS, WINDOW, EVERY_EVENT, tuning=True)
    assert with_tuning.judged[~with_tuning.tuning].tolist() == trial.judged.tolist()
    assert int(with_tuning.tuning.sum()) == WINDOW.start - WINDOW.tuning
