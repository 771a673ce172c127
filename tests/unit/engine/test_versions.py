"""Several model versions side by side in the engine: each row is stepped and scored by the version that it is
encoded by, until it is moved to the newest one, once.
"""

from __future__ import annotations

import gc
import itertools
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from eddy.models.registry import Version
from eddy.stream.engine.live_shares import LiveShares
from eddy.stream.engine.reencoding import FEWEST
from eddy.stream.state.snapshots import open_snapshot, write_snapshot
from eddy.stream.worker.partition_task import note_changed
from tests.support.engines import (
    TOPIC_ID,
    Happening,
    assert_same_rows,
    batch,
    changed_users,
    item_id,
    new_engine,
    new_live_version,
    reencode_all,
    stored_rows,
    stored_rows_of,
    switch,
)
from tests.support.two_versions import START, apply, epochs, owned, sent, two_versions, written

# -- stepped and scored by their own version ---------------------------------------------------------------


def test_rows_of_two_versions_in_one_batch_are_what_engines_of_one_version_each_make_of_them(
    first: Version, second: Version
) -> None:
    engine = two_versions(first, second, emit="latest", k=10)
    mixed = [
        Happening(user, item_id(i), START + 10**6 + i)
        for i in range(12)
        for user in (f"u-{i % 2}", f"new-{i % 3}")
    ]
    report = engine.apply([batch(mixed, range(30, 54))])
    of_old, of_new = report.lists
    assert (of_old.epoch, of_old.version) == (1, first.id)
    assert (of_new.epoch, of_new.version) == (2, second.id)
    assert sorted(of_old.user) == ["u-0", "u-1"]
    assert sorted(of_new.user) == ["new-0", "new-1", "new-2"]
    assert report.applied == 24
    assert sorted(changed_users(report.changed)) == ["new-0", "new-1", "new-2", "u-0", "u-1"]
    for version, made, rows in zip((first, second), report.lists, engine.rows.versions, strict=True):
        alone = new_engine(version, epoch=made.epoch, emit="latest", k=10)
        apply(alone, sent(30), 0)
        (lists,) = alone.apply([batch(mixed, range(30, 54))]).lists
        expected = dict(zip(lists.user, lists.topk().item.tolist(), strict=True))
        assert made.topk().item.tolist() == [expected[user] for user in made.user]
        of_others = alone.newest.slab.slot_of.keys() - rows.slab.slot_of.keys()
        alone.erase_users([(0, user) for user in of_others])
        assert_same_rows(stored_rows_of(engine, rows), stored_rows(alone))


def test_item_statistics_count_the_events_of_all_versions_in_the_order_of_their_offsets(
    first: Version, second: Version
) -> None:
    engine, single = two_versions(first, second), new_engine(second)
    mixed = [Happening(user, item_id(i), START + 10**6 + i) for i in range(20) for user in ("u-0", "new")]
    apply(single, sent(30), 0)
    single.statistics_buffer.drain_counted(0)
    engine.statistics_buffer.drain_counted(0)
    for happenings, offset in ((mixed[:13], 30), (mixed[13:], 43)):
        apply(engine, happenings, offset)
        apply(single, happenings, offset)
    (counted,), (expected,) = (each.statistics_buffer.drain_counted(0) for each in (engine, single))
    np.testing.assert_array_equal(counted.item, expected.item)
    np.testing.assert_array_equal(counted.time, expected.time)
    np.testing.assert_array_equal(counted.previous[:, :1], expected.previous[:, :1])
    assert counted.offset == expected.offset == 69


def test_versions_that_look_back_less_and_further_are_counted_one_after_the_other(
    first: Version, second: Version
) -> None:
    engine = two_versions(first, second)
    assert first.recommender.config.transition_lags != second.recommender.config.transition_lags
    apply(engine, [Happening("new", item_id(1), START + 10**6)], 30)
    assert sum(len(counted.item) for counted in engine.statistics_buffer.drain_counted(0)) == 31


def test_an_event_of_a_user_of_an_old_version_is_refused_in_another_partition(
    first: Version, second: Version
) -> None:
    engine = two_versions(first, second)
    with pytest.raises(ValueError, match="two partitions"):
        engine.apply([batch([Happening("u-0", item_id(1), START)], [0], partition=1)])


# -- exchange and move -------------------------------------------------------------------------------------


def test_a_touched_row_goes_on_with_its_own_version_until_it_is_moved_from_its_window(
    first: Version, second: Version
) -> None:
    engine = two_versions(first, second)
    apply(engine, [Happening("u-1", item_id(1), START + 10**6)], 30)
    assert epochs(engine) == {"u-0": 1, "u-1": 1, "u-2": 1}
    reencode_all(engine)
    assert epochs(engine) == {"u-0": 2, "u-1": 2, "u-2": 2}
    fresh = new_engine(second, epoch=2)
    apply(fresh, [*sent(30), Happening("u-1", item_id(1), START + 10**6)], 0)
    assert_same_rows(stored_rows(engine), stored_rows(fresh))


