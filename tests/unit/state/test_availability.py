"""Items are withdrawn by a tombstone or by `"available": false` on `items`, and come back with metadata."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eddy.models.hashing import item_hash
from eddy.models.logs.item_features import features_of
from eddy.serving.lists.questions import Question
from eddy.serving.recommend import answer
from eddy.serving.view import MaterialisedView
from eddy.stream.state.availability import Availability, dictionary_key, dictionary_records
from tests.support.engines import Happening, batch, item_id, new_engine, random_version
from tests.unit.serving.test_view import NOW, WALL, fed_engine, listed, new_view, records

Record = tuple[bytes, bytes | None]

AVAILABLE: Record = (b"x", b'{"item_id": "x", "title": "X"}')
SAID_SO: Record = (b"x", b'{"item_id": "x", "available": true}')
UNAVAILABLE: Record = (b"x", b'{"item_id": "x", "available": false}')
TOMBSTONE: Record = (b"x", None)
PLAIN: Record = dictionary_records(["x"])[0]
CARRIED: Record = (PLAIN[0], b'{"item_id":"x","withdrawn":true}')
X = item_hash("x")


def after(*taken: Record) -> Availability:
    availability = Availability()
    availability.take_records(taken)
    return availability


def compacted(log: Sequence[Record], tombstones: bool) -> list[Record]:
    """The last record of each key; tombstones too, or not any more."""
    last = {key: place for place, (key, _) in enumerate(log)}
    kept = [log[place] for place in sorted(last.values())]
    return [record for record in kept if tombstones or record[1] is not None]


@pytest.mark.parametrize(
    ("log", "withdrawn"),
    [
        ((AVAILABLE,), False),
        ((PLAIN,), False),
        ((AVAILABLE, TOMBSTONE), True),
        ((TOMBSTONE,), True),
        ((UNAVAILABLE,), True),
        ((UNAVAILABLE, AVAILABLE), False),
        ((TOMBSTONE, SAID_SO), False),
        ((TOMBSTONE, PLAIN), True),
        ((CARRIED,), True),
        ((CARRIED, AVAILABLE), False),
        ((TOMBSTONE, AVAILABLE, CARRIED), False),
        ((TOMBSTONE, AVAILABLE, CARRIED, TOMBSTONE), True),
    ],
)
def test_the_last_word_of_the_owner_counts(log: tuple[Record, ...], withdrawn: bool) -> None:
    assert (X in after(*log)) == withdrawn


@pytest.mark.parametrize(
    ("available", "withdrawn"),
    [
        ("0", True), ("0.0", True), ('"false"', True), ('" False"', True), ('"0"', True),
        ("1", False), ("null", False), ('"true"', False), ('""', False), ('"maybe"', False), ("[]", False),
        ("{}", False), ("-0.5", False),
    ],
)  # fmt: skip
def test_a_no_is_understood_in_the_forms_that_tables_give_it(available: str, withdrawn: bool) -> None:
    assert (X in after((b"x", f'{{"item_id": "x", "available": {available}}}'.encode()))) == withdrawn


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from([AVAILABLE, UNAVAILABLE, TOMBSTONE, PLAIN]), max_size=8),
    st.integers(0, 3),
)
def test_what_a_restart_knows_is_what_was_known(log: list[Record], lag: int) -> None:
    """A worker carries withdrawals over into the dictionary, some records late; then compaction comes, and
    forgets tombstones.
    """
    written, availability, waiting = list[Record](), Availability(), list[list[Record]]()
    pending = list(log)
    while pending or waiting:
        read = [pending.pop(0)] if pending else waiting.pop(0)
        written += read
        availability.take_records(read)
        carried = availability.to_carry()
        assert availability.has_to_carry == bool(carried)
        if carried:
            waiting.append(list(dictionary_records(carried, availability)))
            availability.note_carried(carried)
        if len(waiting) > lag:
            late = waiting.pop(0)
            written += late
            availability.take_records(late)
    expected = X in availability
    assert availability.to_carry() == []
    for restarted in (written, compacted(written, True), compacted(written, False), written * 2):
        again = after(*restarted)
        assert (X in again) == expected
        assert again.to_carry() == []


def test_what_cannot_be_read_withdraws_nothing() -> None:
    deep = b'{"item_id": "x", "more": ' + b"[" * 100_000
    key = dictionary_key(X)
    damaged: list[Record] = [
        (b"x", b"{"), (b"x", b"\xff"), (b"x", deep), (b"x", b'{"item_id": 3, "available": false}'),
        (key, b"{"), (key, b'{"item_id": "x", "withdrawn": 7}'), (key[:-1], None), (key + b"x", CARRIED[1]),
        (b"x" * 5000, None),
    ]  # fmt: skip
    availability = Availability()
    availability.take_records(damaged)
    assert X not in availability
    assert availability.to_carry() == []


def test_availability_is_no_feature_of_an_item() -> None:
    fields = {"item_id": "x", "kind": "k"}
    for available in (True, False):
        found = features_of({**fields, "available": available})
        np.testing.assert_array_equal(found, features_of(fields))


@pytest.mark.parametrize("withdrawal", [TOMBSTONE, UNAVAILABLE, CARRIED])
def test_a_server_lists_no_withdrawn_item_to_anybody(tmp_path: Path, withdrawal: Record) -> None:
    version = random_version(tmp_path, items=50)
    engine = fed_engine(version)
    view = new_view(version)
    view.take_rows(0, records(engine))
    assert view.statistics is not None
    view.statistics.count_events(0, np.arange(10), np.full(10, NOW), np.full((10, 1), -1))

    def lists(view: MaterialisedView) -> list[list[str]]:
        asked = [Question(user, k=1000, explore=0.0) for user in ("user-0", "nobody")]
        return [listed(answered) for answered in answer(view, asked)]

    before = lists(view)
    gone = item_id(3)
    named = b'"x"', b'"' + gone.encode() + b'"'
    key = gone.encode() if withdrawal[0] == b"x" else dictionary_key(item_hash(gone))
    view.take_items([(key, withdrawal[1] and withdrawal[1].replace(*named))])
    assert lists(view) == [[item for item in items if item != gone] for items in before]
    assert all(gone in items for items in before)
    view.take_items([(gone.encode(), b'{"item_id": ' + named[1] + b"}")])
    assert lists(view) == before


def test_a_worker_lists_no_withdrawn_item_but_applies_its_events(tmp_path: Path) -> None:
    version = random_version(tmp_path, items=50)
    gone = item_id(3)
    rows, lists = [], []
    for withdrawn in (False, True):
        engine = new_engine(version, wall=WALL, emit="latest", k=50, sample=1.0)
        if withdrawn:
            engine.names.take_availability([(gone.encode(), None)])
        happenings = [Happening("user", item_id(number), NOW + number) for number in (3, 5, 3, 7, 3)]
        outcome = engine.apply([batch(happenings, range(5))])
        (made,) = outcome.lists
        found, *_ = made.topk()
        lists.append([engine.names.ids[item] for item in found[0].tolist() if item >= 0])
        slot = engine.newest.slab.slots_of(["user"])
        rows.append(engine.newest.slab.hidden[slot].tolist())
        engine.prequential.finish_ranks()
        assert engine.prequential.events == 5
    assert rows[0] == rows[1]
    assert gone in lists[0]
    assert lists[1] == [item for item in lists[0] if item != gone]


def test_a_worker_that_names_a_withdrawn_item_first_says_that_it_is_withdrawn(tmp_path: Path) -> None:
    engine = new_engine(random_version(tmp_path, items=5), wall=WALL)
    names = engine.names
    names.take_availability([(b"x", None)])
    names.number_items(["x", "y"])
    assert not names.may_be_listed(names.number_items(["x"])).any()
    assert names.may_be_listed(names.number_items(["y"])).all()
    written = dictionary_records(names.take_new(), names.availability)
    assert dict(written) == dict([CARRIED, *dictionary_records(["y"])])


def test_a_withdrawal_is_to_be_carried_until_it_is_carried_or_came_about_otherwise() -> None:
    availability = after(TOMBSTONE)
    assert [availability.to_carry() for _ in range(2)] == [["x"], ["x"]]
    availability.note_carried(["x"])
    assert availability.to_carry() == []
    availability.take_records([(dictionary_key(X), None), TOMBSTONE])
    assert availability.to_carry() == ["x"], "another worker took it out of the dictionary"
    availability.take_records([CARRIED])
    assert availability.to_carry() == []
