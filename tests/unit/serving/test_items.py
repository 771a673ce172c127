"""Items that are like an item, and items that are popular."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pytest

from eddy.models.hashing import item_hashes
from eddy.models.registry import Version
from eddy.serving.catalogue.filters import Filter
from eddy.serving.lists.popular import popular
from eddy.serving.lists.questions import Question
from eddy.serving.lists.similar import Similar, similar_items
from eddy.serving.routes.parameters import FlatFilter
from eddy.serving.view import MaterialisedView
from tests.support.engines import item_id, random_version
from tests.support.serving_views import DESCRIBED, NOW, WALL, count_each, describe, described_view
from tests.support.views import AtOnce

HOUR, DAY = 3_600_000, 86_400_000
T = TypeVar("T")


def similar(view: MaterialisedView, item_id: str, k: int, where: Filter = ()) -> Similar:
    return asyncio.run(similar_items(AtOnce(view), item_id, Question("", k, where=where)))


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Version:
    folder = tmp_path_factory.mktemp("registry")
    return random_version(folder, items=DESCRIBED, half_lives_ms=(HOUR, DAY), transition_lags=1)


@pytest.fixture
def view(version: Version) -> MaterialisedView:
    return described_view(version)


def count(
    view: MaterialisedView, number: int, times: int, when: int = NOW, previous: int | None = None
) -> None:
    item, before = view.catalogue.find(item_hashes([item_id(number), item_id(previous or 0)])).tolist()
    assert view.statistics is not None
    after = np.full((times, 1), -1 if previous is None else before)
    view.statistics.count_events(0, np.full(times, item), np.full(times, when), after)


def test_without_transitions_similar_items_are_ordered_by_the_cosine_of_their_vectors(
    view: MaterialisedView,
) -> None:
    assert view.newest is not None
    vectors = view.newest.scorer.item_vectors(slice(None)).numpy().astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = vectors @ vectors[5]
    expected = [i for i in np.argsort(-cosine).tolist() if i != 5 and cosine[i] > 0]
    found = similar(view, item_id(5), DESCRIBED)
    assert [item.item_id for item in found.items] == [item_id(i) for i in expected]
    assert [item.score for item in found.items] == pytest.approx((cosine[expected] / 2).tolist(), abs=1e-3)
    assert found.known


def test_what_often_follows_an_item_is_like_it(view: MaterialisedView) -> None:
    plain = [item.item_id for item in similar(view, item_id(5), DESCRIBED).items]
    unlike = next(n for n in range(DESCRIBED) if item_id(n) not in plain and n != 5)
    count(view, unlike, 30, previous=5)
    best = similar(view, item_id(5), 1).items[0]
    assert (best.item_id, best.score) == (item_id(unlike), 0.5)


def test_similar_items_are_filtered_and_never_the_item_itself_or_a_gone_one(
    view: MaterialisedView,
) -> None:
    acme = FlatFilter(where=["brand:acme"]).conditions()
    view.take_items([(item_id(7).encode(), None), (item_id(5).encode(), None)])
    found = similar(view, item_id(5), DESCRIBED, acme)
    listed = {int(item.item_id.removeprefix("item-")) for item in found.items}
    assert listed
    assert all(number % 2 and number not in (5, 7) for number in listed)
    assert found.known, "one may ask what is like an item that is gone"


def test_an_item_that_nobody_has_named_is_like_none(view: MaterialisedView) -> None:
    found = similar(view, "never-heard-of", 5)
    assert (found.known, found.items, found.version) == (False, [], None)
    assert not similar(MaterialisedView(lambda: WALL), "x", 5).known


def test_items_that_get_other_numbers_meanwhile_keep_their_names(view: MaterialisedView) -> None:
    expected = similar(view, item_id(5), 3)
    named = [item_id(5), *(item.item_id for item in expected.items)]
    stay = np.sort(view.catalogue.find(item_hashes(named)))

    class Renumbering(AtOnce):
        """Items leave while all are compared."""

        async def beside(self, work: Callable[[], T]) -> T:
            done = work()
            if not view.catalogue.renumbered:
                place = view.names.keep_items(stay)
                assert view.statistics is not None
                view.statistics.renumber(place)
                view.attributes.keep(stay)
                for at, ranker in view.rankers.items():
                    view.rankers[at] = view._new_ranker(ranker.live, view.statistics)
            return done

    found = asyncio.run(similar_items(Renumbering(view), item_id(5), Question("", 3)))
    assert view.catalogue.renumbered == 1
    assert found == expected


def test_popularity_is_by_the_half_life_nearest_to_the_one_asked_for(view: MaterialisedView) -> None:
    count(view, 1, 10, NOW - 6 * HOUR)
    count(view, 2, 4, NOW - HOUR)
    last = view.now()
    by_hours, by_days = popular(view, 2, 2.0, (), ()), popular(view, 2, None, (), ())
    assert (by_hours.half_life_hours, by_days.half_life_hours) == (1, 24)
    assert [item.item_id for item in by_hours.items] == [item_id(2), item_id(1)]
    assert [item.item_id for item in by_days.items] == [item_id(1), item_id(2)]
    expected = 4 * 2.0 ** (-(last - (NOW - HOUR)) / HOUR)
    assert by_hours.items[0].score == pytest.approx(expected, abs=1e-3)


def test_popular_items_of_a_category(view: MaterialisedView) -> None:
    count_each(view)
    drama = FlatFilter(category=["drama"], max_price=10).conditions()
    assert {item.item_id for item in popular(view, 20, None, drama, ()).items} == {
        item_id(n) for n in (0, 3, 6, 9)
    }
    describe(view, 3, available=False)
    assert len(popular(view, 20, None, drama, ()).items) == 3


def test_before_the_first_model_nothing_is_popular() -> None:
    assert popular(MaterialisedView(lambda: WALL), 5, None, (), ()).items == []
