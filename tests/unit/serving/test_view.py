"""What the server holds and answers, without Kafka: rows come from an engine, as workers would write them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eddy.models.errors import EddyError
from eddy.models.hashing import item_hash, item_hashes
from eddy.models.registry import Version
from eddy.models.scoring.item_statistics import Statistics
from eddy.serving.lists.answers import Answer
from eddy.serving.lists.questions import Question
from eddy.serving.recommend import answer
from eddy.serving.routes.parameters import FlatFilter
from eddy.serving.view import MaterialisedView, VersionAt
from eddy.stream.engine import ranker as ranker_module
from eddy.stream.engine.engine import Engine
from eddy.stream.engine.ranker import UPDATE_MS
from eddy.stream.records.schema import Item, encode
from eddy.stream.state.availability import dictionary_key, dictionary_records
from eddy.stream.state.item_statistics import Journal
from eddy.stream.state.rows import encode_rows
from tests.support.engines import (
    Happening,
    batch,
    item_id,
    new_engine,
    random_version,
    reencode_all,
    stored_rows,
    switch,
)
from tests.support.views import put_version

NOW = 1_400_000_000_000
WALL = 10**13  # long after: the stream clock lives in the log's own time
ITEMS = 200

MakeVersion = Callable[..., Version]


@pytest.fixture
def make_version(tmp_path: Path) -> MakeVersion:
    """Versions whose lists depend on rows alone, so that the engine's statistics need not be copied."""

    def make(**config: Any) -> Version:
        chosen: dict[str, Any] = {"half_lives_ms": (), "transition_lags": 0, **config}
        return random_version(tmp_path / "registry", items=ITEMS, **chosen)

    return make


@pytest.fixture
def version(make_version: MakeVersion) -> Version:
    return make_version()


@pytest.fixture
def engine(version: Version) -> Engine:
    return fed_engine(version)


def fed_engine(version: Version, users: int = 8, events: int = 60) -> Engine:
    """An engine that has seen some events of each user."""
    engine = new_engine(version, wall=WALL)
    rng = np.random.default_rng(5)
    happenings = [
        Happening(f"user-{rng.integers(users)}", item_id(int(rng.integers(ITEMS))), NOW - 1000 * (events - i))
        for i in range(events)
    ]
    engine.apply([batch(happenings, range(events))])
    return engine


def records(engine: Engine) -> dict[bytes, bytes | None]:
    rows = stored_rows(engine)
    return dict(zip(rows.user, encode_rows(rows), strict=True))


def new_view(version: Version) -> MaterialisedView:
    """A view with this version as epoch 1."""
    view = MaterialisedView(lambda: WALL)
    put_version(view, version, 1)
    return view


def ask(view: MaterialisedView, user: str, **filters: object) -> Answer:
    question = replace(DEFAULTS, user_id=user, **filters)  # type: ignore[arg-type]
    return answer(view, [question])[0]


DEFAULTS = Question("", k=5)


def listed(found: Answer) -> list[str]:
    return [item.item_id for item in found.items]


def engine_lists(engine: Engine, users: Sequence[str]) -> list[list[str]]:
    """What a worker emits for these users as of now."""
    ranker, slab = engine.newest.ranker, engine.newest.slab
    view = ranker.latest(slab, slab.slots_of(users))
    ranker.update_statistics(engine.clock.now(WALL), WALL)
    item, *_ = ranker.start_topk(view, engine.clock.now(WALL), 5, np.zeros(len(users), np.bool_))()
    return [[engine.names.ids[i] or "" for i in row] for row in item.tolist()]


# -- answers ----------------------------------------------------------------------------------------------


def test_a_user_gets_the_list_that_the_engine_makes_of_the_same_row(engine: Engine, version: Version) -> None:
    view = new_view(version)
    assert view.take_rows(0, records(engine)) == []
    users = sorted(engine.newest.slab.slot_of)
    assert [listed(ask(view, user)) for user in users] == engine_lists(engine, users)
    one = ask(view, users[0])
    slot = engine.newest.slab.slot_of[users[0]]
    assert (one.known, one.epoch, one.version) == (True, 1, version.id)
    assert (one.partition, one.offset, one.stream_time) == (0, engine.newest.slab.offset[slot], NOW - 1000)


