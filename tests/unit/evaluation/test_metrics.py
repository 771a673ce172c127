"""Metrics from strict ranks, against values computed by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eddy.models.evaluation.metrics import MISS, metrics, strict_ranks


def test_values_by_hand() -> None:
    found = metrics(np.array([1, 2, 7, 11, MISS]), cutoffs=(1, 10))
    assert found["hr@1"] == found["mrr@1"] == found["ndcg@1"] == pytest.approx(1 / 5)
    assert found["hr@10"] == found["recall@10"] == pytest.approx(3 / 5)
    assert found["mrr@10"] == pytest.approx((1 + 1 / 2 + 1 / 7) / 5)
    assert found["ndcg@10"] == pytest.approx((1 + 1 / math.log2(3) + 1 / math.log2(8)) / 5)


def test_without_events_there_is_no_value() -> None:
    assert all(math.isnan(value) for value in metrics(np.array([], np.int64)).values())


def test_ties_count_against_the_target() -> None:
    scores = np.array([[3.0, 3.0, 1.0, 5.0]] * 3)
    assert strict_ranks(scores, np.array([0, 2, 3])).tolist() == [3, 4, 1]


def test_a_constant_score_puts_the_target_last() -> None:
    assert strict_ranks(np.zeros((1, 100)), np.array([42])).tolist() == [100]


def test_a_score_that_is_not_a_number_counts_against_the_target() -> None:
    assert strict_ranks(np.array([[np.nan, 1.0]]), np.array([1])).tolist() == [2]


def test_excluded_items_are_no_candidates_and_the_target_stays_one() -> None:
    scores = np.array([[9.0, 8.0, 7.0]])
    assert strict_ranks(scores, np.array([2]), np.array([[True, False, True]])).tolist() == [2]


@given(st.lists(st.integers(0, 5), min_size=2, max_size=30), st.data())
def test_a_rank_is_one_plus_the_others_that_score_no_less(scores: list[int], data: st.DataObject) -> None:
    target = data.draw(st.integers(0, len(scores) - 1))
    others = scores[:target] + scores[target + 1 :]
    expected = 1 + sum(score >= scores[target] for score in others)
    assert strict_ranks(np.array([scores], float), np.array([target])).tolist() == [expected]
