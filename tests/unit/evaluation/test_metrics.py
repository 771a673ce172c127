"""Metrics from strict ranks, against values computed by hand."""

import math

import numpy as np
import pytest

from eddy.models.evaluation.metrics import MISS, metrics


def test_values_by_hand() -> None:
    means = metrics(np.array([1, 2, 7, 11, MISS]), cutoffs=(1, 10))
    assert means["hr@1"] == means["mrr@1"] == means["ndcg@1"] == pytest.approx(1 / 5)
    assert means["hr@10"] == means["recall@10"] == pytest.approx(3 / 5)
    assert means["mrr@10"] == pytest.approx((1 + 1 / 2 + 1 / 7) / 5)
    assert means["ndcg@10"] == pytest.approx((1 + 1 / math.log2(3) + 1 / math.log2(8)) / 5)


def test_without_events_there_is_no_value() -> None:
    assert all(math.isnan(value) for value in metrics(np.array([], np.int64)).values())