def test_moved_rows_keep_all_but_their_states_and_lose_the_anchor(first: Version, second: Version) -> None:
    engine = new_engine(first, sample=0.5)
    happenings = [
        Happening(f"u-{i % 3}", item_id(i % 90), START + i * 1000, "rating", i % 10, f"id-{i}")
        for i in range(400)
    ]
    apply(engine, happenings, 0)
    before, sampled = stored_rows(engine), engine.newest.slab.sampled.copy()
    users = engine.newest.slab.slot_of.copy()
    assert (before.anchor_time >= 0).all()
    switch(engine, second, 2)
    reencode_all(engine)
    after = stored_rows(engine)
    for name in ("offset", "applied", "digest", "length", "item", "time", "type", "event_id", "older"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name), err_msg=name)
    np.testing.assert_array_equal(after.value[after.item > 0], before.value[before.item > 0])
    assert not after.anchor.any()
    slab = engine.newest.slab
    assert [slab.sampled[slab.slot_of[user]] for user in users] == [sampled[slot] for slot in users.values()]


def test_the_most_recently_active_rows_are_moved_first_and_each_of_them_once(
    first: Version, second: Version
) -> None:
    users = 4 * FEWEST
    engine = new_engine(first)
    apply(engine, sent(users, users), 0)
    switch(engine, second, 2)
    moved: list[str] = []
    while engine.rows.may_be_stale:
        assert engine.reencoding.left == users - len(moved)
        moved += changed_users(engine.reencode_oldest(1e-9))
    assert moved == [f"u-{i}" for i in reversed(range(users))]
    assert engine.reencoding.left == 0
    assert engine.reencode_oldest(1.0) == []


def test_an_old_version_leaves_with_its_last_row_however_that_goes(first: Version, second: Version) -> None:
    moved, erased, lost, empty = (two_versions(first, second) for _ in range(4))
    reencode_all(moved)
    erased.erase_users([(0, f"u-{i}") for i in range(2)])
    assert len(erased.rows.versions) == 2
    erased.erase_users([(0, "u-2")])
    lost.forget_partition(0)
    empty = new_engine(first)
    switch(empty, second, 2)
    for engine in (moved, erased, lost, empty):
        assert [version.live.epoch for version in engine.rows.versions] == [2]
        assert engine.reencode_oldest(1.0) == []


def test_the_memory_of_an_old_version_is_free_when_its_rows_have_moved(
    first: Version, second: Version
) -> None:
    engine = two_versions(first, second)
    old = weakref.ref(engine.rows.versions[0].slab)
    assert old() is not None
    reencode_all(engine)
    gc.collect()
    assert old() is None


def test_rows_pass_over_an_epoch_that_was_followed_by_another_before_they_were_moved(
    first: Version, second: Version
) -> None:
    engine = two_versions(first, second)
    apply(engine, [Happening("new", item_id(1), START)], 30)
    switch(engine, first, 3)
    assert epochs(engine) == {"u-0": 1, "u-1": 1, "u-2": 1, "new": 2}
    seen = [epochs(engine)]
    while engine.rows.may_be_stale:
        engine.reencode_oldest(1e-9)
        seen.append(epochs(engine))
    assert set(seen[-1].values()) == {3}
    for earlier, later in itertools.pairwise(seen):
        assert all(later[user] >= epoch for user, epoch in earlier.items())


def test_an_engine_never_goes_back_to_an_older_epoch(first: Version) -> None:
    engine = new_engine(first, epoch=2)
    for epoch in (1, 2):
        with pytest.raises(ValueError, match="epoch"):
            switch(engine, first, epoch)


def test_items_and_events_that_come_while_a_version_is_built_are_scored_by_it(
    first: Version, second: Version
) -> None:
    engine = new_engine(first, emit="latest", k=500)
    apply(engine, sent(30), 0)
    builder = engine.builder(LiveShares.whole(new_live_version(engine, second, 2)))
    versions = builder()
    apply(engine, [Happening("u-0", "brand new", START + 10**6)], 30)
    engine.switch_version(versions, builder)
    lists = engine.apply([batch([Happening("new", item_id(1), START + 10**6)], [31])]).lists
    late = new_engine(first, emit="latest", k=500)
    apply(late, [*sent(30), Happening("u-0", "brand new", START + 10**6)], 0)
    switch(late, second, 2)
    expected = late.apply([batch([Happening("new", item_id(1), START + 10**6)], [31])]).lists
    np.testing.assert_array_equal(lists[0].topk().item, expected[0].topk().item)
    torch.testing.assert_close(lists[0].topk().score, expected[0].topk().score)


