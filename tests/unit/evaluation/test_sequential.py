"""The sequential test of two live versions: how often it is wrong, and how soon it is right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from eddy.models.evaluation.sequential import (
    ALLOWED_ERROR,
    LEAST_HITS,
    LOOKS,
    Finding,
    GroupSums,
    SequentialTest,
    difference_interval,
    t_quantile,
)

GROUPS = 32
SEEDS = 250
USERS = 1_000
EVENTS = 20_000


def looks(seed: int, share: float = 0.5, worse: float = 0.0) -> Iterator[tuple[float, GroupSums, GroupSums]]:
    """Each look's share and the sums by then of two versions; the first has a share of the users, and finds
    less by a share. Few users make most events, and some users' events are easy for any version.
    """
    rng = np.random.default_rng(seed)
    group, has_first = rng.integers(0, GROUPS, USERS), rng.random(USERS) < share
    activity = rng.lognormal(0.0, 1.2, USERS)
    rate = EVENTS * activity / activity.sum()
    easy = rng.beta(1.0, 2.5, USERS)
    events = rng.poisson(rate * np.diff(LOOKS, prepend=0.0)[:, None])
    found = rng.binomial(events, easy)
    found = rng.binomial(found, np.where(has_first, 1.0 - worse, 1.0))
    by_popularity = rng.binomial(events, 0.7 * easy)
    yield from by_look(group, has_first, events, found + by_popularity, (found - by_popularity) / 3.0)


def looks_where_few_have_luck(seed: int) -> Iterator[tuple[float, GroupSums, GroupSums]]:
    """The same for equal versions, of which the first has a tenth of the users, and few users make nearly all
    the gains.
    """
    rng = np.random.default_rng(seed)
    group, has_first = rng.integers(0, GROUPS, 2 * USERS), rng.random(2 * USERS) < 0.1
    activity = rng.lognormal(0.0, 1.2, 2 * USERS)
    rate = 2 * EVENTS * activity / activity.sum()
    luck = rng.beta(0.05, 2.0, 2 * USERS)
    events = rng.poisson(rate * np.diff(LOOKS, prepend=0.0)[:, None])
    found, by_popularity = rng.binomial(events, luck), rng.binomial(events, 0.3)
    yield from by_look(group, has_first, events, found + by_popularity, found - 0.1 * by_popularity)


def by_look(
    group: NDArray[Any], has_first: NDArray[np.bool_], *columns: NDArray[Any]
) -> Iterator[tuple[float, GroupSums, GroupSums]]:
    for place, share_passed in enumerate(LOOKS):
        so_far = [column[: place + 1].sum(axis=0) for column in columns]
        yield (
            share_passed,
            *(sums(group[users], *(c[users] for c in so_far)) for users in (has_first, ~has_first)),
        )


def sums(group: NDArray[Any], *columns: NDArray[Any]) -> GroupSums:
    counted: list[NDArray[Any]] = [np.bincount(group, column, GROUPS) for column in columns]
    return GroupSums(*counted)


def outcome(seed: int, share: float = 0.5, worse: float = 0.0) -> Finding:
    """The first look's finding that decides, or the last look's."""
    return decided(looks(seed, share, worse))


def decided(looks: Iterator[tuple[float, GroupSums, GroupSums]]) -> Finding:
    test = SequentialTest()
    for look in looks:
        finding = test.look(*look)
        if finding.outcome in ("worse", "better"):
            break
    return finding


def rate(outcomes: Sequence[str], wanted: str) -> float:
    return np.mean([each == wanted for each in outcomes]).item()


def test_equal_versions_are_taken_for_unequal_no_more_often_than_is_allowed() -> None:
    for share in (0.5, 0.1):
        outcomes = [outcome(seed, share).outcome for seed in range(SEEDS)]
        assert rate(outcomes, "worse") <= ALLOWED_ERROR
        assert rate(outcomes, "better") <= ALLOWED_ERROR
        assert rate(outcomes, "not worse") > 0.85


def test_looks_as_wide_as_a_single_one_would_be_wrong_far_more_often() -> None:
    """So the test above tells whether the looks are corrected."""
    wrong = [
        any(
            difference_interval(first, second, ALLOWED_ERROR)[2] < 0
            for _, first, second in list(looks(seed))[4:]
        )
        for seed in range(SEEDS)
    ]
    assert np.mean(wrong) > 2 * ALLOWED_ERROR


def test_a_canary_whose_users_lack_luck_is_not_taken_for_worse() -> None:
    """By chance a tenth of the users lacks the few who have nearly all the gains: their events then vary less
    than others', which must not pass for certainty.
    """
    outcomes = [decided(looks_where_few_have_luck(seed)).outcome for seed in range(SEEDS)]
    assert rate(outcomes, "worse") <= ALLOWED_ERROR


def test_one_look_alone_is_wrong_as_often_as_its_level_says() -> None:
    wrong = []
    for seed in range(SEEDS):
        *_, (_, first, second) = looks(seed, 0.2)
        _, low, high = difference_interval(first, second, 0.05)
        wrong.append(low > 0 or high < 0)
    assert 0.04 < np.mean(wrong) < 0.15, "0.1, both sides together"


def test_a_version_that_is_a_fifth_worse_is_found_within_the_events_of_one_canary() -> None:
    findings = [outcome(seed, 0.5, worse=0.2) for seed in range(40)]
    assert rate([finding.outcome for finding in findings], "worse") > 0.9
    assert rate([finding.outcome for finding in findings], "better") == 0


def test_a_version_that_finds_nothing_is_found_within_the_first_quarter() -> None:
    assert all(outcome(seed, 0.2, worse=1.0).share <= 0.25 for seed in range(40))


def test_what_all_looks_may_spend_adds_up_to_the_allowed_error() -> None:
    test = SequentialTest()
    levels = [test.look(*look).level for look in looks(1)]
    assert levels[0] == 0.0, "too few events yet: nothing is spent"
    assert sum(levels) == pytest.approx(ALLOWED_ERROR)
    assert all(level > 0 for level in levels[4:])


def test_an_interval_is_as_wide_as_users_who_are_alike_make_it() -> None:
    """Ten times as many events of the same users, all alike, say nothing new."""
    rng = np.random.default_rng(5)
    gain, ones = rng.normal(0.1, 0.05, GROUPS), np.ones(GROUPS)
    once, often = (GroupSums(ones * n, ones * n, np.asarray(n * gain, np.float64)) for n in (10.0, 100.0))
    live = GroupSums(np.full(GROUPS, 50.0), np.full(GROUPS, 50.0), np.full(GROUPS, 5.0))
    assert difference_interval(once, live, 0.05) == pytest.approx(difference_interval(often, live, 0.05))
    difference, low, high = difference_interval(once, live, 0.05)
    expected = t_quantile(0.95, GROUPS - 1) * gain.std(ddof=1) / np.sqrt(GROUPS)
    assert (difference - low, high - difference) == pytest.approx((expected, expected))


@pytest.mark.parametrize(
    ("events", "hits"),
    [
        (np.zeros(GROUPS), np.zeros(GROUPS)),
        (np.eye(GROUPS)[3] * 10_000, np.eye(GROUPS)[3] * 1_000),  # all of one group
        (np.full(GROUPS, 100.0), np.full(GROUPS, (LEAST_HITS - 1) / GROUPS)),
    ],
    ids=["no events", "one group", "few hits"],
)
def test_of_too_little_nothing_is_said_and_the_last_look_says_so(
    events: NDArray[Any], hits: NDArray[Any]
) -> None:
    little, much = (
        GroupSums(events, hits, -hits),
        GroupSums(np.full(GROUPS, 1000.0), np.full(GROUPS, 300.0), np.linspace(0.0, 31.0, GROUPS)),
    )
    for pair in ((little, much), (much, little)):
        test = SequentialTest()
        assert test.look(0.5, *pair).outcome == "undecided"
        assert test.look(1.0, *pair).outcome == "too few"


@pytest.mark.parametrize(
    ("probability", "degrees", "quantile"),
    [
        (0.95, 10, 1.8125),
        (0.975, 7, 2.3646),
        (0.99, 31, 2.4528),
        (0.9995, 8, 5.0413),
        (0.9999, 7, 7.0634),
        (0.9999, 20, 4.5385),
        (0.5, 9, 0.0),
    ],
)
def test_quantiles_are_those_of_the_tables(probability: float, degrees: float, quantile: float) -> None:
    assert t_quantile(probability, degrees) == pytest.approx(quantile, rel=0.01)
    assert t_quantile(1 - probability, degrees) == pytest.approx(-quantile, rel=0.01)
