"""Business rules: what they do to lists, from when until when, and what cannot be used."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from eddy.models.errors import EddyError
from eddy.models.registry import Version
from eddy.serving.catalogue.rules import MAX_BYTES, decode_rules
from eddy.serving.lists.answers import Answer, Explained
from eddy.serving.lists.questions import Question
from eddy.serving.recommend import answer
from eddy.serving.routes.parameters import FlatFilter
from eddy.serving.view import MaterialisedView
from eddy.stream.records.schema import RULES_KEY
from eddy.stream.state.availability import Availability
from tests.support.engines import item_id
from tests.support.serving_views import DESCRIBED, WALL, count_each, described_version, described_view, listed


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Version:
    return described_version(tmp_path_factory.mktemp("registry"))


@pytest.fixture
def view(version: Version) -> MaterialisedView:
    view = described_view(version)
    count_each(view, 20)
    return view


def put_rules(view: MaterialisedView, *rules: dict[str, Any]) -> None:
    assert view.take_items([(RULES_KEY, json.dumps({"rules": rules}).encode())]) == []


def ask(view: MaterialisedView, user: str = "user-0", k: int = DESCRIBED, **wanted: Any) -> Answer:
    return answer(view, [Question(user, k, explore=0, **wanted)])[0]


ACME = [{"attribute": "brand", "any_of": ["acme"]}]


@pytest.mark.parametrize("user", ["user-0", "nobody"])
@pytest.mark.parametrize(("action", "factor"), [({"boost": 4}, 4), ({"bury": 4}, 1 / 4)])
def test_a_rule_multiplies_the_likelihood_of_items_and_explanations_name_it(
    view: MaterialisedView, user: str, action: dict[str, Any], factor: float
) -> None:
    before = {item.item_id: item.score for item in ask(view, user).items}
    put_rules(view, {"name": "a rule", "where": ACME, **action})
    for item in ask(view, user, explain=True).items:
        assert isinstance(item, Explained)
        concerned = int(item.item_id.removeprefix("item-")) % 2
        gain = item.score - before[item.item_id]
        if user == "nobody":
            gain = np.log(item.score / before[item.item_id])
        assert gain == pytest.approx(np.log(factor) if concerned else 0, abs=2e-4)
        assert item.rules == (["a rule"] if concerned else [])
        assert item.adjusted_by == pytest.approx(np.log(factor) if concerned else 0, abs=1e-4)


@pytest.mark.parametrize("user", ["user-0", "nobody"])
def test_pinned_items_stand_at_the_top_where_filters_let_them(view: MaterialisedView, user: str) -> None:
    before = listed(ask(view, user))
    put_rules(view, {"name": "home", "pin": [item_id(8), "never-heard-of", item_id(3)]})
    after = ask(view, user, explain=True)
    assert listed(after) == [8, 3] + [n for n in before if n not in (8, 3)]
    assert [(item.reason, item.rules) for item in after.items[:3] if isinstance(item, Explained)] == [
        ("pinned", ["home"]), ("pinned", ["home"]), ("score", []),
    ]  # fmt: skip
    acme = FlatFilter(where=["brand:acme"]).conditions()
    assert listed(ask(view, user, where=acme))[0] == 3
    assert listed(ask(view, user, k=1)) == [8]
    view.take_items([(item_id(8).encode(), None)])
    assert listed(ask(view, user))[0] == 3, "a withdrawn item is in no list, whoever pins it"


def test_a_cap_holds_for_each_value_of_its_attribute(view: MaterialisedView) -> None:
    put_rules(view, {"name": "variety", "cap": 2, "attribute": "brand"})
    odd = [number for number in listed(ask(view)) if number % 2]
    assert len(odd) == 2, "items without a brand are not capped"
    assert len(ask(view).items) == DESCRIBED // 2 + 2


def test_a_rule_holds_from_its_start_until_before_its_end(view: MaterialisedView) -> None:
    wall = [WALL]
    view.wall = lambda: wall[0]

    def at(ms: int) -> str:
        return datetime.fromtimestamp(ms / 1000, UTC).isoformat()

    dates = {"start": at(WALL + 1000), "end": at(WALL + 2000)}
    put_rules(
        view,
        {"name": "home", "pin": [item_id(8)], **dates},
        {"name": "b", "boost": 9, "where": ACME, **dates},
    )
    plain = [(item.item_id, item.score) for item in ask(view).items]
    wall[0] += 1000
    during = ask(view, explain=True)
    assert listed(during)[0] == 8
    assert "b" in {name for item in during.items if isinstance(item, Explained) for name in item.rules}
    wall[0] += 999
    assert listed(ask(view))[0] == 8
    wall[0] += 1
    assert [(item.item_id, item.score) for item in ask(view).items] == plain


def test_new_rules_replace_the_old_ones_and_a_tombstone_removes_them(view: MaterialisedView) -> None:
    plain = listed(ask(view))
    put_rules(view, {"name": "home", "pin": [item_id(8)]})
    put_rules(view, {"name": "home", "pin": [item_id(9)]})
    assert listed(ask(view))[:2] == [9, *[n for n in plain if n != 9][:1]]
    assert view.take_items([(RULES_KEY, None)]) == []
    assert listed(ask(view)) == plain


def test_rules_that_cannot_be_used_are_reported_and_those_before_stay(view: MaterialisedView) -> None:
    put_rules(view, {"name": "home", "pin": [item_id(8)]})
    (line,) = view.take_items([(RULES_KEY, b'{"rules": [{"name": "x", "boost": 0}]}')])
    assert line == (
        "the rules cannot be used: rules.0.boost: Input should be greater than 1; the rules before it go on"
    )
    assert listed(ask(view))[0] == 8


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (b"", "Invalid JSON"),
        (b"\xff", "Invalid JSON"),
        (b"[" * 100_000, "Invalid JSON"),
        (b"{}", "rules: Field required"),
        (b'{"rules": [{"name": "a"}]}', "give one of boost, bury, pin and cap"),
        (b'{"rules": [{"name": "a", "cap": 1, "pin": ["x"]}]}', "give one of boost, bury, pin and cap"),
        (b'{"rules": [{"name": "a", "boost": 2}]}', "which items?"),
        (b'{"rules": [{"name": "a", "boost": 1e999, "where": []}]}', "rules.0.boost"),
        (b'{"rules": [{"name": "a", "cap": 1}, {"name": "a", "cap": 2}]}', "two rules have the name 'a'"),
        (b'{"rules": [{"name": "a", "cap": 1, "start": "soon"}]}', "rules.0.start: .*is no date such as"),
        (b'{"rules": [{"name": "a", "cap": 1, "start": 17}]}', "rules.0.start: .*is no date such as"),
        (
            b'{"rules": [{"name": "a", "cap": 1, "start": "2026-02-01", "end": "2026-01-01"}]}',
            "start must be",
        ),
        (b'{"rules": [{"name": "a", "cap": 1, "colour": "red"}]}', "rules.0.colour"),
        (b" " * (MAX_BYTES + 1), "more than"),
    ],
)
def test_a_document_that_cannot_be_used_is_refused_in_one_line(document: bytes, why: str) -> None:
    with pytest.raises(EddyError, match=why) as refused:
        decode_rules(document)
    assert "\n" not in str(refused.value)


def test_workers_pass_the_rules_over() -> None:
    assert Availability().take_records([(RULES_KEY, b'{"rules": []}'), (RULES_KEY, None)]) == set()
