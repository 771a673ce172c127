"""`eddy models prune` on a real broker: no version goes that an announcement in force, a row or the next
roll-back needs.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from eddy.cli.live_models import prune as prune_command
from eddy.models.errors import EddyError
from eddy.models.registry import Version, versions
from eddy.stream import prune as pruning
from eddy.stream.kafka import versions as announcing
from eddy.stream.kafka.producers import new_producer
from eddy.stream.kafka.versions import announce, announce_shares, live_announcement
from eddy.stream.prune import plan_prune, prune
from eddy.stream.records.messages import Message
from eddy.stream.records.settings import Settings
from eddy.stream.rollback import roll_back
from tests.chaos.traffic import START_MS
from tests.support.engines import item_id, random_version
from tests.support.published_versions import (
    USERS,
    announced,
    assert_whole,
    prunable,
    pruned,
    publish,
    rows_of,
    write_rows,
)
from tests.support.stage import PATIENCE_S, Stage
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("installed")


# -- prune: what stays -----------------------------------------------------------------------------------


def test_what_is_live_before_that_or_among_the_newest_stays_and_the_rest_goes(
    settings: Settings, four: list[Version], capsys: pytest.CaptureFixture[str]
) -> None:
    unannounced = publish(settings, 1)[0]
    prune_command(settings, keep=1, yes=False)
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said[:2]] == [four[0].id, four[1].id]
    assert said[2].endswith("stays  what eddy models rollback leads to")
    assert said[3].endswith("stays  live as epoch 4")
    assert said[4].endswith("stays  one of the newest 1")
    assert said[-1] == "Nothing was changed; to do it, add --yes."
    assert len(versions(settings.registry)) == 5
    assert announced(settings) == {version.id for version in four}
    prune_command(settings, keep=1, yes=True)
    assert capsys.readouterr().out.splitlines()[-1].startswith("2 versions removed, ")
    assert versions(settings.registry) == [four[2].id, four[3].id, unannounced.id]
    assert announced(settings) == {four[2].id, four[3].id}
    assert_whole(settings)
    assert prunable(settings) == []
    assert roll_back(settings).version == four[2].id


def test_the_versions_of_all_live_shares_stay(settings: Settings, four: list[Version]) -> None:
    announce_shares(settings, [(four[0], 50), (four[1], 50)])
    assert prunable(settings) == [four[2].id], "the newest stays, and is what a rollback leads to"


def test_a_version_that_a_row_names_stays_until_no_row_names_it(
    settings: Settings, four: list[Version]
) -> None:
    write_rows(settings, rows_of(four[0], 1))
    plan = plan_prune(settings, 1)
    assert list(plan.removed) == [four[1].id]
    assert plan.kept[four[0].id] == "rows of 3 users name it"
    assert prune(settings, plan) == [four[1].id]
    assert_whole(settings)
    # One user moves on, one is erased: the third one's row still needs it.
    write_rows(settings, [*rows_of(four[3], 4, USERS[:1]), (USERS[1].encode(), None)])
    plan = plan_prune(settings, 1)
    assert (list(plan.removed), plan.kept[four[0].id]) == ([], "rows of 1 users name it")
    write_rows(settings, rows_of(four[3], 4, USERS[2:]))
    assert pruned(settings) == [four[0].id]
    assert announced(settings) == {four[2].id, four[3].id}
    assert_whole(settings)


def test_a_version_stays_that_is_announced_beside_the_one_of_a_row(settings: Settings) -> None:
    first, second, third, fourth = publish(settings, 4)
    announce_shares(settings, [(first, 50), (second, 50)])
    announce(settings, third)
    announce(settings, fourth)
    write_rows(settings, rows_of(first, 1))
    assert prunable(settings) == [], "the row's epoch is looked up in an announcement that names both"
    write_rows(settings, rows_of(fourth, 3))
    assert prunable(settings) == [first.id, second.id]


async def _write_and_abort(settings: Settings, messages: list[Message]) -> None:
    producer = new_producer(settings, f"{settings.group}-0")
    await producer.start()
    await producer.begin_transaction()
    for key, value in messages:
        await producer.send_and_wait(settings.topics.user_state, value, key, partition=0)
    await producer.abort_transaction()
    await producer.stop()


def test_rows_that_were_never_committed_do_not_count(settings: Settings, four: list[Version]) -> None:
    write_rows(settings, rows_of(four[0], 1))
    asyncio.run(_write_and_abort(settings, rows_of(four[1], 2)))
    assert prunable(settings) == [four[1].id], "the committed rows are still those of the first version"


def test_nothing_goes_while_a_row_cannot_be_read(settings: Settings, four: list[Version]) -> None:
    key, value = rows_of(four[0], 1)[0]
    assert value is not None
    write_rows(settings, [(key, value[:-1] + bytes([value[-1] ^ 1])), (b"\xff", b"nobody's")])
    with pytest.raises(EddyError, match=r"user 'ada' does not match its checksum.*without a value"):
        plan_prune(settings, 1)
    write_rows(settings, [(key, None)])
    assert prunable(settings) == [four[0].id, four[1].id]


def test_nothing_goes_where_topics_are_missing_or_rows_are_on_their_way(
    settings: Settings, four: list[Version], admin: KafkaAdminClient
) -> None:
    with pytest.raises(EddyError, match="does not exist"):
        plan_prune(settings.replace(topic_prefix="no-installation."), 1)
    with pytest.raises(EddyError, match="no Kafka cluster is named"):
        plan_prune(settings.replace(bootstrap_servers=None), 1)
    staging = f"{settings.topic_prefix}repartition"
    admin.create_topics({staging: {"num_partitions": 1, "replication_factor": 1}})
    admin.wait_for_topics([staging])
    with pytest.raises(EddyError, match="an `eddy repartition` is unfinished"):
        plan_prune(settings, 1)
    assert versions(settings.registry) == [version.id for version in four]


# -- prune: kills and races ------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a kill: nothing handles it."""


