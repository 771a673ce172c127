"""Items for people who look, from a view: search, one item in full, popularity over time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from eddy.serving.catalogue.item_service import ItemService
from eddy.serving.catalogue.popularity_history import KEPT_LOOKS, MOST_ASKED, PopularityHistory
from eddy.serving.catalogue.search import ItemSearch
from eddy.serving.view import MaterialisedView
from tests.support.engines import item_id
from tests.support.serving_views import count_each, describe, described_version, described_view
from tests.support.views import AtOnce


@pytest.fixture
def view(tmp_path: Path) -> MaterialisedView:
    view = described_view(described_version(tmp_path))
    count_each(view)
    count_each(view, 5, range(7, 8))
    return view


def found(view: MaterialisedView, query: str, limit: int = 20, new: bool = False) -> list[str]:
    items = asyncio.run(ItemService(AtOnce(view)).search(query, limit, new)).items
    return [item.item_id for item in items]


def test_without_a_query_the_most_popular_items_come_first(view: MaterialisedView) -> None:
    assert found(view, "", 3)[0] == item_id(7)
    assert len(found(view, "", 3)) == 3


@pytest.mark.parametrize(
    ("query", "matches"),
    [
        ("dark", True), ("DARK kni", True), ("knight 2008", True), ("(2008)", True), ("ark", False),
        ("dark horse", False), ("İ", False), ("café", True), ("%", False), (".*", False), ("item-3", True),
    ],
)  # fmt: skip
def test_words_of_a_title_are_found_by_their_beginnings(
    view: MaterialisedView, query: str, matches: bool
) -> None:
    describe(view, 3, title="The Dark-Knight (2008): Café")
    assert (item_id(3) in found(view, query, 100)) is matches


def test_the_item_with_just_this_id_comes_before_more_popular_ones(view: MaterialisedView) -> None:
    count_each(view, 9, range(10, 20))
    assert found(view, item_id(1), 5)[0] == item_id(1)
    assert set(found(view, item_id(1), 20)) == {item_id(n) for n in (1, *range(10, 20))}


def test_what_came_since_is_found_when_it_is_time_for_another_copy(view: MaterialisedView) -> None:
    now = [0.0]
    search = ItemSearch(AtOnce(view), lambda: now[0])
    _, nothing = asyncio.run(search.find("zebra"))
    describe(view, 5, title="A zebra")
    now[0] += 0.5
    assert len(nothing) == len(asyncio.run(search.find("zebra"))[1]) == 0
    now[0] += 1.0
    assert len(asyncio.run(search.find("zebra"))[1]) == 1


def test_items_that_wait_for_a_version_are_those_that_it_does_not_know(view: MaterialisedView) -> None:
    view.take_items([(b"brand-new", b'{"item_id": "brand-new", "title": "Fresh"}')])
    assert found(view, "", new=True) == ["brand-new"]
    assert found(view, "fresh", new=True) == ["brand-new"]
    assert found(view, "item", new=True) == []


def test_an_item_in_full_has_its_metadata_and_the_versions_that_know_it(view: MaterialisedView) -> None:
    describe(view, 3, title="Three", genres=["Drama"], price=3, available_until="2001-01-01")
    service = ItemService(AtOnce(view))
    detail = asyncio.run(service.detail(item_id(3)))
    assert detail is not None
    assert (detail.title, detail.attributes) == ("Three", {"price": ["3"], "category": ["drama"]})
    assert (detail.available, detail.available_until) == (False, 978_307_200_000)
    assert detail.versions == [view.rankers[max(view.rankers)].live.version.id]
    assert detail.popularity > 0
    assert asyncio.run(service.detail("nothing")) is None
    view.take_items([(b"brand-new", b'{"item_id": "brand-new"}')])
    new = asyncio.run(service.detail("brand-new"))
    assert new is not None
    assert (new.versions, new.available, new.popularity) == ([], True, 0.0)


def test_popularity_over_time_is_kept_for_what_is_popular_or_asked_for(view: MaterialisedView) -> None:
    service = ItemService(AtOnce(view))

    async def run() -> int:
        looking = asyncio.create_task(service.watch_popularity())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        looking.cancel()
        detail = await service.detail(item_id(7))
        assert detail is not None
        return len(detail.popularity_over_time)

    assert asyncio.run(run()) == 1


def test_the_history_of_popularity_is_of_bounded_size() -> None:
    history = PopularityHistory()
    for look in range(KEPT_LOOKS + 10):
        history.note(look, {"a": float(look)})
        history.ask(f"item-{look}")
    points = history.ask("a")
    assert (len(points), points[0].time, points[-1].count) == (KEPT_LOOKS, 10, KEPT_LOOKS + 9.0)
    assert len(history.asked()) == MOST_ASKED
