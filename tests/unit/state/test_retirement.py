"""Items that nobody touches leave lists, dictionary, counts and memory; nothing changes for the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from eddy.models.hashing import item_hash, item_hashes
from eddy.models.registry import Version
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.vocabulary import Catalogue
from eddy.serving.lists.questions import Question
from eddy.serving.recommend import answer
from eddy.stream.engine.batch_report import Lists
from eddy.stream.engine.engine import Engine
from eddy.stream.records.clock import DAY_MS
from eddy.stream.records.messages import Message
from eddy.stream.state.availability import dictionary_key, dictionary_records
from eddy.stream.state.item_names import ItemNames
from eddy.stream.state.item_statistics import Journal, StatisticsReader
from eddy.stream.state.retirement import removals
from eddy.stream.worker.answers import encode_lists
from tests.support.engines import (
    TOPIC_ID,
    Happening,
    assert_same_rows,
    batch,
    item_id,
    new_engine,
    random_version,
    stored_rows,
)
from tests.unit.serving.test_view import listed, new_view, records

START = 1_400_000_000_000
IDLE_MS = 30 * DAY_MS
VOCABULARY = 40


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Version:
    return random_version(tmp_path_factory.mktemp("registry"), items=VOCABULARY)


@dataclass
class Stream:
    """An engine and its partition's journal, fed as a worker feeds them; `written` is what is on `items`."""

    engine: Engine
    journal: Journal = field(default_factory=lambda: Journal(0, -1, -1))
    offset: int = 0
    written: list[Message] = field(default_factory=list)
    journalled: list[Message] = field(default_factory=list)

    def happen(self, happenings: Sequence[Happening]) -> None:
        engine = self.engine
        engine.apply([batch(happenings, range(self.offset, self.offset + len(happenings)))])
        self.offset += len(happenings)
        self.checkpoint()

    def checkpoint(self) -> None:
        names = self.engine.names
        self.written += dictionary_records(names.take_new(), names.availability)
        for counted in self.engine.statistics_buffer.drain_counted(0):
            self.journal.note_counted(counted)
        self.journalled += self.journal.drain_records(self.engine.statistics, names.catalogue)()

    def retire(self) -> int:
        """Steps 1 and 2; how many left."""
        engine = self.engine
        gone = removals(engine.names, engine.statistics, engine.clock.now(0))
        self.written += gone
        engine.names.take_availability(gone)
        if engine.drop_idle_items(0):
            self.journal.rewrite()
            self.checkpoint()
        return len(gone)


def new_stream(version: Version) -> Stream:
    engine = new_engine(version, wall=0, k=MOST)
    engine.names.idle_ms = IDLE_MS
    return Stream(engine)


def visits(days: float, seed: int = 0, users: int = 6, prefix: str = "news") -> list[Happening]:
    """Users who look at items of the vocabulary and at new ones, some days after the start."""
    rng = np.random.default_rng(seed)
    at = START + round(days * DAY_MS)
    return [
        Happening(
            f"user-{rng.integers(users)}",
            item_id(int(rng.integers(VOCABULARY))) if rng.random() < 0.5 else f"{prefix}-{rng.integers(20)}",
            at + 1000 * n,
        )
        for n in range(80)
    ]


MOST = 10_000
JUNK = 1200
"""More than the row of a bad client names in the end."""


def junk(days: float, items: int = JUNK) -> list[Happening]:
    """A bad client with one random id an event."""
    at = START + round(days * DAY_MS)
    return [Happening("bad", f"junk-{n}", at + n) for n in range(items)]


def assert_same_lists(found: dict[str, list[tuple[str, float]]], engine: Engine) -> None:
    """The same items with the same scores; float32 sums in another order may swap what is level."""
    expected = lists(engine)
    assert found.keys() == expected.keys()
    for user, items in expected.items():
        assert dict(found[user]) == pytest.approx(dict(items), abs=5e-3)


