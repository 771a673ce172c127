"""What a user sees of their row is what is in it."""

from __future__ import annotations

from pathlib import Path

from eddy.serving.stored_user import StoredEvent, stored_user
from eddy.serving.view import MaterialisedView
from eddy.stream.records.schema import encode
from eddy.stream.state.rows import WINDOW, encode_rows
from tests.support.engines import Happening, batch, item_id, new_engine, random_version, stored_rows
from tests.support.views import put_version

NOW = 1_400_000_000_000


def test_events_come_with_what_is_known_of_their_items_and_types(tmp_path: Path) -> None:
    version = random_version(tmp_path, items=5)
    engine, view = new_engine(version), MaterialisedView(lambda: NOW)
    put_version(view, version, epoch=1)
    happenings = [
        Happening("anna", item_id(1), NOW + 1, "rating", 3.5),
        Happening("anna", item_id(2), NOW + 2),
        Happening("anna", "not named yet", NOW + 3, "a type that no version names"),
    ]
    engine.apply([batch(happenings, [4, 6, 9], partition=2)])
    rows = stored_rows(engine, partition=2)
    view.take_rows(2, dict(zip(rows.user, encode_rows(rows), strict=True)))
    item = {"item_id": item_id(2), "title": "Interstellar"}
    view.take_items([(item_id(2).encode(), encode(item))])
    user = stored_user(view, "anna")
    assert user is not None
    assert user.events == [
        StoredEvent(item_id(1), None, "rating", NOW + 1, 3.5),
        StoredEvent(item_id(2), "Interstellar", "view", NOW + 2, None),
        StoredEvent(None, None, None, NOW + 3, None),
    ]
    assert (user.partition, user.offset, user.epoch, user.version) == (2, 9, 1, version.id)
    assert (user.event_count, user.older_items, user.older_count) == (3, [], 0)
    assert stored_user(view, "bob") is None


def test_a_row_may_come_before_the_names_of_its_items(tmp_path: Path) -> None:
    version = random_version(tmp_path, items=5)
    engine, view = new_engine(version), MaterialisedView(lambda: NOW)
    put_version(view, version, epoch=1)
    engine.apply([batch([Happening("anna", f"new-{n}", NOW + n) for n in range(WINDOW)], range(WINDOW))])
    rows = stored_rows(engine)
    view.take_rows(0, dict(zip(rows.user, encode_rows(rows), strict=True)))
    user = stored_user(view, "anna")
    assert user is not None
    assert {event.item_id for event in user.events} == {None}
    assert user.older_items == [None] * (WINDOW // 2)


def test_items_that_have_left_the_window_are_told_of_as_well(tmp_path: Path) -> None:
    version = random_version(tmp_path, items=WINDOW)
    engine, view = new_engine(version), MaterialisedView(lambda: NOW)
    put_version(view, version, epoch=1)
    engine.apply([batch([Happening("anna", item_id(n), NOW + n) for n in range(WINDOW)], range(WINDOW))])
    rows = stored_rows(engine)
    view.take_rows(0, dict(zip(rows.user, encode_rows(rows), strict=True)))
    user = stored_user(view, "anna")
    assert user is not None
    assert [event.item_id for event in user.events] == [item_id(n) for n in range(WINDOW // 2, WINDOW)]
    assert user.older_items == [item_id(n) for n in reversed(range(WINDOW // 2))]
    assert (user.older_count, user.event_count) == (WINDOW // 2, WINDOW)
