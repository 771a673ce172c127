"""Stored rows that an engine takes while several versions are in use: with their states, or to be encoded
anew, and one for each user in any case.
"""

from __future__ import annotations

import numpy as np
import pytest

from eddy.models.registry import Version
from eddy.stream.engine.rows_by_version import NewerRows
from eddy.stream.state.rows import Rows, decode_rows, encode_rows
from eddy.stream.worker.partition_task import note_changed
from tests.support.engines import (
    TOPIC_ID,
    Happening,
    assert_same_rows,
    batch,
    changed_users,
    item_id,
    new_engine,
    reencode_all,
    stored_rows,
    stored_rows_of,
    switch,
)
from tests.support.two_versions import START, apply, epochs, owned, sent, two_versions, written


def stored_by(version: Version, epoch: int, n: int = 30) -> Rows:
    """The rows of u-0 … u-2 after n events, encoded by a version."""
    engine = new_engine(version, epoch=epoch)
    apply(engine, sent(n), 0)
    return stored_rows(engine)


def test_restored_rows_of_a_version_in_use_keep_their_states_and_the_others_are_encoded_anew(
    first: Version, second: Version
) -> None:
    engine = two_versions(first, second)
    engine.load_rows(stored_by(first, 1, 60))
    assert epochs(engine) == {"u-0": 1, "u-1": 1, "u-2": 1}
    assert_same_rows(stored_rows_of(engine, engine.rows.versions[0]), stored_by(first, 1, 60))
    of_neither = new_engine(second, epoch=3)
    of_neither.load_rows(stored_by(first, 1, 60))
    assert of_neither.reencode_oldest(0.0) != []
    reencode_all(of_neither)
    assert_same_rows(stored_rows(of_neither), stored_by(second, 3, 60))


def test_a_row_to_be_encoded_anew_is_so_when_an_event_touches_it_and_is_written_then(
    first: Version, second: Version
) -> None:
    engine, task = new_engine(second, epoch=3), owned()
    engine.load_rows(stored_by(first, 1))
    changed = engine.apply([batch([Happening("u-1", item_id(1), START + 10**6)], [30])]).changed
    note_changed({0: task}, changed)
    assert written(task, engine) == {"u-1": 3}
    fresh = new_engine(second, epoch=3)
    apply(fresh, [*sent(30), Happening("u-1", item_id(1), START + 10**6)], 0)
    reencode_all(engine)
    assert_same_rows(stored_rows(engine), stored_rows(fresh))


def test_rows_that_wait_to_be_encoded_anew_wait_in_a_snapshot_as_well(
    first: Version, second: Version
) -> None:
    """A snapshot with their new epoch would be all that has it: nothing would write them to the changelog."""
    engine, task = new_engine(second, epoch=3), owned()
    engine.load_rows(stored_by(first, 1))
    (block,) = task.snapshot(engine, TOPIC_ID).blocks
    restarted = new_engine(second, epoch=3)
    restarted.load_rows(block)
    note_changed({0: task}, reencode_all(restarted))
    assert written(task, restarted) == {"u-0": 3, "u-1": 3, "u-2": 3}
    assert_same_rows(stored_rows(restarted), stored_by(second, 3))


def test_rows_of_the_newest_epoch_but_of_another_version_are_encoded_anew(
    first: Version, second: Version
) -> None:
    engine = new_engine(second, epoch=1)
    engine.load_rows(stored_by(first, 1))
    reencode_all(engine)
    assert_same_rows(stored_rows(engine), stored_by(second, 1))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("n", [(30, 60), (30, 30)])
def test_of_two_stored_rows_the_one_that_includes_more_or_is_of_the_newer_epoch_stays(
    first: Version, second: Version, order: tuple[int, int], n: tuple[int, int]
) -> None:
    engine = new_engine(first)
    apply(engine, [Happening("other", item_id(1), START)], 0)
    switch(engine, second, 2)
    stored = stored_by(first, 1, n[0]), stored_by(second, 2, n[1])
    for which in order:
        engine.load_rows(stored[which])
    assert epochs(engine) == {"u-0": 2, "u-1": 2, "u-2": 2, "other": 1}
    assert_same_rows(stored_rows(engine), stored[1])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_row_of_an_old_version_that_includes_more_stays_with_it(
    first: Version, second: Version, order: tuple[int, int]
) -> None:
    engine = two_versions(first, second)
    stored = stored_by(second, 2, 60), stored_by(first, 1, 90)
    for which in order:
        engine.load_rows(stored[which])
    assert set(epochs(engine).values()) == {1}


def test_a_row_of_another_partition_takes_the_place_of_one_of_an_old_version(
    first: Version, second: Version
) -> None:
    engine = two_versions(first, second)
    moved = new_engine(second, epoch=2)
    moved.apply([batch(sent(3), range(3), partition=1)])
    engine.load_rows(stored_rows(moved, partition=1))
    assert epochs(engine) == {"u-0": 2, "u-1": 2, "u-2": 2}


def test_rows_of_another_size_of_model_are_taken_and_encoded_for_the_newest_version(
    first: Version, second: Version
) -> None:
    stored = stored_by(second, 1)
    engine = new_engine(first, epoch=2)
    for rows in decode_rows(stored.user, encode_rows(stored)):
        engine.load_rows(rows)
    assert sorted(changed_users(reencode_all(engine))) == ["u-0", "u-1", "u-2"]
    assert_same_rows(stored_rows(engine), stored_by(first, 2))


def test_a_row_of_a_newer_epoch_is_refused_and_nothing_of_its_batch_is_taken(
    first: Version, second: Version
) -> None:
    engine = new_engine(first, epoch=2)
    with pytest.raises(NewerRows, match="epoch 3") as refused:
        engine.load_rows(stored_by(second, 3))
    assert refused.value.epoch == 3
    assert len(engine.rows) == 0


def test_a_row_that_includes_less_than_the_one_held_is_ignored(first: Version) -> None:
    engine = new_engine(first)
    apply(engine, sent(20), 0)
    newer = stored_rows(engine)
    assert engine.load_rows(stored_by(first, 1, 10)) == []
    np.testing.assert_array_equal(stored_rows(engine).offset, newer.offset)
