"""Prequential ranks take a bounded share of the time, and the metric says which sample that leaves."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from eddy.models.scoring.scorer import RankingCost
from eddy.stream.engine.engine import Engine
from eddy.stream.engine.rank_budget import FIRST_RANKS, MOST_SAVED_S, RankBudget
from eddy.stream.state.sampling import in_sample
from tests.support.engines import Happening, batch, item_id, new_engine, random_version

START = 1_370_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_without_a_limit_everything_is_paid_for() -> None:
    budget = RankBudget(None)
    budget.spend(1e9)
    assert budget.pays_for(1.0) == math.inf


def test_before_a_rank_s_cost_is_known_a_few_are_made() -> None:
    assert RankBudget(0.05, Clock()).pays_for(None) == FIRST_RANKS


@given(
    share=st.floats(0.01, 0.5),
    rank_s=st.floats(1e-6, 1.0),
    steps=st.lists(st.tuples(st.floats(0, 10), st.integers(0, 10_000)), min_size=1, max_size=50),
)
def test_ranks_take_their_share_and_at_most_what_was_saved_up_beside(
    share: float, rank_s: float, steps: list[tuple[float, int]]
) -> None:
    clock, spent = Clock(), 0.0
    budget = RankBudget(share, clock)
    for passed, wanted in steps:
        clock.now += passed
        ranks = min(wanted, int(budget.pays_for(rank_s)))
        budget.spend(ranks * rank_s)
        spent += ranks * rank_s
        assert spent <= share * clock.now + MOST_SAVED_S


def apply_an_event_of_each(engine: Engine, users: int) -> None:
    happenings = [Happening(f"u-{n}", item_id(n % 7), START + n) for n in range(users)]
    offset = int(engine.newest.slab.offset.max(initial=-1)) + 1
    engine.apply([batch(happenings, range(offset, offset + users))])
    engine.prequential.finish_ranks()


def test_a_thinned_sample_is_a_part_of_the_same_users(tmp_path: Path) -> None:
    engine = new_engine(random_version(tmp_path), sample=0.5, ranking_time=0.05)
    clock = Clock()
    engine.rank_budget = RankBudget(0.05, clock)
    apply_an_event_of_each(engine, 2000)  # everybody has a row
    engine.newest.ranker.scorer.ranking_cost = RankingCost()
    engine.newest.ranker.scorer.ranking_cost.add_cost(MOST_SAVED_S / 10, 1)
    clock.now += 3600.0  # long enough to save up all that may be: the time of ten ranks
    before = engine.prequential.events
    apply_an_event_of_each(engine, 2000)
    assert 0 < engine.prequential.events - before < 50
    assert 0 < engine.prequential.sample < 0.01
    users = [(user or "").encode() for user in engine.newest.slab.user_of]
    few, all_of_them = in_sample(users, engine.prequential.sample), in_sample(users, 0.5)
    assert not (few & ~all_of_them).any()


def test_a_sample_that_the_time_allows_is_taken_whole(tmp_path: Path) -> None:
    engine = new_engine(random_version(tmp_path), sample=0.5, ranking_time=None)
    apply_an_event_of_each(engine, 500)
    users = [(user or "").encode() for user in engine.newest.slab.user_of]
    sampled = np.count_nonzero(in_sample(users, 0.5))
    assert engine.prequential.events == sampled
    assert engine.prequential.sample == 0.5