def test_questions_answered_together_are_answered_as_one_by_one(engine: Engine, version: Version) -> None:
    view = new_view(version)
    view.take_rows(0, records(engine))
    questions = [
        Question("user-0", k=3),
        Question("nobody", k=2),
        Question("user-1", k=50, exclude_seen=True),
        Question("user-0", k=5, exclude=(item_id(1), item_id(2), "never-seen")),
    ]
    together = answer(view, questions)
    assert [listed(one) for one in together] == [listed(answer(view, [one])[0]) for one in questions]
    assert [len(one.items) for one in together] == [3, 0, 50, 5]


def test_filters_leave_out_what_they_name_and_nothing_else(engine: Engine, version: Version) -> None:
    view = new_view(version)
    view.take_rows(0, records(engine))
    everything = listed(ask(view, "user-0", k=1000))
    assert len(everything) == ITEMS
    unwanted = tuple(everything[:3])
    assert listed(ask(view, "user-0", k=1000, exclude=unwanted)) == everything[3:]
    slab, slot = engine.newest.slab, engine.newest.slab.slot_of["user-0"]
    seen = {engine.names.ids[i] for i in slab.item[slot, : slab.length[slot]].tolist()}
    assert listed(ask(view, "user-0", k=1000, exclude_seen=True)) == [i for i in everything if i not in seen]


def test_an_unknown_user_gets_what_is_popular_now(make_version: MakeVersion) -> None:
    view = new_view(make_version(half_lives_ms=(86_400_000,)))
    index = view.catalogue.find(item_hashes([item_id(1)] * 3 + [item_id(2)] * 2 + [item_id(3)] * 9))
    when = np.array([NOW] * 5 + [NOW - 10 * 86_400_000] * 9)
    assert view.statistics is not None
    view.statistics.count_events(0, index, when, np.full((len(index), 1), -1))
    view.clock.observe(NOW, WALL)
    found = ask(view, "nobody\u2028\U0001f600\x00")
    assert listed(found) == [item_id(1), item_id(2), item_id(3)], "items that nobody touched are not popular"
    assert found.items[0].score == 3.0
    assert (found.known, found.epoch, found.version, found.offset) == (False, None, None, None)
    assert listed(ask(view, "nobody", k=1, exclude=(item_id(1),))) == [item_id(2)]


def test_a_version_with_other_half_lives_joins_and_unknown_users_get_lists_before_its_statistics_come(
    make_version: MakeVersion,
) -> None:
    day, hours = 86_400_000, 43_200_000
    owner, view = Statistics((day,), 8), new_view(make_version(half_lives_ms=(day,)))
    view.clock.observe(NOW, WALL)
    journal = Journal(0, -1, -1)

    def publish() -> None:
        journal.rewrite()
        assert view.take_statistics(0, journal.drain_records(owner, view.catalogue)()) == []

    index = view.catalogue.find(item_hashes([item_id(2), item_id(1), item_id(1)]))
    when = np.array([NOW, NOW - day, NOW - day])
    owner.count_events(0, index, when, np.full((3, 1), -1))
    publish()
    put_version(view, make_version(half_lives_ms=(hours,), seed=1), 2)
    assert [item.score for item in ask(view, "nobody").items] == [1, 1]
    apart = Statistics((hours,), 1)
    apart.count_events(0, index, when, np.full((3, 1), -1))
    arrays = apart.export_partition(0, view.catalogue.hashes)
    owner.fill_partition(0, arrays, view.catalogue, since=-np.inf)
    publish()
    assert [item.score for item in ask(view, "nobody").items] == [1, 0.5]