def test_a_version_that_was_built_before_items_got_other_numbers_is_not_taken(
    first: Version, second: Version
) -> None:
    engine = new_engine(first)
    builder = engine.builder(LiveShares.whole(new_live_version(engine, second, 2)))
    engine.names.keep_items(np.arange(200))
    engine.switch_version(builder(), builder)
    assert engine.newest.live.epoch == 1


# -- what is written ---------------------------------------------------------------------------------------


def test_a_row_that_moves_after_it_changed_is_written_once_and_as_it_is_then(
    first: Version, second: Version
) -> None:
    engine, task = new_engine(first), owned()
    note_changed({0: task}, engine.apply([batch(sent(30), range(30))]).changed)
    assert written(task, engine) == {"u-0": 1, "u-1": 1, "u-2": 1}
    switch(engine, second, 2)
    assert written(task, engine) == {}, "an exchange changes no row"
    touched = [Happening("u-1", item_id(1), START + 10**6), Happening("new", item_id(1), START + 10**6)]
    note_changed({0: task}, engine.apply([batch(touched, range(30, 32))]).changed)
    assert written(task, engine) == {"u-1": 1, "new": 2}
    note_changed({0: task}, engine.apply([batch(touched[:1], [32])]).changed)
    note_changed({0: task}, reencode_all(engine))
    assert written(task, engine) == {"u-0": 2, "u-1": 2, "u-2": 2}
    assert written(task, engine) == {}


def test_a_snapshot_holds_the_rows_of_all_versions_with_states_of_their_own_sizes(
    first: Version, second: Version, tmp_path: Path
) -> None:
    engine = two_versions(first, second)
    apply(engine, [Happening("new", item_id(1), START)], 30)
    write_snapshot(tmp_path / "s", owned().snapshot(engine, TOPIC_ID))
    again = new_engine(first)
    apply(again, [Happening("other", item_id(1), START)], 0)  # so that the first version stays
    switch(again, second, 2)
    with open_snapshot(tmp_path / "s", TOPIC_ID, 10**9) as snapshot:
        blocks = [rows for rows, _ in snapshot.blocks()]
    assert [rows.hidden.shape[1] for rows in blocks] == [16, 16]  # an LSTM has h and c
    for rows in blocks:
        again.load_rows(rows)
    again.erase_users([(0, "other")])
    for here, there in zip(again.rows.versions, engine.rows.versions, strict=True):
        assert_same_rows(stored_rows_of(again, here), stored_rows_of(engine, there))


# -- what leaves -------------------------------------------------------------------------------------------


def test_users_of_an_old_version_can_be_erased_and_idle(first: Version, second: Version) -> None:
    engine = two_versions(first, second)
    apply(engine, [Happening("new", item_id(1), START + 10**6)], 30)
    assert engine.idle_users(0, longer_than_ms=500_000, before=100) == ["u-0", "u-1", "u-2"]
    engine.erase_users([(0, "u-1"), (1, "u-2"), (0, "new")])
    assert epochs(engine) == {"u-0": 1, "u-2": 1}
    assert len(engine.rows) == 2


def test_items_get_other_numbers_in_the_rows_of_all_versions(first: Version, second: Version) -> None:
    engine, kept = two_versions(first, second, emit="latest"), two_versions(first, second, emit="latest")
    for each in (engine, kept):
        apply(each, [Happening("new", "brand new", START)], 30)
    engine.names.catalogue.add(np.arange(1, 1001, dtype=np.uint64))  # nobody names them
    assert engine.forget_items()
    assert len(engine.names.catalogue) == len(kept.names.catalogue)
    for here, there in zip(engine.rows.versions, kept.rows.versions, strict=True):
        assert_same_rows(stored_rows_of(engine, here), stored_rows_of(kept, there))
    happenings = [Happening(user, item_id(2), START + 10**6) for user in ("u-0", "new")]
    reports = [each.apply([batch(happenings, [31, 32])]) for each in (engine, kept)]
    for here_lists, there_lists in zip(*(report.lists for report in reports), strict=True):
        torch.testing.assert_close(here_lists.topk().score, there_lists.topk().score)


def test_rows_of_partitions_that_others_work_on_stay_as_they_are_until_they_are_this_process_s(
    first: Version, second: Version
) -> None:
    engine = two_versions(first, second)
    engine.reencoding.leave_out([0])
    assert reencode_all(engine) == []
    assert set(epochs(engine).values()) == {1}
    engine.reencoding.leave_out([1])
    assert reencode_all(engine)
    assert set(epochs(engine).values()) == {2}
