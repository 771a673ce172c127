"""Shares of users: who has which version of an epoch, in the engine and in announcements."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from eddy.cli.terminal import read_shares
from eddy.models.errors import EddyError
from eddy.models.registry import Version
from eddy.models.untrusted import Unreadable
from eddy.stream.engine.engine import Engine
from eddy.stream.engine.live_shares import LiveShares
from eddy.stream.kafka.versions import announce_shares, decode_announcement
from eddy.stream.records.rank_counts import RankedBy
from eddy.stream.records.schema import GROUPS, Announcement, Share, encode
from eddy.stream.records.settings import load_settings
from eddy.stream.state.sampling import group_of, share_of
from tests.support.engines import (
    Happening,
    assert_same_rows,
    batch,
    item_id,
    new_engine,
    new_live_version,
    random_version,
    reencode_all,
    stored_rows,
    stored_rows_of,
    switch,
    switch_to,
)

START = 1_380_000_000_000
USERS = [f"u-{i}".encode() for i in range(40)]
MANY = [f"user-{i}".encode() for i in range(50_000)]


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[Version]:
    folder = tmp_path_factory.mktemp("registry")
    return [
        random_version(folder / "a"),
        random_version(folder / "b", "lstm", hidden=12, seed=1),
        random_version(folder / "c", seed=2),
    ]


def events() -> list[Happening]:
    return [
        Happening(user.decode(), item_id(i * 7 % 50), START + i * 1000) for i, user in enumerate(USERS * 3)
    ]


def two_shares(versions: list[Version], **options: Any) -> Engine:
    """An engine whose users have the first version at epoch 1, and 70 % the second, 30 % the third at 2."""
    engine = new_engine(versions[0], **options)
    live = [new_live_version(engine, version, 2) for version in versions[1:]]
    engine.apply([batch(events(), range(120))])
    switch_to(engine, LiveShares(live, [70, 30]))
    return engine


def test_a_user_s_share_is_the_same_everywhere_and_for_good() -> None:
    assert share_of(USERS[:12], 2, [70, 30]).tolist() == [1, 0, 1, 1, 1, 1, 0, 0, 1, 0, 0, 0]
    assert share_of([b"only"], 1, [100]).tolist() == [0]


def test_shares_have_their_percent_of_the_users_and_each_epoch_deals_them_anew() -> None:
    percents = [60, 30, 10]
    dealt = [share_of(MANY, epoch, percents) for epoch in (1, 2)]
    for shares in dealt:
        np.testing.assert_allclose(np.bincount(shares) / len(MANY), np.array(percents) / 100, atol=0.01)
    both = np.mean((dealt[0] == 2) & (dealt[1] == 2))
    assert abs(both - 0.01) < 0.003, "independent of each other"


def test_a_larger_share_keeps_the_users_of_the_smaller_one_within_an_epoch() -> None:
    small, large = (share_of(MANY, 3, [percent, 100 - percent]) == 0 for percent in (10, 40))
    assert (large | ~small).all()


def test_moved_and_new_rows_go_to_the_version_of_their_share_and_are_what_it_alone_makes_of_them(
    versions: list[Version],
) -> None:
    engine = two_shares(versions, emit="latest")
    reencode_all(engine)
    share = dict(zip(USERS, share_of(USERS, 2, [70, 30]).tolist(), strict=True))
    new = [Happening(f"n-{i}", item_id(i), START + 10**6) for i in range(30)]
    lists = engine.apply([batch(new, range(120, 150))]).lists
    assert {made.version for made in lists} == {versions[1].id, versions[2].id}
    share |= {
        f"n-{i}".encode(): number
        for i, number in enumerate(share_of([f"n-{i}".encode() for i in range(30)], 2, [70, 30]).tolist())
    }
    assert len(engine.rows.versions) == 2
    for number, rows in enumerate(engine.rows.versions):
        found = stored_rows_of(engine, rows)
        assert {user for user, mine in share.items() if mine == number} == set(found.user)
        alone = new_engine(versions[1 + number], epoch=2)
        alone.apply([batch([*events(), *new], range(150))])
        others = alone.newest.slab.slot_of.keys() - rows.slab.slot_of.keys()
        alone.erase_users([(0, user) for user in others])
        assert_same_rows(found, stored_rows(alone))


def test_restored_rows_of_both_shares_keep_their_states_and_others_go_to_their_share(
    versions: list[Version],
) -> None:
    first, again = two_shares(versions), two_shares(versions)
    old = new_engine(versions[2], epoch=1)
    old.apply([batch(events(), range(120))])
    reencode_all(first)
    again.forget_partition(0)
    for rows in first.rows.versions:
        again.load_rows(stored_rows_of(first, rows))
    assert reencode_all(again) == []
    of_none = two_shares(versions)
    of_none.forget_partition(0)
    of_none.load_rows(stored_rows(old))
    reencode_all(of_none)
    for engine in (again, of_none):
        for here, there in zip(engine.rows.versions, first.rows.versions, strict=True):
            assert_same_rows(stored_rows_of(engine, here), stored_rows_of(first, there))


def test_an_experiment_ends_with_the_next_epoch(versions: list[Version]) -> None:
    engine = two_shares(versions)
    reencode_all(engine)
    switch(engine, versions[1], 3)
    reencode_all(engine)
    assert [rows.live.epoch for rows in engine.rows.versions] == [3]
    assert len(engine.rows) == len(USERS)


def test_prequential_ranks_are_kept_by_version(versions: list[Version]) -> None:
    engine = two_shares(versions, sample=1.0)
    reencode_all(engine)
    engine.apply([batch([Happening(u.decode(), item_id(1), START + 10**6) for u in USERS], range(120, 160))])
    engine.prequential.finish_ranks()
    told = {version: means["events"] for version, means in engine.prequential.metrics().items()}
    of_second = int((share_of(USERS, 2, [70, 30]) == 0).sum())
    assert told == {versions[0].id: 120, versions[1].id: of_second, versions[2].id: 40 - of_second}
    assert engine.prequential.events == 160


def test_ranks_are_taken_once_by_epoch_and_by_the_group_of_their_users(versions: list[Version]) -> None:
    engine = two_shares(versions, sample=1.0)
    reencode_all(engine)
    engine.apply([batch([Happening(u.decode(), item_id(1), START + 10**6) for u in USERS], range(120, 160))])
    engine.prequential.finish_ranks()
    taken = engine.prequential.take(2) | engine.prequential.take(2)
    share, group = share_of(USERS, 2, [70, 30]), group_of(USERS)
    events = {by: table[0].tolist() for by, table in taken.items()}
    assert events == {
        RankedBy(1, versions[0].id): (3 * np.bincount(group, minlength=GROUPS)).tolist(),
        RankedBy(2, versions[1].id): np.bincount(group[share == 0], minlength=GROUPS).tolist(),
        RankedBy(2, versions[2].id): np.bincount(group[share == 1], minlength=GROUPS).tolist(),
    }
    assert engine.prequential.take(2) == {}


# -- announcements -----------------------------------------------------------------------------------------


def announcement(*percents: int, name: str = "v{}") -> bytes:
    shares = [Share(name.format(i), "folder", percent) for i, percent in enumerate(percents)]
    return encode(Announcement(epoch=3, version="v0", folder="folder", announced_at=0, shares=shares))


def test_an_announcement_without_shares_is_one_version_for_all_and_reads_as_before() -> None:
    before = b'{"epoch":3,"version":"v0","folder":"folder","announced_at":0}'
    assert announcement() == before
    assert decode_announcement(before).every_share == [Share("v0", "folder", 100)]
    assert [share.percent for share in decode_announcement(announcement(90, 10)).every_share] == [90, 10]


@pytest.mark.parametrize("percents", [(90, 20), (50,), (100, 0), (101,)])
def test_shares_that_do_not_add_up_are_refused(percents: tuple[int, ...]) -> None:
    with pytest.raises(Unreadable, match="not an announcement"):
        decode_announcement(announcement(*percents))


def test_a_version_with_two_shares_is_refused() -> None:
    with pytest.raises(Unreadable, match="two shares"):
        decode_announcement(announcement(50, 50, name="same"))


def test_shares_that_do_not_add_up_are_refused_before_anything_is_written(versions: list[Version]) -> None:
    nowhere = load_settings(bootstrap_servers="localhost:1")
    with pytest.raises(EddyError, match="add up to 90 percent"):
        announce_shares(nowhere, [(versions[0], 50), (versions[1], 40)])


def test_the_command_reads_one_version_or_shares() -> None:
    assert read_shares(["v1"]) == [("v1", 100)]
    assert read_shares(["v1=90", "v2=10"]) == [("v1", 90), ("v2", 10)]
    for arguments in (["v1", "v2=10"], ["v1="], ["v1=x"], ["=5"], ["v1=0"], ["v1=-3"], ["v1=1.5"]):
        with pytest.raises(EddyError, match="VERSION=PERCENT"):
            read_shares(arguments)