def restarted(stream: Stream) -> Engine:
    """Another engine that holds what is on Kafka now: rows, statistics and the dictionary."""
    before, engine = (
        stream.engine,
        new_engine(stream.engine.newest.live.version, wall=0, k=MOST),
    )
    engine.names.name_items(name for name in before.names.ids if name is not None)
    hashes = before.names.catalogue.hashes
    engine.statistics.replace_partition(
        0, before.statistics.export_partition(0, hashes), engine.names.catalogue
    )
    engine.load_rows(stored_rows(before))
    engine.clock.observe(before.clock.now(0), 0)
    return engine


IDS_OF_JUNK = {f"junk-{n}" for n in range(JUNK)}


def lists(engine: Engine) -> dict[str, list[tuple[str, float]]]:
    users = sorted(engine.newest.slab.slot_of)
    now = engine.clock.now(0)
    engine.update_statistics(engine.newest.ranker, now, 0)
    view = engine.newest.ranker.latest(engine.newest.slab, engine.newest.slab.slots_of(users))
    item, score, *_ = engine.newest.ranker.start_topk(view, now, MOST, np.zeros(len(users), np.bool_))()
    return {
        user: [
            (engine.names.ids[i] or "", round(float(s), 3))
            for i, s in zip(row, of_row, strict=True)
            if i >= 0
        ]
        for user, row, of_row in zip(users, item.tolist(), score.tolist(), strict=True)
    }


def counted(statistics: Statistics, catalogue: Catalogue) -> dict[str, object]:
    """All sums by item hash."""
    sums = statistics.export_partition(0, catalogue.hashes)
    by_item = np.argsort(sums["item"])
    by_source = np.argsort(sums["source"])
    found: dict[str, object] = {name: sums[name][by_source].tolist() for name in ("source", "count", "total")}
    found["successor"] = sums["successor"][by_source].tolist()
    return found | {
        "item": sums["item"][by_item].tolist(),
        "popularity": sums["popularity"][:, by_item].tolist(),
    }


def test_what_nobody_touched_leaves_and_for_the_others_nothing_changes(version: Version) -> None:
    streams = [new_stream(version), new_stream(version)]
    for stream in streams:
        stream.happen(junk(0))
        stream.happen(visits(0.1, seed=1))
        stream.happen(visits(29, seed=2))
        assert stream.retire() == 0
        stream.happen(visits(31, seed=3))
        before = lists(stream.engine)
        gone = stream.retire()
        assert gone >= JUNK
    forgetting, remembering = streams
    engine = forgetting.engine
    items, rows = len(engine.names.catalogue), stored_rows(engine)
    named = set(rows.item.ravel().tolist()) | set(rows.older.ravel().tolist())
    sums = counted(engine.statistics, engine.names.catalogue)
    assert engine.forget_items()
    still_named = named & set(item_hashes(sorted(IDS_OF_JUNK)).tolist())
    assert 0 < len(still_named) < JUNK / 2
    assert len(engine.names.catalogue) == items - JUNK + len(still_named)
    assert_same_rows(stored_rows(engine), rows)
    assert counted(engine.statistics, engine.names.catalogue) == sums
    after = lists(engine)
    assert_same_lists(after, restarted(forgetting))
    assert {user: {name for name, _ in found} for user, found in after.items()} == {
        user: {name for name, _ in found} for user, found in lists(remembering.engine).items()
    }
    left = {name for name, _ in before["user-0"]} - {name for name, _ in after["user-0"]}
    assert left >= IDS_OF_JUNK
    assert {item_id(n) for n in range(VOCABULARY)} <= {name for name, _ in after["user-0"]}
    for stream in streams:  # and they go on alike
        stream.happen(visits(31.5, seed=4))
        stream.happen(junk(31.6, items=5))
    assert_same_rows(stored_rows(engine), stored_rows(remembering.engine))
    other = remembering.engine
    sums = counted(engine.statistics, engine.names.catalogue)
    assert sums == counted(other.statistics, other.names.catalogue)
    assert_same_lists(lists(engine), restarted(forgetting))
    assert "junk-3" in {name for name, _ in lists(engine)["user-0"]}, "touched again, it is back"
    assert dict(forgetting.written)[dictionary_key(item_hash("junk-3"))] is not None


