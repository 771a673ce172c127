"""Filters by metadata: which items they let through, and what they cost when metadata change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from eddy.models.registry import Version
from eddy.serving.catalogue.attributes import LEAST_VALUES, MAX_ATTRIBUTES, Attributes
from eddy.serving.catalogue.filter_language import AttributeBoost, AttributeCondition, filter_of
from eddy.serving.catalogue.filters import Condition
from eddy.serving.lists.answers import Answer
from eddy.serving.lists.questions import Question
from eddy.serving.recommend import answer
from eddy.serving.routes.parameters import FlatFilter
from eddy.serving.view import MaterialisedView
from tests.support.engines import item_id
from tests.support.serving_views import (
    DESCRIBED,
    WALL,
    count_each,
    describe,
    described_version,
    described_view,
    listed,
)


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Version:
    return described_version(tmp_path_factory.mktemp("registry"))


@pytest.fixture
def view(version: Version) -> MaterialisedView:
    return described_view(version)


def ask(view: MaterialisedView, user: str = "user-0", **filters: Any) -> Answer:
    return answer(view, [Question(user, k=1000, explore=0, **filters)])[0]


def numbers(found: Answer) -> set[int]:
    return set(listed(found))


@pytest.mark.parametrize(
    ("query", "body", "fits"),
    [
        ({"category": ["drama"]}, [{"attribute": "genres", "any_of": ["Drama"]}], lambda n: n % 3 == 0),
        (
            {"category": ["Drama", "Comedy"], "not_category": ["drama"]},
            [{"attribute": "category", "any_of": ["drama", "comedy"], "none_of": ["Drama"]}],
            lambda n: n % 3 == 2,
        ),
        (
            {"min_price": 5, "max_price": 10.5},
            [{"attribute": "price", "min": 5, "max": 10.5}],
            lambda n: 5 <= n <= 10,
        ),
        ({"where": ["brand:acme"]}, [{"attribute": "brand", "any_of": ["ACME"]}], lambda n: n % 2 == 1),
        ({"where_not": ["brand:acme"]}, [{"attribute": "brand", "none_of": ["acme"]}], lambda n: n % 2 == 0),
        (
            {"where": ["price:7", "price:9"]},
            [{"attribute": "price", "any_of": ["7", "9"]}],
            (7, 9).__contains__,
        ),
        (
            {"min": ["price:30"], "where": ["brand:acme"]},
            [{"attribute": "price", "min": 30}, {"attribute": "brand", "any_of": ["acme"]}],
            lambda n: n >= 30 and n % 2 == 1,
        ),
    ],
)
@pytest.mark.parametrize("user", ["user-0", "nobody"])
def test_a_filter_lets_through_what_fulfils_all_its_conditions(
    view: MaterialisedView, query: dict[str, Any], body: list[Any], fits: Any, user: str
) -> None:
    count_each(view)
    found = ask(view, user, where=FlatFilter(**query).conditions())
    assert numbers(found) == {n for n in range(DESCRIBED) if fits(n)}
    assert found.hints == []
    posted = ask(view, user, where=filter_of([AttributeCondition(**one) for one in body]))
    assert posted.items == found.items
    scores = {item.item_id: item.score for item in ask(view, user).items}
    assert all(item.score == scores[item.item_id] for item in found.items), "a filter changes no score"


def test_questions_with_different_filters_are_answered_together(view: MaterialisedView) -> None:
    drama, brand = FlatFilter(category=["drama"]).conditions(), FlatFilter(where=["brand:acme"]).conditions()
    questions = [Question(f"user-{i}", 7, where=where) for i, where in enumerate((drama, (), brand, drama))]
    together = answer(view, questions)
    assert [one.items for one in together] == [answer(view, [one])[0].items for one in questions]


def test_a_change_of_metadata_counts_from_the_next_question_on(view: MaterialisedView) -> None:
    acme = FlatFilter(where=["brand:acme"]).conditions()
    before = numbers(ask(view, where=acme))
    describe(view, 0, brand="acme")
    describe(view, 1, brand="Globex")
    view.take_items([(item_id(3).encode(), None)])
    describe(view, 77, brand="acme")
    assert numbers(ask(view, where=acme)) == (before | {0, 77}) - {1, 3}


def test_names_that_no_item_has_give_an_empty_list_and_say_so(view: MaterialisedView) -> None:
    found = ask(view, where=FlatFilter(where=["colour:red", "brand:acmee"], min=["genres:3"]).conditions())
    assert found.items == []
    assert found.hints == [
        "no item has brand 'acmee'", "no item's category is a number", "no item has the attribute 'colour'",
    ]  # fmt: skip


@pytest.mark.parametrize("user", ["user-0", "nobody"])
def test_a_boost_makes_items_as_many_times_as_likely(view: MaterialisedView, user: str) -> None:
    count_each(view)
    boost = AttributeBoost(attribute="brand", any_of=["acme"], factor=3).boost()
    plain = {item.item_id: item.score for item in ask(view, user).items}
    boosted = {item.item_id: item.score for item in ask(view, user, boosts=(boost,)).items}
    for number in range(DESCRIBED):
        before, after = plain[item_id(number)], boosted[item_id(number)]
        factor = 3 if number % 2 else 1
        gain = after - before if user == "user-0" else np.log(after / before)
        assert gain == pytest.approx(np.log(factor), abs=2e-4)


def test_items_are_listed_between_their_dates(view: MaterialisedView) -> None:
    wall = [WALL]
    view.wall = lambda: wall[0]
    describe(view, 1, available_from=WALL + 1000)
    describe(view, 2, available_until="2001-01-01")
    describe(view, 3, available_from="2001-01-01T00:00:00Z", available_until=WALL + 2000)
    everything = set(range(DESCRIBED))
    assert numbers(ask(view)) == everything - {1, 2}
    wall[0] = WALL + 1000
    assert numbers(ask(view)) == everything - {2}
    wall[0] = WALL + 2000
    assert numbers(ask(view)) == everything - {2, 3}


def test_attributes_that_items_can_bring_are_limited() -> None:
    attributes = Attributes()
    for number in range(MAX_ATTRIBUTES + 5):
        attributes.put({number: {f"name-{number}": "x"}})
    assert len(attributes.by_name) == MAX_ATTRIBUTES
    assert list(attributes.over_limit) == [f"more than {MAX_ATTRIBUTES} attributes: others are passed over"]


def test_forgotten_items_take_their_attributes_with_them() -> None:
    attributes = Attributes()
    for number in range(5):
        attributes.put({number: {"size": number, "colour": "red" if number % 2 else "blue"}})
    attributes.keep(np.array([1, 2, 4]))
    index = np.arange(4)
    assert Condition("size", min=2).matches(attributes, index).tolist() == [False, True, True, False]
    red = Condition("colour", any_of=frozenset(("red",)))
    assert red.matches(attributes, index).tolist() == [True, False, False, False]
    attributes.put({0: {"size": 9}})
    assert red.matches(attributes, index).tolist() == [False] * 4


def test_values_that_no_item_has_any_more_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 8 * LEAST_VALUES
    monkeypatch.setattr("eddy.serving.catalogue.attributes.MAX_VALUES", most)
    attributes = Attributes()
    attributes.put({0: {"price": 7, "colour": "Red"}})
    for change in range(0, 2 * most, LEAST_VALUES):
        attributes.put({item: {"price": change + item} for item in range(1, LEAST_VALUES)})
    assert attributes.over_limit == {}
    price = attributes.by_name["price"]
    assert len(price.values) == len(price.code_of) <= 3 * LEAST_VALUES
    assert len(price.remembered) <= len(price.values)
    index = np.arange(LEAST_VALUES)
    assert [*np.flatnonzero(Condition("price", any_of=frozenset(("7",))).matches(attributes, index))] == [0]
    assert price.values_of(1) == [str(change + 1)]
    assert attributes.by_name["colour"].values_of(0) == ["red"]


def test_an_attribute_leaves_with_its_last_item() -> None:
    attributes = Attributes()
    for number in range(3 * MAX_ATTRIBUTES):
        attributes.put({0: {f"name-{number}": "x"}, 1: {"brand": "acme"}})
    assert [*attributes.by_name] == ["brand", f"name-{number}"]
    assert attributes.over_limit == {}
    attributes.keep(np.array([1]))
    assert [*attributes.by_name] == ["brand"]
    attributes.put({0: {}})
    assert not attributes.by_name


def test_odd_values_are_no_error() -> None:
    attributes = Attributes()
    attributes.put({0: {
        "a": {"nested": 1}, "b": [[1], None, "x"], "c": float("inf"), "d": "", "e": True, "f": 10**400,
        "available_from": "soon", "available_until": 1e300, "": "y", "g": "x|Y | z",
    }})  # fmt: skip
    values = {name: set(attribute.code_of) for name, attribute in attributes.by_name.items()}
    assert values == {"b": {"x"}, "e": {"true"}, "": {"y"}, "g": {"x", "y", "z"}}
    assert not attributes.any_dates
