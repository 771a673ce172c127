"""`eddy models` on a real broker: going back to a version, and removing versions without removing one that an
announcement in force, a row or the next roll-back needs.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer

from eddy.cli.live_models import go_back
from eddy.cli.live_models import prune as prune_command
from eddy.cli.models import list_versions
from eddy.cli.terminal import make_live
from eddy.models.decisions import read_decisions
from eddy.models.errors import EddyError
from eddy.models.registry import Version, versions
from eddy.stream import prune as pruning
from eddy.stream.kafka import versions as announcing
from eddy.stream.kafka.clients import client_config
from eddy.stream.kafka.producers import new_producer
from eddy.stream.kafka.topics import ensure_topics
from eddy.stream.kafka.versions import (
    all_announcements,
    announce,
    announce_shares,
    live_announcement,
    open_version,
)
from eddy.stream.prune import plan_prune, prune
from eddy.stream.records.messages import Message
from eddy.stream.records.settings import Settings
from eddy.stream.rollback import roll_back
from eddy.stream.state.rows import keyed
from tests.chaos.traffic import START_MS
from tests.support.engines import Happening, batch, item_id, new_engine, random_version, stored_rows
from tests.support.stage import PATIENCE_S, Stage
from tests.support.waiting import eventually

USERS = ("ada", "bob", "eve")


@pytest.fixture
def settings(settings: Settings, admin: KafkaAdminClient) -> Settings:
    """An installation with its topics."""
    ensure_topics(admin, settings)
    return settings


def publish(settings: Settings, count: int) -> list[Version]:
    return [random_version(settings.registry, hidden=8, items=20, seed=seed) for seed in range(count)]


def test_what_is_announced_by_hand_is_on_record(settings: Settings) -> None:
    first, second = publish(settings, 2)
    make_live(settings, [(first, 100)])
    make_live(settings, [(first, 90), (second, 10)])  # whoever watches it records what becomes of it
    make_live(settings, [(second, 100)])
    decisions = read_decisions(settings.registry)
    assert [(each.kind, each.version, each.live, each.epoch, each.decided_by) for each in decisions] == [
        ("went live", first.id, "", 1, "announce"),
        ("went live", second.id, first.id, 3, "announce"),
    ]


@pytest.fixture
def four(settings: Settings) -> list[Version]:
    """Four versions, each of which was live for all users: epochs 1 to 4."""
    made = publish(settings, 4)
    for version in made:
        announce(settings, version)
    return made


def rows_of(version: Version, epoch: int, users: tuple[str, ...] = USERS) -> list[Message]:
    """What a worker writes to partition 0 of `user-state` for users that have a row of this version."""
    engine = new_engine(version, epoch)
    happenings = [Happening(user, item_id(n), START_MS + n) for n, user in enumerate(users)]
    engine.apply([batch(happenings, range(len(users)))])
    return list(keyed(stored_rows(engine)))


def write(settings: Settings, topic: str, messages: list[Message]) -> None:
    producer = KafkaProducer(**client_config(settings), acks="all")
    for key, value in messages:
        producer.send(topic, key=key, value=value, partition=0)
    producer.flush()
    producer.close()


def write_rows(settings: Settings, messages: list[Message]) -> None:
    write(settings, settings.topics.user_state, messages)


def prunable(settings: Settings, keep: int = 1) -> list[str]:
    return list(plan_prune(settings, keep).removed)


def pruned(settings: Settings, keep: int = 1) -> list[str]:
    return prune(settings, plan_prune(settings, keep))


def announced(settings: Settings) -> set[str]:
    return {share.version for each in all_announcements(settings) for share in each.every_share}


def assert_whole(settings: Settings) -> None:
    """No announcement names a version that cannot be loaded, and nothing unfinished lies in the registry."""
    for announcement in all_announcements(settings):
        for share in announcement.every_share:
            open_version(share, settings.registry)
    left = set(settings.registry.children()) - set(versions(settings.registry))
    assert left <= {".lock", "decisions"}


# -- rollback --------------------------------------------------------------------------------------------


def test_a_rollback_leads_to_the_version_before_and_a_second_one_back(settings: Settings) -> None:
    first, second = publish(settings, 2)
    announce(settings, first)
    announce(settings, second)
    for number, (target, left) in enumerate([(first, second), (second, first), (first, second)]):
        decision = roll_back(settings)
        live = live_announcement(settings)
        assert live is not None
        assert (live.epoch, live.version, live.shares) == (3 + number, target.id, [])
        assert (decision.kind, decision.version, decision.live) == ("rolled back", target.id, left.id)
        assert (decision.epoch, decision.decided_by) == (live.epoch, "rollback")
        assert decision.figures == {"epoch_before": 2 + number, "percent_before": {left.id: 100}}
    assert [decision.epoch for decision in read_decisions(settings.registry, first.id)] == [3, 4, 5]


def test_a_rollback_ends_a_canary_and_passes_over_one_that_was_taken_back(settings: Settings) -> None:
    first, second, third = publish(settings, 3)
    announce(settings, first)
    announce(settings, second)
    announce_shares(settings, [(second, 90), (third, 10)])
    assert roll_back(settings).version == second.id
    assert roll_back(settings).version == first.id, "all users had it, as none had the canary"


def test_a_rollback_to_a_version_that_is_named(
    settings: Settings, four: list[Version], capsys: pytest.CaptureFixture[str]
) -> None:
    go_back(settings, four[1].id)
    assert capsys.readouterr().err.endswith(f"{four[1].id} is live for all users again, as epoch 5\n")
    live = live_announcement(settings)
    assert live is not None
    assert live.version == four[1].id
    with pytest.raises(EddyError, match="is live for all users already, as epoch 5"):
        roll_back(settings, four[1].id)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("missing", ["the folder", "the weights"])
def test_a_version_that_cannot_be_loaded_is_not_rolled_back_to(
    settings: Settings, four: list[Version], missing: str, named: bool
) -> None:
    target = four[2]
    if missing == "the folder":
        shutil.rmtree(target.path)
    else:
        (target.path / "model.safetensors").unlink()
    with pytest.raises(
        EddyError, match=rf"{target.id} cannot be loaded, and nothing was changed.*from a copy"
    ):
        roll_back(settings, target.id if named else None)
    live = live_announcement(settings)
    assert live is not None
    assert live.version == four[3].id
    assert read_decisions(settings.registry) == []


def test_a_rollback_without_a_version_before_says_what_to_do(settings: Settings) -> None:
    with pytest.raises(EddyError, match="eddy announce VERSION"):
        roll_back(settings)
    announce(settings, *publish(settings, 1))
    with pytest.raises(EddyError, match="eddy models rollback VERSION"):
        roll_back(settings)
    with pytest.raises(EddyError, match=r"\.\./x cannot be loaded"):
        roll_back(settings, "../x")
    with pytest.raises(EddyError, match="does not exist"):
        roll_back(settings.replace(topic_prefix="no-installation."))


# -- list ------------------------------------------------------------------------------------------------


def test_the_table_shows_who_has_which_version(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = publish(settings, 3)
    list_versions(settings.replace(topic_prefix="no-installation."), None)  # no topic is no error here
    announce_shares(settings, [(first, 90), (third, 10)])
    list_versions(settings, tmp_path / "list.json")
    rows = json.loads((tmp_path / "list.json").read_text())["versions"]
    assert {row["version"]: row["live"] for row in rows} == {
        first.id: "90 % (epoch 1)",
        second.id: "",
        third.id: "10 % (epoch 1)",
    }
    assert "10 % (epoch 1)" in capsys.readouterr().out.splitlines()[-1]
    shutil.rmtree(third.path)
    list_versions(settings, None)
    missing = capsys.readouterr().out.splitlines()[-1]
    assert missing.startswith(f"{third.id}: live for 10 % (epoch 1), and not in the registry")


def test_a_cluster_that_does_not_answer_costs_the_column_and_not_the_table(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    (version,) = publish(settings, 1)
    list_versions(settings.replace(bootstrap_servers="127.0.0.1:1"), None)
    printed = capsys.readouterr()
    header, row = printed.out.splitlines()
    assert row.startswith(version.id)
    assert "live" not in header.split()
    assert "is not known: no answer from the Kafka cluster" in printed.err


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
    with pytest.raises(EddyError, match=r"user 'ada' does not match its checksum.*empty value"):
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