def test_items_of_events_that_wait_to_be_counted_stay(version: Version) -> None:
    """Nothing else names them: their owner withdrew them, and their user was erased."""
    engine = new_stream(version).engine
    happenings = junk(0, items=VOCABULARY)
    engine.apply([batch(happenings, range(VOCABULARY))])
    engine.names.take_availability([(happening.item.encode(), None) for happening in happenings])
    engine.erase_users([(0, "bad")])
    assert not engine.forget_items()
    (counted,) = engine.statistics_buffer.drain_counted(0)
    named = engine.names.catalogue.hashes[counted.item]
    assert named.tolist() == item_hashes([happening.item for happening in happenings]).tolist()


def test_lists_under_way_keep_the_items_they_were_made_of(version: Version) -> None:
    stream = new_stream(version)
    engine = stream.engine
    stream.happen(junk(0))
    stream.happen(visits(0.1))
    stream.happen(visits(31))
    stream.retire()
    now = engine.clock.now(0)
    slots = engine.newest.slab.slots_of(["user-0"])
    engine.update_statistics(engine.newest.ranker, now, 0)
    topk = engine.newest.ranker.start_topk(
        engine.newest.ranker.latest(engine.newest.slab, slots), now, MOST, np.zeros(1, np.bool_)
    )
    zero = np.zeros(1, np.int64)
    one = Lists(["user-0"], zero.astype(np.int32), zero, zero, topk, engine.names.json_ids(), 1, version.id)
    expected = encode_lists(one, TOPIC_ID)
    assert engine.forget_items()
    stream.happen(junk(31.5, items=50))
    engine.names.json_ids()
    assert encode_lists(one, TOPIC_ID) == expected


def test_a_reader_of_the_journal_holds_what_the_owner_holds_and_old_records_bring_nothing_back(
    version: Version,
) -> None:
    stream = new_stream(version)
    config = version.recommender.config
    following = StatisticsReader(Statistics(config.half_lives_ms, config.successors), Catalogue())
    stream.happen(junk(0))
    stream.happen(visits(0.1))
    following.apply_records(0, stream.journalled)
    before = len(stream.journalled)
    stream.happen(visits(31))
    stream.retire()
    stream.happen(visits(31.2, seed=7))
    following.apply_records(0, stream.journalled[before:])
    owner = counted(stream.engine.statistics, stream.engine.names.catalogue)
    assert counted(following.statistics, following.catalogue) == owner
    following.apply_records(0, stream.journalled)  # a repeat
    assert counted(following.statistics, following.catalogue) == owner
    started = StatisticsReader(Statistics(config.half_lives_ms, config.successors), Catalogue())
    compacted = dict(stream.journalled)
    started.apply_records(0, list(compacted.items()))
    assert counted(started.statistics, started.catalogue) == owner
    assert not set(item_hashes(sorted(IDS_OF_JUNK)).tolist()) & set(owner["item"])  # type: ignore[call-overload]


def test_a_server_lists_what_is_left_and_forgets_the_rest(version: Version) -> None:
    stream, view = new_stream(version), new_view(version)

    def follow() -> None:
        view.take_items(stream.written)
        view.take_statistics(0, stream.journalled)
        view.take_rows(0, records(stream.engine))

    stream.happen(junk(0))
    stream.happen(visits(0.1))
    follow()
    everything = [listed(one) for one in answer(view, [Question("user-0", MOST), Question("nobody", MOST)])]
    assert all(set(found) >= IDS_OF_JUNK for found in everything)
    items = len(view.catalogue)
    stream.happen(visits(31))
    stream.retire()
    follow()
    asked = [Question("user-0", MOST), Question("nobody", MOST)]
    assert not any(IDS_OF_JUNK & set(listed(one)) for one in answer(view, asked))
    view.forget_items()
    assert len(view.catalogue) < items
    started = new_view(version)
    started.take_rows(0, records(stream.engine))
    started.take_items(list(dict(stream.written).items()))
    started.take_statistics(0, stream.journalled)
    started.forget_items()
    assert len(started.catalogue) == len(view.catalogue)
    for here, there in zip(answer(view, asked), answer(started, asked), strict=True):
        scores = [{item.item_id: item.score for item in one.items} for one in (here, there)]
        assert scores[0] == pytest.approx(scores[1], abs=5e-3)
    stream.happen(visits(31.5, seed=9))
    follow()
    names = {name for name, _ in lists(stream.engine)["user-0"]}
    assert set(listed(answer(view, asked)[0])) == names


