"""The engine's promises beside the rows: what it answers, what it refuses, and how it changes versions."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from eddy.models.evaluation.metrics import MISS
from eddy.models.registry import Version
from eddy.models.rules import EventRules
from eddy.stream.engine.batch_report import Lists
from eddy.stream.engine.engine import Engine
from eddy.stream.engine.ranker import UPDATE_MS
from eddy.stream.records.clock import DAY_MS
from eddy.stream.records.rank_counts import RankedBy
from eddy.stream.state.rows import encode_rows
from eddy.stream.state.slab import Slab
from tests.support.engines import (
    Happening,
    batch,
    changed_users,
    item_id,
    new_engine,
    random_version,
    stored_rows,
)

START = 1_380_000_000_000
K = 5


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Version:
    return random_version(tmp_path_factory.mktemp("registry"))


def sent(n: int, users: int = 3) -> list[Happening]:
    return [Happening(f"u-{i % users}", item_id(i * 7 % 50), START + i * 1000) for i in range(n)]


def answers(engine: Engine, lists: Iterable[Lists]) -> list[tuple[str, int, tuple[str | None, ...]]]:
    """(user, offset, items) of each list."""
    return [
        (user, offset, tuple(engine.names.ids[i] for i in items if i >= 0))
        for of_version in lists
        for user, offset, items in zip(
            of_version.user, of_version.offset.tolist(), of_version.topk().item.tolist(), strict=True
        )
    ]


def test_latest_answers_each_changed_user_once_as_of_its_last_record(version: Version) -> None:
    engine = new_engine(version, emit="latest")
    outcome = engine.apply([batch(sent(10), range(10))])
    assert sorted((user, at) for user, at, _ in answers(engine, outcome.lists)) == [
        ("u-0", 9), ("u-1", 7), ("u-2", 8),
    ]  # fmt: skip


def test_every_answers_each_event_with_what_one_event_at_a_time_would(version: Version) -> None:
    together = new_engine(version, emit="every")
    found = answers(together, together.apply([batch(sent(60), range(60))]).lists)
    assert sorted(at for _, at, _ in found) == list(range(60))
    states_of_last = {user: items for user, _, items in sorted(found, key=lambda one: one[1])}
    latest = new_engine(version, emit="latest")
    last = answers(latest, latest.apply([batch(sent(60), range(60))]).lists)
    assert {user: items for user, _, items in last} == states_of_last


def test_off_answers_nobody(version: Version) -> None:
    engine = new_engine(version, emit="off")
    assert engine.apply([batch(sent(10), range(10))]).lists == []


@pytest.mark.parametrize("emit", ["every", "latest"])
def test_replayed_events_change_nothing_and_their_users_are_answered_again(
    version: Version, emit: str
) -> None:
    engine = new_engine(version, emit=emit)
    first = answers(engine, engine.apply([batch(sent(10), range(10))]).lists)
    before = stored_rows(engine)
    outcome = engine.apply([batch(sent(10)[4:], range(4, 10))])
    assert (outcome.applied, outcome.already_applied, changed_users(outcome.changed)) == (0, 6, [])
    again = answers(engine, outcome.lists)
    assert {user: at for user, at, _ in again} == {
        user: at for user, at, _ in sorted(first, key=lambda one: one[1])
    }
    assert again == answers(engine, engine.apply([batch(sent(10)[4:], range(4, 10))]).lists)
    for name, column in vars(stored_rows(engine)).items():
        np.testing.assert_array_equal(column, getattr(before, name))


def test_a_replay_is_not_counted_twice_in_the_item_statistics(version: Version) -> None:
    engine = new_engine(version)
    engine.apply([batch(sent(20), range(20))])
    assert sum(len(counted.item) for counted in engine.statistics_buffer.drain_counted(0)) == 20
    before = engine.statistics.popularity(50, float(START))
    engine.apply([batch(sent(20), range(20))])
    assert engine.statistics_buffer.drain_counted(0) == []
    np.testing.assert_array_equal(engine.statistics.popularity(50, float(START)), before)


def test_events_of_an_erased_user_that_come_again_are_applied_but_not_counted_again(version: Version) -> None:
    engine = new_engine(version)
    engine.apply([batch(sent(20), range(20))])
    engine.statistics_buffer.drain_counted(0)
    engine.erase_users([(0, "u-1")])
    assert "u-1" not in engine.newest.slab.slot_of
    outcome = engine.apply([batch(sent(20), range(20))])
    assert (outcome.applied, outcome.already_applied) == (7, 13)
    assert engine.statistics_buffer.drain_counted(0) == []


def test_a_user_whose_events_do_not_move_states_has_no_row_and_is_never_dropped_as_idle(
    version: Version,
) -> None:
    buys_only = replace(version, rules=EventRules(state="purchase"))
    engine = new_engine(buys_only, emit="every")
    happenings = [Happening("looks", "item-1", START), Happening("buys", "item-1", START, "purchase")]
    report = engine.apply([batch(happenings, range(2))])
    assert (report.applied, report.ignored) == (1, 1)
    assert list(engine.newest.slab.slot_of) == ["buys"]
    assert engine.idle_users(0, longer_than_ms=-1, before=100) == ["buys"]
    late = [Happening("buys", "item-2", START + 1), Happening("looks", "item-2", START + 1, "purchase")]
    engine.apply([batch(late, range(2, 4))])
    slab = engine.newest.slab
    assert slab.applied[slab.slots_of(["buys", "looks"])].tolist() == [1, 1]


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_seen_items_are_left_out_by_setting_only(version: Version, exclude_seen: bool) -> None:
    engine = new_engine(version, emit="latest", exclude_seen=exclude_seen, k=200)
    events = sent(150, users=1)  # three windows' worth
    ((_, _, items),) = answers(engine, engine.apply([batch(events, range(150))]).lists)
    seen = {one.item for one in events}
    assert not (seen & set(items)) if exclude_seen else seen <= set(items)


def test_a_low_rated_item_is_never_recommended_to_who_rated_it(version: Version) -> None:
    engine = new_engine(version, emit="latest", k=200)
    bad, good = (Happening("u", item_id(i), START + i, "rating", v) for i, v in ((3, 1.0), (4, 9.0)))
    ((_, _, items),) = answers(engine, engine.apply([batch([bad, good], range(2))]).lists)
    assert item_id(3) not in items
    assert item_id(4) in items


def test_an_item_whose_name_is_not_known_is_not_recommended(version: Version) -> None:
    engine = new_engine(version, emit="latest", k=10_000)
    engine.names.catalogue.add(np.array([12345], np.uint64))
    ((_, _, items),) = answers(engine, engine.apply([batch(sent(1), [0])]).lists)
    assert len(items) == len(engine.names.catalogue) - 1
    assert None not in items


def test_events_of_one_user_in_two_partitions_end_the_engine(version: Version) -> None:
    new, known = [Happening("new", item_id(1), START)], [Happening("known", item_id(1), START)]
    with pytest.raises(ValueError, match="two partitions"):
        new_engine(version).apply([batch(new, [0], partition=0), batch(new, [0], partition=1)])
    engine = new_engine(version)
    engine.apply([batch(known, [0], partition=0)])
    with pytest.raises(ValueError, match="two partitions"):
        engine.apply([batch(known, [0], partition=1)])


def test_prequential_ranks_before_the_update_and_ties_count_against_the_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = random_version(tmp_path, items=20, transition_lags=0, pointer=False, half_lives_ms=(DAY_MS,))
    with torch.no_grad():
        for parameter in version.recommender.parameters():
            parameter.zero_()
    engine = new_engine(version, sample=1.0)
    ranks: list[int] = []
    monkeypatch.setattr(engine.prequential, "add_ranks", lambda _, __, ours, ___: ranks.extend(ours.tolist()))
    engine.apply(
        [batch([Happening("u", item_id(3), START), Happening("u", item_id(3), START + 1)], range(2))]
    )
    engine.prequential.finish_ranks()
    # Everything scores alike, also for the second event: its own first occurrence is not counted yet.
    assert ranks == [20, 20]
    engine.apply([batch([Happening("v", "new", START + 2), Happening("v", "new", START + 3)], range(2, 4))])
    engine.prequential.finish_ranks()
    assert ranks[2:] == [MISS, MISS]


def test_a_batch_s_ranks_do_not_wait_for_those_of_batches_behind_it(version: Version) -> None:
    engine = new_engine(version, sample=1.0)
    engine.apply([batch([Happening("u", item_id(1), START)], [0])])
    first = engine.prequential.started
    engine.prequential.start_ranks(
        RankedBy(1, version.id),
        lambda: pytest.fail("not asked for yet"),
        np.zeros(1, np.uint8),
        np.ones(1, bool),
        np.ones(1, bool),
    )
    engine.prequential.finish_ranks(first)
    assert engine.prequential.events == 1


def test_negative_events_are_not_ranked(version: Version) -> None:
    engine = new_engine(version, sample=1.0)
    engine.apply([batch([Happening("u", item_id(1), START, "rating", 1.0)], [0])])
    engine.prequential.finish_ranks()
    assert engine.prequential.events == 0


def test_lists_of_an_old_stream_do_not_change_by_waiting(version: Version) -> None:
    now = [START + 365 * DAY_MS]
    engine = new_engine(version, emit="latest")
    engine.wall = lambda: now[0]
    engine.apply([batch(sent(30), range(30))])
    (first,) = engine.apply([batch(sent(30), range(30))]).lists
    now[0] += 400 * DAY_MS
    (again,) = engine.apply([batch(sent(30), range(30))]).lists
    for before, after in zip(first.topk(), again.topk(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_live_lists_use_item_statistics_of_up_to_a_tenth_of_a_second_ago(version: Version) -> None:
    now = [START]
    engine = new_engine(version, emit="latest")
    engine.wall = lambda: now[0]

    def popularity_column_of_the_item(offset: int) -> float:
        happened = Happening("u-1", item_id(1), now[0])
        (lists,) = engine.apply([batch([happened], [offset])]).lists
        counted = engine.newest.ranker.scorer.matrix[:, -1].clone()
        assert lists.user == ["u-1"]
        return float(counted[1])

    first = popularity_column_of_the_item(0)
    now[0] += UPDATE_MS - 1
    assert popularity_column_of_the_item(1) == first
    now[0] += 1
    assert popularity_column_of_the_item(2) != first


def test_statistics_that_take_long_to_take_in_are_taken_in_less_often(version: Version) -> None:
    engine = new_engine(version)
    scorer, refreshed = engine.newest.ranker.scorer, list[float]()
    engine.newest.ranker.update_statistics(START - 1000, START - 1000)

    def slow(now: float) -> None:
        refreshed.append(now)
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass

    scorer.update_statistics = slow  # type: ignore[method-assign]
    for wall in range(START, START + 1000, 10):
        engine.newest.ranker.update_statistics(wall, wall)
    assert refreshed[0] == START
    assert len(refreshed) == 2, "50 ms each: not more than a tenth of the time"


def test_scores_of_a_stream_that_stands_still_are_brought_up_to_date_only_when_something_changed(
    version: Version,
) -> None:
    engine = new_engine(version)
    years_later = START + 10**12
    engine.wall = lambda: years_later
    engine.apply([batch(sent(5), range(5))])
    scorer, brought_up = engine.newest.ranker.scorer, list[float]()
    bring_up = scorer.update_statistics

    def noted(now: float) -> None:
        brought_up.append(now)
        bring_up(now)

    scorer.update_statistics = noted  # type: ignore[method-assign]
    now = engine.clock.now(years_later)
    for wait in range(10):
        engine.update_statistics(engine.newest.ranker, now, years_later + wait)
    assert brought_up == [now], "once, for the events that were still to be counted"
    engine.names.name_items(["new"])
    engine.update_statistics(engine.newest.ranker, now, years_later)
    assert len(brought_up) == 2, "for a new item"
    engine.statistics.forget_partition(0)
    engine.update_statistics(engine.newest.ranker, now, years_later)
    assert len(brought_up) == 3, "for other statistics"
    engine.update_statistics(engine.newest.ranker, now + 1, years_later)
    assert len(brought_up) == 4, "for a later moment"


def test_rows_that_outgrew_their_room_are_what_they_would_be_with_room_from_the_beginning(
    version: Version,
) -> None:
    cramped, roomy = new_engine(version), new_engine(version)
    cramped.newest.slab = Slab(cramped.newest.live.state_size, capacity=2)
    happenings = sent(600, users=40)  # 15 events each, and full windows of the first ones after them
    happenings += [Happening(f"u-{i % 2}", item_id(i), START + 10**6 + i) for i in range(200)]
    for engine in (cramped, roomy):
        for start in range(0, len(happenings), 7):
            part = happenings[start : start + 7]
            engine.apply([batch(part, range(start, start + len(part)))])
    found = stored_rows(cramped)
    assert len(found.user) == 40
    assert encode_rows(found) == encode_rows(stored_rows(roomy))