def test_a_live_server_brings_scores_up_to_date_ten_times_a_second_not_for_every_request(
    engine: Engine, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall = [NOW]
    view = new_view(version)
    view.wall = lambda: wall[0]
    view.take_rows(0, records(engine))
    assert view.newest is not None
    scorer = view.newest.scorer
    refreshed: list[float] = []
    monkeypatch.setattr(scorer, "update_statistics", refreshed.append)
    for _ in range(3):
        ask(view, "user-0")
    assert len(refreshed) == 1
    wall[0] += UPDATE_MS
    ask(view, "user-0")
    assert len(refreshed) == 2


class LargeServer:
    """A live server whose scores are brought up to date beside the thread that answers."""

    def __init__(self, version: Version, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ranker_module, "BESIDE_ITEMS", 1)
        self.wall = NOW
        self.view = new_view(version)
        self.view.wall = lambda: self.wall
        self.view.take_rows(0, records(engine))
        ask(self.view, "user-0")

    @property
    def as_of(self) -> float:
        """The moment of the scores, ms."""
        assert self.view.newest is not None
        return self.view.newest.scorer.now


def test_a_large_server_begins_to_bring_scores_up_to_date_before_a_question_would_have_to(
    engine: Engine, make_version: MakeVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = LargeServer(make_version(half_lives_ms=(3_600_000,)), engine, monkeypatch)
    assert server.view.begin_updates() == [], "it has just been done"
    before = server.as_of
    server.wall += UPDATE_MS - 1
    (update,) = server.view.begin_updates()
    assert server.view.begin_updates() == [], "it is under way"
    done = update.work()
    server.wall += UPDATE_MS // 2
    ask(server.view, "user-0")
    assert server.as_of == before, "no question waits for it"
    server.view.put_update(update, *done)
    assert server.as_of == before + UPDATE_MS - 1


def test_lists_of_a_large_server_are_the_same_however_it_brings_scores_up_to_date(
    engine: Engine, make_version: MakeVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those with items that come meanwhile; only their share in the sums of counts is missing."""
    version = make_version(half_lives_ms=(3_600_000,), transition_lags=3)
    servers = [LargeServer(version, engine, monkeypatch) for _ in range(2)]
    lists = []
    for server, beside in zip(servers, (True, False), strict=True):
        server.wall += 10 * UPDATE_MS
        updates = server.view.begin_updates() if beside else []
        server.view.names.name_items([f"new-{number}" for number in range(100)])
        for update in updates:
            server.view.put_update(update, *update.work())
        lists.append(ask(server.view, "user-1", k=250).items)
    assert servers[0].as_of == servers[1].as_of
    assert [item.item_id for item in lists[0]] == [item.item_id for item in lists[1]]


def test_with_nothing_to_say_the_list_is_empty() -> None:
    found = ask(MaterialisedView(lambda: WALL), "anybody")
    assert (found.items, found.known, found.stream_time) == ([], False, -1)


def test_titles_come_from_items_and_go_with_their_tombstone(engine: Engine, version: Version) -> None:
    view = new_view(version)
    view.take_rows(0, records(engine))
    best = ask(view, "user-0").items[0].item_id
    unreadable = view.take_items([(b"x", b"{"), (best.encode(), encode(Item(best, "A title", ["Drama"])))])
    assert len(unreadable) == 1
    assert ask(view, "user-0").items[0].title == "A title"
    assert ask(view, "user-0").items[1].title is None
    view.take_items([(best.encode(), None)])
    assert ask(view, "user-0").items[0].title is None


@pytest.mark.parametrize(
    ("fields", "title"),
    [
        ({"title": "A title", "genres": "Drama|War"}, "A title"),
        ({"title": "A title", "genres": None}, "A title"),
        ({"title": "A title", "genres": [{"id": 7, "name": "Drama"}]}, "A title"),
        ({"title": 1917}, "1917"),
        ({"title": None}, None),
        ({"title": True}, None),
        ({"title": 10**400}, None),
        ({"title": {"en": "A title"}}, None),
    ],
)
def test_whatever_the_fields_of_metadata_hold_the_others_are_taken(
    engine: Engine, version: Version, fields: dict[str, object], title: str | None
) -> None:
    view = new_view(version)
    view.take_rows(0, records(engine))
    best = ask(view, "user-0").items[0].item_id
    value = {"item_id": best, "price": 5, **fields}
    assert view.take_items([(best.encode(), json.dumps(value).encode())]) == []
    assert ask(view, "user-0").items[0].title == title
    assert listed(ask(view, "user-0", where=FlatFilter(max_price=5).conditions())) == [best]


def test_an_item_that_a_worker_retired_is_no_unreadable_record(version: Version) -> None:
    """Its tombstone's key is a hash, whose bytes are seldom text."""
    keys = [dictionary_key(item_hash(item_id(n))) for n in range(20)]
    assert new_view(version).take_items([(key, None) for key in keys]) == []


def test_an_item_whose_id_is_not_known_yet_waits_for_its_name(make_version: MakeVersion) -> None:
    version = make_version()
    engine = new_engine(version, wall=WALL)
    engine.apply([batch([Happening("user-0", "newcomer", NOW)], [0])])
    view = new_view(version)
    view.take_rows(0, records(engine))
    assert "newcomer" not in listed(ask(view, "user-0", k=1000))
    view.take_items(dictionary_records(["newcomer"]))
    assert "newcomer" in listed(ask(view, "user-0", k=1000))


def test_a_type_that_only_the_rules_name_is_still_negative(version: Version) -> None:
    engine = new_engine(version, wall=WALL)
    engine.apply([batch([Happening("user-0", item_id(7), NOW, type="dislike")], [0])])
    view = new_view(version)
    view.take_rows(0, records(engine))
    assert item_id(7) not in listed(ask(view, "user-0", k=1000))


def test_users_of_two_unknown_types_get_the_same_list(version: Version) -> None:
    engine = new_engine(version, wall=WALL)
    sent = [
        Happening(f"user-{who}", item_id(n), NOW + n, type="view" if n < 2 else last)
        for n in range(3)
        for who, last in enumerate(("page_1", "page_31292"))
    ]
    engine.apply([batch(sent, range(len(sent)))])
    view = new_view(version)
    view.take_rows(0, records(engine))
    first, second = (listed(ask(view, user, k=1000)) for user in ("user-0", "user-1"))
    assert first == second
    assert item_id(2) in second


# -- rows -------------------------------------------------------------------------------------------------


def test_a_tombstone_makes_the_user_unknown(engine: Engine, version: Version) -> None:
    view = new_view(version)
    view.take_rows(0, records(engine))
    view.take_rows(0, {b"user-0": None, b"never-there": None})
    assert not ask(view, "user-0").known
    assert ask(view, "user-1").known


def test_a_tombstone_in_another_partition_than_the_row_makes_nobody_unknown(
    engine: Engine, version: Version
) -> None:
    view = new_view(version)
    view.take_rows(0, records(engine))
    view.take_rows(1, {b"user-0": None})
    assert ask(view, "user-0").known


def test_a_row_that_cannot_be_read_is_told_of_and_the_others_are_taken(
    engine: Engine, version: Version
) -> None:
    view = new_view(version)
    stored = records(engine)
    before = stored[b"user-0"]
    assert before is not None
    view.take_rows(0, {b"user-0": before})
    for damaged in (b"", b"nonsense" * 30, before[:-1], before[:60] + b"?" + before[61:]):
        assert len(view.take_rows(0, {**stored, b"user-0": damaged, b"\xff": before})) == 2
    assert all(ask(view, user).known for user in engine.newest.slab.slot_of), "what was known of user-0 stays"


def test_a_row_that_includes_less_than_the_one_held_is_ignored(version: Version) -> None:
    older = records(fed_engine(version, users=1, events=10))
    newer = records(fed_engine(version, users=1, events=20))
    view = new_view(version)
    view.take_rows(0, newer)
    view.take_rows(0, older)
    assert ask(view, "user-0").offset == 19


# -- model versions ---------------------------------------------------------------------------------------


def encoded_for(engine: Engine, version: Version, epoch: int) -> None:
    """Let the engine go on with another version and encode all rows anew."""
    switch(engine, version, epoch)
    reencode_all(engine)


def test_during_a_refresh_each_row_is_scored_by_the_version_of_its_epoch(
    engine: Engine, version: Version, make_version: MakeVersion
) -> None:
    second = make_version(hidden=24, seed=1)
    users = sorted(engine.newest.slab.slot_of)
    before, old = engine_lists(engine, users), records(engine)
    encoded_for(engine, second, 2)
    after, new = engine_lists(engine, users), records(engine)
    assert before != after
    view = new_view(version)
    view.take_rows(0, old)
    put_version(view, second, 2)
    view.take_rows(0, {user.encode(): new[user.encode()] for user in users[:3]})
    assert [listed(ask(view, user)) for user in users] == after[:3] + before[3:]
    assert [ask(view, user).epoch for user in users] == [2] * 3 + [1] * (len(users) - 3)
    view.take_rows(0, old)
    assert [listed(ask(view, user)) for user in users[:3]] == after[:3], "epochs of a user only grow"


def test_an_older_version_is_dropped_when_no_row_names_it(
    engine: Engine, version: Version, make_version: MakeVersion
) -> None:
    view = new_view(version)
    view.take_rows(0, records(engine))
    second = make_version(seed=1)
    put_version(view, second, 2)
    assert {at.epoch for at in view.rankers} == {1, 2}
    encoded_for(engine, second, 2)
    view.take_rows(0, records(engine))
    assert set(view.rankers) == set(view.slabs) == {VersionAt.of(second.id, 2)}


def test_rows_of_an_epoch_that_cannot_be_loaded_are_answered_by_the_version_before(
    engine: Engine, version: Version, make_version: MakeVersion
) -> None:
    users = sorted(engine.newest.slab.slot_of)
    before = engine_lists(engine, users)
    second = make_version(hidden=24, seed=1)
    encoded_for(engine, second, 2)
    view = new_view(version)
    view.take_rows(0, records(engine))
    assert view.without_model([]) == {VersionAt.of(second.id, 2)}
    assert [listed(ask(view, user)) for user in users] == before, "their windows are what it would have read"
    assert {ask(view, user).version for user in users} == {version.id}


def test_a_version_that_does_not_fit_what_is_held_is_refused(
    engine: Engine, version: Version, make_version: MakeVersion
) -> None:
    view = new_view(version)
    encoded_for(engine, make_version(hidden=24), 2)
    rows = stored_rows(engine)
    named = np.full(len(rows.user), item_hashes([version.id])[0])
    view.take_rows(0, dict(zip(rows.user, encode_rows(replace(rows, version=named)), strict=True)))
    with pytest.raises(EddyError, match="made by another version"):
        put_version(view, version, 2)
    assert ask(view, "user-0").known


def test_rows_of_one_epoch_are_scored_by_the_version_that_each_names(
    engine: Engine, version: Version, make_version: MakeVersion
) -> None:
    second, users = make_version(hidden=24, seed=1), sorted(engine.newest.slab.slot_of)
    ours, old = engine_lists(engine, users), records(engine)
    other = fed_engine(second)
    theirs, new = engine_lists(other, users), records(other)
    view = new_view(version)
    put_version(view, second, 1)
    view.take_rows(0, {user.encode(): old[user.encode()] for user in users[:3]})
    view.take_rows(0, {user.encode(): new[user.encode()] for user in users[3:]})
    assert [listed(ask(view, user)) for user in users] == ours[:3] + theirs[3:]
    assert [ask(view, user).version for user in users] == [version.id] * 3 + [second.id] * (len(users) - 3)
    put_version(view, version, 2)
    assert len(view.rankers) == 3, "an epoch's versions stay while rows name them"
