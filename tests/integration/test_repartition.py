"""Another partition count for a living system: no event lost or doubled, whatever is killed on the way."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import MessageSizeTooLargeError, TopicAuthorizationFailedError

from eddy.models.errors import EddyError
from eddy.models.registry import Version
from eddy.models.scoring.item_statistics import Statistics
from eddy.models.vocabulary import Catalogue
from eddy.stream.engine.engine import Engine
from eddy.stream.kafka.clients import admin_client, client_config
from eddy.stream.kafka.topics import ensure_topics, topic_ids
from eddy.stream.kafka.versions import announce
from eddy.stream.records.partitioner import partition_of
from eddy.stream.records.settings import Settings
from eddy.stream.repartition.repartition import STEPS, preview, repartition
from eddy.stream.state.item_statistics import StatisticsReader
from eddy.stream.state.rows import decode_rows
from tests.chaos.cluster import Cluster
from tests.chaos.faults import Die
from tests.chaos.fleet import Fleet
from tests.support.engines import (
    TOLERANCE,
    WINDOW_COLUMNS,
    Happening,
    batch,
    item_id,
    new_engine,
    random_version,
    stored_rows,
)
from tests.support.kafka_clusters import MakeSettings
from tests.support.waiting import eventually
from tests.unit.repartition.test_moved_rows import sums

USERS, ITEMS = 40, 8
START_MS = 1_380_000_000_000
WORK_S = 60.0

pytestmark = pytest.mark.timeout(240)


def happenings(first: int, last: int) -> list[Happening]:
    """A part of one and the same stream of events."""
    rng = np.random.default_rng(7)
    who, what = rng.integers(0, USERS, 4_000), rng.integers(0, ITEMS, 4_000)
    return [
        Happening(
            f"user-{who[i]}",
            item_id(int(what[i])),
            START_MS + i * 1_000,
            "rating" if i % 3 == 0 else "view",
            float(what[i] + 2) if i % 3 == 0 else None,
            f"event-{i}" if i % 2 else None,
        )
        for i in range(first, last)
    ]


def send(settings: Settings, events: Sequence[Happening]) -> None:
    """As a producer with the partitioner that is set."""
    producer = KafkaProducer(**client_config(settings), linger_ms=5)
    for one in events:
        event = {
            "user_id": one.user,
            "item_id": one.item,
            "timestamp": one.time,
            "event_type": one.type,
            "value": one.value,
            "event_id": one.event_id,
        }
        key = one.user.encode()
        home = int(partition_of([key], settings.partitions, settings.partitioner)[0])
        producer.send(settings.topics.events, json.dumps(event).encode(), key, partition=home)
    producer.close()


def work(settings: Settings, folder: Path) -> None:
    """A worker until it has applied all there is; then it leaves its group."""
    cluster = Cluster(settings)
    with Fleet(settings, folder) as fleet:
        worker = fleet.start()

        def done() -> bool:
            assert worker.alive, worker.log().decode()
            ends = cluster.ends(settings.topics.events, settings.partitions)
            committed = cluster.committed()
            return all(committed.get(number, 0) >= end for number, end in ends.items())

        eventually(done, WORK_S)
        fleet.stop()
        assert not fleet.unexpected
    cluster.close()


def assert_as_uninterrupted(settings: Settings, version: Version, events: Sequence[Happening]) -> None:
    """Every row, and the item statistics, equal those of one engine that has seen the events once."""
    engine = new_engine(version)
    engine.apply([batch(events, range(len(events)))])
    assert_rows(settings, engine)
    assert_statistics(settings, engine, events[-1].time)


def assert_rows(settings: Settings, engine: Engine) -> None:
    cluster = Cluster(settings)
    newest = {one.key: one for one in cluster.read(settings.topics.user_state, settings.partitions)}
    cluster.close()
    (found,) = decode_rows(list(newest), [one.value for one in newest.values()])
    with admin_client(settings) as admin:
        assert found.topic_id == topic_ids(admin, [settings.topics.events])[settings.topics.events].bytes
    assert found.partition.tolist() == [one.partition for one in newest.values()]
    expected = stored_rows(engine)
    assert sorted(found.user) == list(expected.user)
    order = np.argsort(np.array(found.user))
    for name in ("applied", "length", "anchor_time"):
        np.testing.assert_array_equal(getattr(found, name)[order], getattr(expected, name), err_msg=name)
    filled = np.arange(expected.item.shape[1]) < expected.length[:, None]
    for name in WINDOW_COLUMNS:
        here, there = getattr(found, name)[order][filled], getattr(expected, name)[filled]
        np.testing.assert_array_equal(here, there, err_msg=name)
    for name in ("hidden", "anchor"):
        here, there = getattr(found, name)[order], getattr(expected, name)
        np.testing.assert_allclose(here, there, rtol=0, atol=TOLERANCE)


def assert_statistics(settings: Settings, engine: Engine, now: int) -> None:
    engine.statistics_buffer.flush()
    statistics = engine.statistics
    reader = StatisticsReader(Statistics(statistics.half_lives_ms, statistics.successors), Catalogue())
    cluster = Cluster(settings)
    for one in cluster.read(settings.topics.item_stats, settings.partitions):
        reader.apply_records(one.partition, [(one.key, one.value)])
    cluster.close()
    found = sums(reader.statistics, reader.catalogue.hashes, now)
    expected = sums(statistics, engine.names.catalogue.hashes, now)
    for here, there in zip(found, expected, strict=True):
        assert here == pytest.approx(there, rel=1e-4, abs=1e-9)


@pytest.fixture
def settings(make_settings: MakeSettings, tmp_path: Path) -> Settings:
    return make_settings(partitions=4, session_timeout_s=6, cache_dir=tmp_path / "cache")


@pytest.fixture
def version(settings: Settings, admin: KafkaAdminClient) -> Version:
    """Four partitions, and a live version."""
    ensure_topics(admin, settings)
    made = random_version(settings.registry)
    announce(settings, made)
    return made


def move(settings: Settings, partitions: int) -> Settings:
    asyncio.run(repartition(settings, partitions))
    return settings.replace(partitions=partitions)


def test_half_a_stream_with_4_partitions_and_half_with_8_ends_as_if_nothing_had_happened(
    settings: Settings, version: Version, tmp_path: Path, admin: KafkaAdminClient
) -> None:
    send(settings, happenings(0, 2_000))
    work(settings, tmp_path)
    now = move(settings, 8)
    ensure_topics(admin, now)
    send(now, happenings(2_000, 4_000))
    work(now, tmp_path)
    assert_as_uninterrupted(now, version, happenings(0, 4_000))


def repartition_until(settings: Settings, partitions: int, step: str) -> None:
    asyncio.run(repartition(settings, partitions, Die(step, 1)))


def test_killed_at_each_step_and_run_again_it_ends_the_same_and_unread_events_come_along(
    settings: Settings, version: Version, tmp_path: Path, admin: KafkaAdminClient
) -> None:
    send(settings, happenings(0, 1_000))
    work(settings, tmp_path)
    send(settings, happenings(1_000, 1_500))
    # A worker that dies between the confirmation of its rows and its commit leaves exactly this behind:
    start = {TopicPartition(settings.topics.events, number): OffsetAndMetadata(0, "") for number in range(4)}
    admin.alter_group_offsets(settings.group, start)
    processes = multiprocessing.get_context("forkserver")
    for step in STEPS:
        process = processes.Process(target=repartition_until, args=(settings, 3, step))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, step
    now = move(settings, 3)
    ensure_topics(admin, now)
    assert not {name for name in admin.list_topics() if name == f"{settings.topic_prefix}repartition"}
    cluster = Cluster(now)
    assert sum(cluster.ends(now.topics.events, 3).values()) == 500
    cluster.close()
    work(now, tmp_path)
    assert_as_uninterrupted(now, version, happenings(0, 1_500))


def test_a_recreated_events_topic_stops_the_worker_and_repartition_takes_rows_and_its_events_along(
    settings: Settings, version: Version, tmp_path: Path, admin: KafkaAdminClient
) -> None:
    send(settings, happenings(0, 1_000))
    work(settings, tmp_path)
    admin.delete_topics([settings.topics.events])
    eventually(lambda: settings.topics.events not in admin.list_topics())
    ensure_topics(admin, settings)
    send(settings, happenings(1_000, 1_500))
    with Fleet(settings, tmp_path) as fleet:
        worker = fleet.start()
        assert worker.ended(WORK_S) == 1
        assert b"it was recreated" in worker.log()
        assert b"run `eddy repartition`" in worker.log()
    eventually(lambda: _stopped(settings))
    now = move(settings, 4)
    work(now, tmp_path)
    assert_as_uninterrupted(now, version, happenings(0, 1_500))


def copy_states(old: Settings, new: Settings) -> None:
    """Copy what names no offset of `events` but in rows, as a mirror between clusters does."""
    cluster, producer = Cluster(old), KafkaProducer(**client_config(new), max_request_size=8 << 20)
    by_user, single = old.partitions, 1
    for name, partitions in (
        ("user_state", by_user), ("item_stats", by_user), ("items", single), ("model_versions", single),
    ):  # fmt: skip
        for one in cluster.read(getattr(old.topics, name), partitions):
            producer.send(getattr(new.topics, name), one.value, one.key, partition=one.partition)
    producer.close()
    cluster.close()


def test_states_that_were_copied_to_another_cluster_go_on_there(
    make_settings: MakeSettings, settings: Settings, version: Version, tmp_path: Path,
    admin: KafkaAdminClient,
) -> None:  # fmt: skip
    send(settings, happenings(0, 1_000))
    work(settings, tmp_path)
    there = make_settings(
        partitions=4, session_timeout_s=6, cache_dir=tmp_path / "there", registry=settings.registry
    )
    ensure_topics(admin, there)
    copy_states(settings, there)
    ensure_topics(admin, move(there, 4))
    send(there, happenings(1_000, 2_000))
    work(there, tmp_path)
    assert_as_uninterrupted(there, version, happenings(0, 2_000))


def test_rows_under_another_partitioner_stop_the_worker_and_repartition_moves_them(
    settings: Settings, version: Version, tmp_path: Path, admin: KafkaAdminClient
) -> None:
    send(settings, happenings(0, 500))
    work(settings, tmp_path)
    settings = settings.replace(partitioner="crc32")
    with Fleet(settings, tmp_path) as fleet:
        worker = fleet.start()
        assert worker.ended(WORK_S) == 1
        assert b"whom EDDY_PARTITIONER=crc32 puts elsewhere" in worker.log()
        assert b"`eddy repartition --partitions 4`" in worker.log()
    eventually(lambda: _stopped(settings))
    now = move(settings, 4)
    send(now, happenings(500, 1_000))
    work(now, tmp_path)
    assert_as_uninterrupted(now, version, happenings(0, 1_000))


def _stopped(settings: Settings) -> bool:
    try:
        asyncio.run(preview(settings, 5))
    except EddyError:
        return False
    return True


def test_while_a_worker_is_a_member_of_the_group_it_refuses_and_changes_nothing(
    settings: Settings, version: Version, admin: KafkaAdminClient
) -> None:
    before = topic_ids(admin, [settings.topics.events])
    member = KafkaConsumer(settings.topics.events, group_id=settings.group, **client_config(settings))
    member.poll(timeout_ms=5_000)
    with pytest.raises(EddyError, match=r"has members: stop workers and `eddy ingest`"):
        move(settings, 8)
    member.close()
    assert topic_ids(admin, [settings.topics.events]) == before
    ensure_topics(admin, settings)


def test_writers_get_an_error_while_it_is_at_work_and_none_of_their_events_is_lost_silently(
    settings: Settings, version: Version
) -> None:
    refused = []

    def write(step: str) -> None:
        producer = KafkaProducer(**client_config(settings))
        if step in ("closed", "copied", "planned", "created", "moved", "switched"):
            with pytest.raises(MessageSizeTooLargeError):
                producer.send(settings.topics.events, b"{}", b"user", partition=0).get(10)
            refused.append(step)
        producer.close()

    asyncio.run(repartition(settings, 8, write))
    assert len(refused) == 6
    send(settings.replace(partitions=8), happenings(0, 10))


def test_a_row_that_cannot_be_read_stops_it_before_anything_is_changed_and_writers_go_on(
    settings: Settings, version: Version, admin: KafkaAdminClient
) -> None:
    producer = KafkaProducer(**client_config(settings))
    producer.send(settings.topics.user_state, b"no row at all, but long enough" * 9, b"user-1", partition=0)
    producer.close()
    with pytest.raises(EddyError, match="row of user 'user-1' has a format"):
        move(settings, 8)
    ensure_topics(admin, settings)
    send(settings, happenings(0, 10))


def test_a_worker_does_not_start_between_and_another_count_does_not_mix_with_an_unfinished_one(
    settings: Settings, version: Version, admin: KafkaAdminClient
) -> None:
    class Stopped(BaseException):
        pass

    def stop(step: str) -> None:
        if step == "created":
            raise Stopped

    with pytest.raises(Stopped):
        asyncio.run(repartition(settings, 8, stop))
    assert asyncio.run(preview(settings, 8)).unfinished
    with pytest.raises(EddyError, match="events is closed: an `eddy repartition` is unfinished"):
        ensure_topics(admin, settings.replace(partitions=8))
    with pytest.raises(EddyError, match="a repartition to 8 partitions is unfinished: run that one again"):
        move(settings, 6)
    ensure_topics(admin, move(settings, 8))


def test_the_count_that_is_there_already_is_nothing_to_do(settings: Settings, version: Version) -> None:
    with pytest.raises(EddyError, match="events has 4 partitions already: nothing to do"):
        asyncio.run(preview(settings, 4))


def test_what_an_operator_set_on_a_topic_is_set_on_the_new_one(
    settings: Settings, version: Version, admin: KafkaAdminClient
) -> None:
    def resource(**configs: str) -> ConfigResource:
        return ConfigResource(ConfigResourceType.TOPIC, settings.topics.events, configs or None)

    admin.alter_configs([resource(**{"retention.ms": "123456789", "max.message.bytes": "2097152"})])
    move(settings, 8)
    found = admin.describe_configs([resource()])["topic"][settings.topics.events]
    assert found["retention.ms"]["value"] == "123456789"
    assert found["max.message.bytes"]["value"] == "2097152"


def test_of_topics_that_the_cluster_deleted_in_part_no_row_is_lost(
    settings: Settings, version: Version, tmp_path: Path, admin: KafkaAdminClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    send(settings, happenings(0, 500))
    work(settings, tmp_path)
    delete = KafkaAdminClient.delete_topics

    def refuse_one(client: KafkaAdminClient, names: Sequence[str]) -> object:
        """As a cluster that does not allow to delete all of them, and says so."""
        if settings.topics.user_state in names:
            delete(client, [settings.topics.user_state])
            raise TopicAuthorizationFailedError
        return delete(client, names)

    with monkeypatch.context() as patch:
        patch.setattr(KafkaAdminClient, "delete_topics", refuse_one)
        with pytest.raises(EddyError, match=r"TopicAuthorizationFailedError.*run it again"):
            move(settings, 3)
    now = move(settings, 3)
    ensure_topics(admin, now)
    send(now, happenings(500, 1_000))
    work(now, tmp_path)
    assert_as_uninterrupted(now, version, happenings(0, 1_000))


def test_a_second_one_at_the_same_time_is_refused(settings: Settings, version: Version) -> None:
    refusals: list[str] = []

    def begin_another(step: str) -> None:
        if step == "copied":
            with ThreadPoolExecutor(1) as other, pytest.raises(EddyError) as refused:
                other.submit(move, settings, 8).result()
            refusals.append(str(refused.value))

    asyncio.run(repartition(settings, 8, begin_another))
    assert "at work on this machine" in refusals[0]
    send(settings.replace(partitions=8), happenings(0, 10))


def interrupted(settings: Settings) -> None:
    """A process that gets Ctrl-C when `events` is closed."""

    def ctrl_c(step: str) -> None:
        if step == "closed":
            os.kill(os.getpid(), signal.SIGINT)

    asyncio.run(repartition(settings, 8, ctrl_c))


def test_ctrl_c_before_anything_is_deleted_leaves_all_as_it_was(
    settings: Settings, version: Version, admin: KafkaAdminClient
) -> None:
    process = multiprocessing.get_context("spawn").Process(target=interrupted, args=(settings,))
    process.start()
    process.join(60)
    assert process.exitcode not in (0, None)
    assert f"{settings.topic_prefix}repartition" not in admin.list_topics()
    ensure_topics(admin, settings)
    send(settings, happenings(0, 10))
