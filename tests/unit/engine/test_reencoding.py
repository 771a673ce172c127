"""Rows are moved to the newest version from copies of their windows, while the engine goes on: whatever
happens to a row meanwhile, it ends as if it had been moved between two batches.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from eddy.models.registry import Version
from eddy.stream.engine.engine import Engine
from eddy.stream.engine.live_shares import LiveShares
from tests.support.engines import (
    Happening,
    assert_same_rows,
    changed_users,
    item_id,
    new_live_version,
    reencode_all,
    stored_rows,
    switch,
    switch_to,
)
from tests.support.two_versions import START, apply, epochs, sent, two_versions


def touch_u_1(engine: Engine) -> None:
    apply(engine, [Happening("u-1", item_id(3), START + 10**6)], 30)


def fill_the_window_of_u_1(engine: Engine) -> None:
    """So that its older half leaves the window."""
    apply(engine, [Happening("u-1", item_id(i % 50), START + 10**6 + i) for i in range(60)], 30)


def send_u_1_a_late_event(engine: Engine) -> None:
    apply(engine, [Happening("u-1", item_id(3), START + 1)], 30)


def erase_u_1(engine: Engine) -> None:
    engine.erase_users([(0, "u-1")])


def erase_u_1_who_comes_back(engine: Engine) -> None:
    erase_u_1(engine)
    touch_u_1(engine)


def lose_the_partition(engine: Engine) -> None:
    engine.forget_partition(0)


def meet_somebody_new(engine: Engine) -> None:
    apply(engine, [Happening("new", item_id(3), START + 10**6)], 30)


@pytest.mark.parametrize(
    "something",
    [
        touch_u_1, fill_the_window_of_u_1, send_u_1_a_late_event, erase_u_1, erase_u_1_who_comes_back,
        lose_the_partition, meet_somebody_new,
    ],
)  # fmt: skip
def test_what_happens_while_rows_are_encoded_counts_as_if_it_had_happened_before(
    first: Version, second: Version, something: Callable[[Engine], None]
) -> None:
    engine, before = two_versions(first, second), two_versions(first, second)
    rows = engine.begin_reencoding()
    assert rows is not None
    something(engine)
    something(before)
    moved = changed_users(engine.put_reencoded(rows.compute()))
    assert set(moved) == {user for user, epoch in epochs(before).items() if epoch == 1}
    reencode_all(before)
    assert_same_rows(stored_rows(engine), stored_rows(before))
    assert not reencode_all(engine)
    assert [version.live.epoch for version in engine.rows.versions] == [2]


def test_rows_are_not_moved_to_a_version_that_another_has_followed_meanwhile(
    first: Version, second: Version
) -> None:
    engine = two_versions(first, second)
    rows = engine.begin_reencoding()
    assert rows is not None
    switch(engine, first, 3)
    assert engine.put_reencoded(rows.compute()) == []
    assert set(epochs(engine).values()) == {1}
    reencode_all(engine)
    assert set(epochs(engine).values()) == {3}


def test_rows_of_partitions_that_were_given_up_meanwhile_stay_as_they_are(
    first: Version, second: Version
) -> None:
    engine = two_versions(first, second)
    rows = engine.begin_reencoding()
    assert rows is not None
    engine.reencoding.leave_out([0])
    assert engine.put_reencoded(rows.compute()) == []
    assert set(epochs(engine).values()) == {1}


def test_items_may_get_other_numbers_while_rows_are_encoded(first: Version, second: Version) -> None:
    engine, before = two_versions(first, second), two_versions(first, second)
    for each in (engine, before):
        each.names.catalogue.add(np.arange(1, 1001, dtype=np.uint64))  # nobody names them
    rows = engine.begin_reencoding()
    assert rows is not None
    assert engine.forget_items()
    assert before.forget_items()
    engine.put_reencoded(rows.compute())
    reencode_all(before)
    assert_same_rows(stored_rows(engine), stored_rows(before))


def test_rows_go_to_the_version_of_their_share_one_version_after_the_other(
    first: Version, second: Version
) -> None:
    engine = two_versions(first, second)
    apply(engine, sent(300, 100, start=30), 30)
    switch_to(
        engine, LiveShares([new_live_version(engine, version, 3) for version in (first, second)], [50, 50])
    )
    shares = []
    while (rows := engine.begin_reencoding()) is not None:
        moved = changed_users(engine.put_reencoded(rows.compute()))
        assert set(moved) <= rows.newest.slab.slot_of.keys()
        shares.append(rows.newest)
    assert set(map(id, shares)) == set(map(id, engine.rows.shared))
    assert set(epochs(engine).values()) == {3}
    assert len(epochs(engine)) == 100