def test_a_restart_knows_them_as_gone(version: Version) -> None:
    stream = new_stream(version)
    stream.happen(junk(0))
    stream.happen(visits(31))
    assert stream.retire() == JUNK
    names = ItemNames(Catalogue(), IDLE_MS)
    for record in stream.written:  # not compacted yet, in parts
        names.name_items(
            [
                f"junk-{n}"
                for n in range(300)
                if record[0] == dictionary_key(item_hash(f"junk-{n}")) and record[1]
            ]
        )
        names.take_availability([record])
    assert not IDS_OF_JUNK & set(filter(None, names.ids))
    assert names.take_new() == []


def test_what_is_in_a_vocabulary_described_withdrawn_or_touched_stays_in_the_dictionary(
    version: Version, tmp_path: Path
) -> None:
    stream = new_stream(version)
    names = stream.engine.names
    stream.happen(junk(0, items=10))
    names.take_availability([(b"junk-1", b'{"item_id": "junk-1"}'), (b"junk-2", None)])
    names.add_vocabulary(["junk-3"])
    stream.happen([Happening("user", "junk-4", START + 20 * DAY_MS, "dislike"), *visits(31)])
    engine = stream.engine
    gone = dict(removals(names, engine.statistics, engine.clock.now(0)))
    left = [n for n in range(10) if dictionary_key(item_hash(f"junk-{n}")) in gone]
    assert left == [0, 5, 6, 7, 8, 9]
    stream.happen([Happening("user", "junk-5", START + 32 * DAY_MS)])
    names.take_availability(list(gone.items()))
    assert names.take_new() == ["junk-5"], "touched meanwhile: to be written again"
    assert names.may_be_listed(names.number_items(["junk-4", "junk-5"])).all()
    assert not names.may_be_listed(engine.names.catalogue.find(item_hashes(["junk-6"]))).any()


def test_an_item_that_was_popular_is_idle_some_half_lives_later() -> None:
    statistics = Statistics((DAY_MS,), 4)
    for item, events in ((0, 1), (1, 1000)):
        nothing = np.full((events, 1), -1)
        statistics.count_events(0, np.full(events, item), np.full(events, START), nothing)
    for days, idle in ((29.9, [False, False]), (30.1, [True, False]), (40.1, [True, True])):
        assert statistics.idle_items(2, START + days * DAY_MS, 30 * DAY_MS).tolist() == idle


@pytest.mark.parametrize("lives", [(60_000, DAY_MS), (365 * DAY_MS,)])
def test_short_and_long_half_lives_tell_idle_items(lives: tuple[int, ...]) -> None:
    statistics = Statistics(lives, 4)
    statistics.count_events(0, np.array([0]), np.array([START]), np.array([[-1]]))
    statistics.count_events(1, np.array([1]), np.array([START + 100 * DAY_MS]), np.array([[-1]]))
    assert statistics.idle_items(3, START + 101 * DAY_MS, 30 * DAY_MS).tolist() == [True, False, True]


@pytest.mark.parametrize("lives", [(), (60_000,)])
def test_no_item_is_idle_where_nothing_is_counted_that_would_tell(lives: tuple[int, ...]) -> None:
    statistics = Statistics(lives, 4)
    statistics.count_events(0, np.array([0]), np.array([START]), np.array([[-1]]))
    assert not statistics.idle_items(3, START + 31 * DAY_MS, 30 * DAY_MS).any()