def killed(*_: object, **__: object) -> None:
    raise Killed


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    with monkeypatch.context() as patched:
        yield patched


def test_a_prune_that_is_killed_before_folders_go_is_completed_by_the_next(
    settings: Settings, four: list[Version], dying: pytest.MonkeyPatch
) -> None:
    dying.setattr(pruning, "remove", killed)
    with pytest.raises(Killed):
        pruned(settings)
    dying.undo()
    assert announced(settings) == {four[2].id, four[3].id}
    assert_whole(settings)
    assert pruned(settings) == [four[0].id, four[1].id]
    assert_whole(settings)


def test_a_prune_that_is_killed_while_folders_go_is_completed_by_the_next(
    settings: Settings, four: list[Version], dying: pytest.MonkeyPatch
) -> None:
    dying.setattr(shutil, "rmtree", killed)
    with pytest.raises(Killed):
        pruned(settings)
    dying.undo()
    assert versions(settings.registry) == [four[2].id, four[3].id]
    assert len(list(Path(settings.registry).glob(".writing-*"))) == 2
    assert announced(settings) == {four[2].id, four[3].id}
    assert pruned(settings) == []
    assert_whole(settings)


def test_a_version_that_is_announced_after_the_plan_stays(settings: Settings, four: list[Version]) -> None:
    plan = plan_prune(settings, 1)
    assert list(plan.removed) == [four[0].id, four[1].id]
    announcement = announce(settings, four[0])
    assert prune(settings, plan) == [four[1].id]
    live = live_announcement(settings)
    assert live == announcement
    assert_whole(settings)


def test_who_announces_a_version_that_is_being_removed_is_told(
    settings: Settings, four: list[Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    def removed_meanwhile(_: Settings) -> object:
        shutil.rmtree(four[0].path)
        return before

    before = live_announcement(settings)
    monkeypatch.setattr(announcing, "live_announcement", removed_meanwhile)
    with pytest.raises(EddyError, match="was removed meanwhile: announce another version"):
        announce(settings, four[0])


# -- with a worker ---------------------------------------------------------------------------------------


def events(start: int, users: int = 8) -> list[Message]:
    return [
        (
            f"user-{n % users}".encode(),
            json.dumps(
                {"user_id": f"user-{n % users}", "item_id": item_id(n % 20), "timestamp": START_MS + n * 1000}
            ).encode(),
        )
        for n in range(start, start + 5 * users)
    ]


@pytest.mark.timeout(300)
def test_workers_move_their_rows_before_a_version_goes_and_follow_a_rollback(stage: Stage) -> None:
    settings, first = stage.settings, stage.version
    worker = stage.fleet.start()
    stage.send(events(0))
    stage.await_end()
    stage.fleet.remove(worker)
    second, third = (random_version(settings.registry, hidden=hidden, seed=hidden) for hidden in (8, 24))
    announce(settings, second)
    announce(settings, third)
    plan = plan_prune(settings, 1)
    assert (list(plan.removed), plan.kept[first.id]) == ([], "rows of 8 users name it")
    worker = stage.fleet.start()
    eventually(lambda: prunable(settings) == [first.id], PATIENCE_S, "all rows are of the newest version", 1)
    assert pruned(settings) == [first.id]
    assert roll_back(settings).version == second.id
    eventually(lambda: worker.metrics()["eddy_epoch"] == 4, PATIENCE_S, "the version before is live")
    stage.send(events(40))
    stage.await_end()
    eventually(lambda: prunable(settings, keep=1) == [], PATIENCE_S, "nothing more can go")
    stage.fleet.stop()
    assert stage.fleet.unexpected == []
    # A worker that starts from nothing finds all that it needs.
    stage.fleet.start()
    stage.send(events(80))
    stage.await_end()
    stage.fleet.stop()
    assert stage.fleet.unexpected == []


def test_before_the_first_announcement_the_newest_stay(settings: Settings) -> None:
    first, second = publish(settings, 2)
    plan = plan_prune(settings, 1)
    assert (list(plan.removed), plan.kept) == ([first.id], {second.id: "one of the newest 1"})
