"""Lists beyond the best scores: sessions, rankings, explanations, exploration, diversity and caps."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eddy.models.config import CELLS
from eddy.models.hashing import item_hashes
from eddy.models.registry import Version
from eddy.serving.lists.answers import Answer, Explained, Ranking
from eddy.serving.lists.questions import Question, SessionEvent
from eddy.serving.recommend import answer
from eddy.serving.routes.parameters import FlatFilter
from eddy.serving.view import MaterialisedView
from eddy.stream.state.rows import encode_rows
from tests.support.engines import Happening, batch, item_id, new_engine, random_version, stored_rows
from tests.support.serving_views import (
    DESCRIBED,
    NOW,
    WALL,
    count_each,
    describe,
    described_version,
    described_view,
    listed,
)
from tests.support.views import put_version


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Version:
    return described_version(tmp_path_factory.mktemp("registry"), transition_lags=2)


@pytest.fixture
def view(version: Version) -> MaterialisedView:
    view = described_view(version)
    count_each(view, 20)
    return view


def ask(view: MaterialisedView, user: str = "user-0", k: int = 10, **wanted: Any) -> Answer:
    return answer(view, [Question(user, k, **wanted)])[0]


# -- sessions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("events", [1, 3, 49, 130])
def test_a_session_gets_the_list_of_a_user_with_these_events(version: Version, events: int) -> None:
    """130 events are more than a window: the oldest are in the anchor. Some types are unknown, some ratings
    are negative, one item is new to the version, and the order is not that of time.
    """
    rng = np.random.default_rng(events)
    happenings = [
        Happening(
            "anna",
            item_id(int(rng.integers(DESCRIBED + 1))),
            NOW - 1000 * (events - n),
            str(rng.choice(["view", "rating", "never-heard-of"])),
            float(rng.integers(1, 6)),
        )
        for n in range(events)
    ]
    engine = new_engine(version, wall=WALL)
    engine.apply([batch(happenings, range(events))])
    rows = stored_rows(engine)
    view = described_view(version)
    describe(view, DESCRIBED, price=1)
    view.take_rows(0, dict(zip(rows.user, encode_rows(rows), strict=True)))
    session = tuple(SessionEvent(one.item, one.type, one.time, one.value) for one in happenings)
    shuffled = tuple(session[i] for i in rng.permutation(events))
    for wanted in (session, shuffled):
        as_session = ask(view, "", k=30, session=wanted)
        as_user = ask(view, "anna", k=30)
        assert as_session.items == as_user.items
        assert (as_session.known, as_session.version) == (True, as_user.version)
        assert as_session.state_age_ms == as_user.state_age_ms
        assert (as_session.user_id, as_session.partition, as_session.offset) == (None, None, None)


def test_nothing_of_a_session_is_kept(view: MaterialisedView) -> None:
    before = len(view), len(view.catalogue), len(view.catalogue.types), view.now()
    session = tuple(
        SessionEvent(item, f"type of {item}", None, None) for item in (item_id(1), "new-1", "new-2")
    )
    found = ask(view, "", session=session)
    assert found.hints == ["2 events are of items that nobody has named yet"]
    assert found.known
    assert (len(view), len(view.catalogue), len(view.catalogue.types), view.now()) == before


def test_a_session_without_any_usable_event_gets_what_is_popular(view: MaterialisedView) -> None:
    found = ask(view, "", session=(SessionEvent("new", "view", None, None),))
    assert (found.known, found.version, len(found.items)) == (False, None, 10)


def test_sessions_and_users_are_answered_together_as_one_by_one(view: MaterialisedView) -> None:
    questions = [
        Question("", 5, session=(SessionEvent(item_id(1), "view", None, None),)),
        Question("user-1", 5),
        Question("", 5, session=(SessionEvent(item_id(2), "rating", NOW, 5.0),), explain=True),
        Question("user-1", 5, diversity=0.5),
        Question("nobody", 5),
    ]
    together = answer(view, questions)
    assert together == [answer(view, [one])[0] for one in questions]


# -- rankings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["user-0", "nobody"])
def test_candidates_have_the_scores_and_the_order_of_the_list(view: MaterialisedView, user: str) -> None:
    whole = {item.item_id: item.score for item in ask(view, user, k=1000, explore=0).items}
    candidates = tuple(item_id(n) for n in (7, 3, 30, 12, 1))
    found = ask(view, user, candidates=(*candidates, "never-heard-of"))
    assert isinstance(found, Ranking)
    ranked = [(item.item_id, item.score) for item in found.items[:-1]]
    assert ranked == [(name, score) for name, score in whole.items() if name in candidates]
    last = found.items[-1]
    assert (last.item_id, last.score, last.unranked) == ("never-heard-of", None, "unknown")


def test_a_withdrawn_candidate_comes_last_and_says_so(view: MaterialisedView) -> None:
    view.take_items([(item_id(3).encode(), None)])
    found = ask(view, candidates=("a", item_id(3), item_id(4)))
    assert isinstance(found, Ranking)
    assert [(item.item_id, item.unranked) for item in found.items] == [
        (item_id(4), None), ("a", "unknown"), (item_id(3), "left_out"),
    ]  # fmt: skip


# -- explanations -----------------------------------------------------------------------------------------


def test_the_parts_of_an_explanation_add_up_to_the_score(view: MaterialisedView) -> None:
    """Without log Z, which is the same for all items: its shares tell the score of one from that of another
    by the parts of the dense score.
    """
    plain = ask(view, k=DESCRIBED)
    found = ask(view, k=DESCRIBED, explain=True)
    assert [(item.item_id, item.score) for item in found.items] == [
        (item.item_id, item.score) for item in plain.items
    ]
    explained = [item for item in found.items if isinstance(item, Explained)]
    offsets = []
    for item in explained:
        why = item.explanation
        assert why is not None
        shares = why.state_and_popularity_share, why.transitions_share, why.own_items_share
        assert sum(shares) == pytest.approx(1, abs=2e-4)
        assert (item.reason, item.adjusted_by, item.rules) == ("score", 0.0, [])
        if why.state_and_popularity_share == 1.0 and not why.moved_by:
            offsets.append(item.score - why.state - why.popularity)
    assert len(offsets) > 5
    assert np.allclose(offsets, 0, atol=2e-4), "an item without sparse parts has the dense score"
    assert any(item.explanation and item.explanation.own_items_share > 0.01 for item in explained)


def test_an_explanation_names_the_events_that_moved_an_item(view: MaterialisedView) -> None:
    session = tuple(SessionEvent(item_id(n), "view", NOW - 1000 + n, None) for n in (5, 6))
    assert view.statistics is not None
    six, seven = view.catalogue.find(item_hashes([item_id(6), item_id(7)])).tolist()
    view.statistics.count_events(0, np.array([seven] * 50), np.full(50, NOW), np.full((50, 1), six))
    found = ask(view, "", k=DESCRIBED, session=session, explain=True)
    by_item = {item.item_id: item for item in found.items if isinstance(item, Explained)}
    follower, repeated = by_item[item_id(7)].explanation, by_item[item_id(5)].explanation
    assert follower is not None
    assert repeated is not None
    (moved,) = (mover for mover in follower.moved_by if mover.because != "hidden_state")
    assert (moved.item_id, moved.because, moved.timestamp) == (item_id(6), "often_follows", NOW - 1000 + 6)
    assert follower.transitions_share == pytest.approx(moved.share, abs=2e-4)
    (moved,) = (mover for mover in repeated.moved_by if mover.because != "hidden_state")
    assert (moved.item_id, moved.because) == (item_id(5), "same_item")


def dense_likelihoods(view: MaterialisedView, session: tuple[SessionEvent, ...]) -> dict[str, float]:
    """Each item's likelihood by hidden state and popularity, as a share of all items'."""
    found = ask(view, "", k=DESCRIBED, session=session, explain=True)
    score = {
        item.item_id: item.explanation.state + item.explanation.popularity
        for item in found.items
        if isinstance(item, Explained) and item.explanation
    }
    assert len(score) == DESCRIBED
    total = sum(math.exp(value) for value in score.values())
    return {item: math.exp(value) / total for item, value in score.items()}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("length", [2, 5])
def test_what_an_event_did_to_the_state_is_what_items_lose_without_it(
    tmp_path: Path, cell: str, length: int
) -> None:
    view = described_view(
        random_version(tmp_path, cell=cell, items=DESCRIBED, half_lives_ms=(86_400_000,), transition_lags=1)
    )
    session = tuple(
        SessionEvent(item_id(7 * n), "view", NOW - 10**6 + 1000 * n**3, None) for n in range(length)
    )
    whole = dense_likelihoods(view, session)
    without = {
        event.timestamp: dense_likelihoods(view, session[:place] + session[place + 1 :])
        for place, event in enumerate(session)
    }
    compared = 0
    for item in ask(view, "", k=DESCRIBED, session=session, explain=True).items:
        assert isinstance(item, Explained)
        assert item.explanation is not None
        for mover in item.explanation.moved_by:
            if mover.because == "hidden_state":
                lost = 1 - without[mover.timestamp][item.item_id] / whole[item.item_id]
                expected = lost * item.explanation.state_and_popularity_share
                assert mover.share == pytest.approx(expected, abs=1e-3)
                compared += 1
    assert compared > 10


def test_an_answer_says_how_old_the_state_is(view: MaterialisedView) -> None:
    slab = next(iter(view.slabs.values()))
    last = int(slab.last_time(slab.slots_of(["user-0"]))[0])
    assert ask(view).state_age_ms == view.now() - last
    assert ask(view, "nobody").state_age_ms is None


def test_a_boost_is_visible_in_the_explanation(view: MaterialisedView) -> None:
    boosts = FlatFilter(boost=["brand:acme"], boost_factor=5).boosts()
    found = ask(view, k=DESCRIBED, explain=True, boosts=boosts)
    for item in found.items:
        assert isinstance(item, Explained)
        odd = int(item.item_id.removeprefix("item-")) % 2
        assert item.adjusted_by == pytest.approx(np.log(5) if odd else 0, abs=1e-4)


# -- exploration ------------------------------------------------------------------------------------------


def test_explored_items_have_few_events_and_stand_at_regular_places(view: MaterialisedView) -> None:
    for number in range(60, 80):
        describe(view, number, price=number)
    found = ask(view, k=10, explore=0.3, explain=True)
    reasons = [item.reason for item in found.items if isinstance(item, Explained)]
    assert [place for place, reason in enumerate(reasons) if reason == "explored"] == [3, 6, 9]
    assert len(set(listed(found))) == 10
    for number, reason in zip(listed(found), reasons, strict=True):
        assert (number >= 60) == (reason == "explored")
    best = [item for item in listed(ask(view, k=10)) if item < 60]
    assert [n for n in listed(found) if n < 60] == best[:7], "the others keep their order"


def test_a_person_explores_the_same_items_for_an_hour_and_others_explore_different_ones(
    view: MaterialisedView,
) -> None:
    for number in range(60, 160):
        describe(view, number, price=number)
    lists = [listed(ask(view, f"user-{n}", k=10, explore=1)) for n in range(8)]
    assert lists[0] == listed(ask(view, "user-0", k=10, explore=1))
    assert len(set(map(tuple, lists))) == 8
    assert all(set(one) <= set(range(60, 160)) for one in lists)


def test_unknown_users_see_a_tenth_of_fresh_items_beside_what_is_popular(view: MaterialisedView) -> None:
    for number in range(60, 70):
        describe(view, number, price=number)
    fresh = [number >= 60 for number in listed(ask(view, "nobody", k=20))]
    assert [place for place, is_fresh in enumerate(fresh) if is_fresh] == [9, 19]
    assert not any(number >= 60 for number in listed(ask(view, "nobody", k=20, explore=0)))
    acme = FlatFilter(where=["brand:acme"]).conditions()
    assert all(number % 2 for number in listed(ask(view, "nobody", k=20, where=acme))), (
        "filters hold for both"
    )


# -- diversity and caps -----------------------------------------------------------------------------------


def test_a_list_of_what_is_popular_may_be_diverse_as_soon_as_an_item_is_new(view: MaterialisedView) -> None:
    """Nobody with a row has asked since the item came, so that no score was made of it yet."""
    describe(view, 60, genres="Western")
    count_each(view, 30, range(60, 61))
    found = ask(view, "nobody", k=DESCRIBED, diversity=0.1, explore=0.0)
    assert (found.known, listed(found)[0]) == (False, 60)


def test_more_diversity_makes_items_of_a_list_less_alike(view: MaterialisedView) -> None:
    assert view.newest is not None
    vectors = view.newest.scorer.item_vectors(slice(None)).numpy()
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def likeness(diversity: float) -> float:
        index = view.catalogue.find(item_hashes([item_id(n) for n in listed(ask(view, diversity=diversity))]))
        return float(np.triu(vectors[index] @ vectors[index].T, 1).sum())

    assert listed(ask(view, diversity=0.001)) == listed(ask(view))
    assert listed(ask(view, diversity=0.9))[0] == listed(ask(view))[0], "the best item stays the first"
    assert likeness(0.9) < likeness(0.5) <= likeness(0)


def test_a_cap_takes_the_best_items_that_still_fit(view: MaterialisedView) -> None:
    for number in range(DESCRIBED):
        describe(view, number, genres=["Drama"] if number % 10 else ["Comedy"])
    best = listed(ask(view, k=DESCRIBED))
    expected, counts = [], Counter[bool]()
    for number in best:
        comedy = number % 10 == 0
        counts[comedy] += 1
        if counts[comedy] <= 3:
            expected.append(number)
    assert listed(ask(view, k=20, max_per_category=3)) == expected
    assert listed(ask(view, k=2, max_per_category=3)) == expected[:2]


def test_a_model_without_any_sparse_parts_can_be_explained(tmp_path: Path) -> None:
    version = random_version(tmp_path, items=9, half_lives_ms=(), transition_lags=0, pointer=False)
    view = MaterialisedView(lambda: WALL)
    put_version(view, version, 1)
    found = ask(view, "", session=(SessionEvent(item_id(1), "view", NOW, None),), explain=True)
    for item in found.items:
        assert isinstance(item, Explained)
        assert item.explanation is not None
        assert item.explanation.state == pytest.approx(item.score, abs=2e-4)
        assert item.explanation.state_and_popularity_share == 1


def test_everything_at_once_keeps_its_promises(view: MaterialisedView) -> None:
    for number in range(60, 80):
        describe(view, number, genres=["Drama"], brand="acme")
    where = FlatFilter(where=["brand:acme"]).conditions()
    question = Question(
        "user-0", 8, True, (item_id(1),), where, explain=True, explore=0.25, diversity=0.3, max_per_category=3
    )
    found = answer(view, [question])[0]
    assert len(found.items) == len(set(listed(found))) > 0
    assert item_id(1) not in {item.item_id for item in found.items}
    genres = Counter("Drama" if n >= 60 else n % 3 for n in listed(found))
    assert all(n >= 60 or n % 2 for n in listed(found))
    assert max(genres.values()) <= 3
    assert answer(view, [replace(question, where=FlatFilter(where=["brand:x"]).conditions())])[0].items == []
