"""What new items cost follows the new items, not the catalogue; and nothing changes for the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from eddy.models.growable import Growable
from eddy.models.scoring.scorer import Scorer
from eddy.models.tensors import Query, Window
from eddy.models.vocabulary import Catalogue
from eddy.stream.records.schema import encode
from eddy.stream.state import item_names as items_module
from eddy.stream.state.item_names import ItemNames
from tests.support.engines import Happening, batch, item_id, new_engine, random_version
from tests.unit.engine.test_engine import START
from tests.unit.scoring.test_scorer import NOW, large_scorer, random_users


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(0, 99), max_size=5), max_size=20))
def test_a_growable_array_holds_what_was_appended_and_earlier_views_stay(parts: list[list[int]]) -> None:
    array, expected, views = Growable(np.zeros(0, np.int64)), list[int](), []
    for part in parts:
        array.append(np.array(part, np.int64))
        expected += part
        views.append((array.now, list(expected)))
    assert all(view.tolist() == then for view, then in views)
    array.extend(len(expected) + 3, -1)
    assert array.now.tolist() == [*expected, -1, -1, -1]


@pytest.mark.parametrize("has_room", [False, True])
def test_who_looks_while_values_are_appended_sees_whole_values_only(has_room: bool) -> None:
    """A version that is to go live reads the catalogue's hashes on its own thread while items are added."""
    array = Growable(np.array([1, 2, 3]))
    if has_room:
        array.append(np.array([4]))  # the room is doubled, and so reaches for the next ones
    before, seen = array.now.tolist(), list[list[int]]()

    class Looking:
        """Values of which the array asks in the middle of an append."""

        def __len__(self) -> int:
            return 2

        def __array__(self, dtype: object = None, copy: object = None) -> NDArray[np.int64]:
            seen.append(array.now.tolist())
            return np.array([8, 9])

    array.append(cast(Any, Looking()))
    assert seen
    assert all(values == before for values in seen)
    assert array.now.tolist() == [*before, 8, 9]


def test_appending_copies_the_array_seldom() -> None:
    array, rooms = Growable(np.zeros(0, np.int64)), set[int]()
    for number in range(10_000):
        array.append(np.array([number]))
        rooms.add(array.now.ctypes.data)
    assert len(rooms) < 20


NAME = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)


@settings(max_examples=50)
@given(st.lists(st.lists(NAME, max_size=4), max_size=8))
def test_names_as_json_are_those_of_the_items_and_earlier_ones_stay(batches: list[list[str]]) -> None:
    names = ItemNames(Catalogue())
    taken = []
    for number, ids in enumerate(batches):
        names.catalogue.add(np.array([2 * number + 1], np.uint64))  # one that is not named yet
        names.name_items(ids)
        listed = np.array([at for at, name in enumerate(names.ids) if name is not None], np.int64)
        taken.append((names.json_ids(), listed, [encode(names.ids[at]).decode() for at in listed.tolist()]))
    for json, index, expected in taken:
        assert json.take_ids(index).to_pylist() == expected


def test_names_are_made_json_once(monkeypatch: pytest.MonkeyPatch) -> None:
    names, encoded = ItemNames(Catalogue()), list[object]()

    def noted(name: object) -> bytes:
        encoded.append(name)
        return encode(name)

    monkeypatch.setattr(items_module, "encode", noted)
    names.name_items([item_id(number) for number in range(1000)])
    names.json_ids()
    encoded.clear()
    names.name_items(["new"])
    names.json_ids()
    assert encoded == ["new"]


def with_new_items(scorer: Scorer, how: str) -> torch.Tensor:
    """Scores of all items after 100 came one by one; users as `random_users` makes them."""
    query, window = random_users(scorer)
    for number in range(100):
        scorer.catalogue.add(np.array([10**9 + number], np.uint64))
        if how == "alone":
            scorer.add_new_items()
    if how == "with everything":
        scorer.update_statistics(NOW)
    return scorer.scores(query, window).clone()


def test_items_taken_in_alone_score_as_if_everything_had_been_brought_up_to_date() -> None:
    """But for their share in the sums of counts, some percent where all was counted long ago."""
    items = large_scorer("float32").items
    alone = with_new_items(large_scorer("float32"), "alone")
    together = with_new_items(large_scorer("float32"), "with everything")
    assert alone.shape[1] == items + 100
    assert float(alone[:, items:].std()) > 0.5
    torch.testing.assert_close(alone, together, atol=0.1, rtol=0)


@pytest.mark.parametrize("users", [1, 9])
def test_the_first_pass_in_int8_grows_with_the_catalogue(users: int) -> None:
    grown, made_anew = large_scorer("int8"), large_scorer("int8")
    with_new_items(grown, "alone")
    with_new_items(made_anew, "with everything")
    grown.update_statistics(NOW)
    query, window = random_users(grown)
    some = Query(*(part[:users] for part in query)), Window(*(part[:users] for part in window))
    found, expected = (scorer.topk(*some, 1000)[0] for scorer in (grown, made_anew))
    assert (found >= 3000).any(), "new items are among them"
    torch.testing.assert_close(found, expected)


def test_a_new_item_of_a_live_stream_is_listed_at_once_and_costs_no_refresh(tmp_path: Path) -> None:
    engine = new_engine(random_version(tmp_path), emit="latest", k=1000, sample=1.0)
    engine.wall = lambda: START
    scorer, refreshed = engine.newest.ranker.scorer, list[float]()
    refresh = scorer.update_statistics

    def noted(now: float) -> None:
        refreshed.append(now)
        refresh(now)

    scorer.update_statistics = noted  # type: ignore[method-assign]
    for number in range(10):
        new = f"new-{number}"
        outcome = engine.apply([batch([Happening("user", new, START)], [number])])
        (lists,) = outcome.lists
        listed = {engine.names.ids[item] for item in lists.topk()[0][0].tolist() if item >= 0}
        assert new in listed
    engine.prequential.finish_ranks()
    assert refreshed == [START]
