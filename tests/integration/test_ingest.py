"""Topics that users already have, brought onto `events`: whatever their key, partitioner and field names, and
whoever is killed on the way, every record arrives, and none twice.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from multiprocessing.context import SpawnProcess
from typing import Any

import msgspec
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition

from eddy.models.errors import EddyError
from eddy.stream.ingest.ingest import Counts, ingest
from eddy.stream.ingest.mapping import parse_map
from eddy.stream.ingest.source import FIRST_RECORDS, Mapped, Source, group_of
from eddy.stream.kafka.clients import admin_client, client_config
from eddy.stream.kafka.topics import prepare_topics, topic_ids
from eddy.stream.records.partitioner import partition_of
from eddy.stream.records.schema import Event
from eddy.stream.records.settings import Settings
from tests.support.kafka_clusters import MakeSettings
from tests.support.waiting import eventually

FIELDS = "user_id=who.uid,item_id=sku,timestamp=ts"
SOURCE_PARTITIONS = 3
USERS = 50
START = 1_700_000_000


def run(settings: Settings, topic: str, fields: str = FIELDS, time_unit: str = "s", **options: Any) -> Counts:
    return asyncio.run(ingest(settings, topic, parse_map(fields, time_unit, "view"), **options))


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(session_timeout_s=6)


@pytest.fixture
def source(settings: Settings) -> Iterator[str]:
    """A topic as a downstream team has it, with another partition count than `events`."""
    name = f"{settings.group}-clicks"
    with admin_client(settings) as admin:
        admin.create_topics({name: {"num_partitions": SOURCE_PARTITIONS, "replication_factor": 1}})
        admin.wait_for_topics([name])
        yield name
        admin.delete_topics([name])


def record(number: int) -> bytes:
    """Numbers for ids, seconds for time, the user inside another object."""
    return json.dumps({"who": {"uid": number % USERS}, "sku": number % 97, "ts": START + number}).encode()


def send(settings: Settings, topic: str, values: Sequence[bytes], first: int = 0) -> None:
    """Keyed by user and partitioned by CRC32, as librdkafka's clients do."""
    producer = KafkaProducer(**client_config(settings), linger_ms=20)
    for number, value in enumerate(values, first):
        key = str(number % USERS).encode()
        producer.send(topic, value, key, partition=zlib.crc32(key) % SOURCE_PARTITIONS)
    producer.close()


def read(settings: Settings, topic: str) -> list[Any]:
    """All records of a topic."""
    consumer = KafkaConsumer(**client_config(settings), group_id=None, auto_offset_reset="earliest")
    tps = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
    consumer.assign(tps)
    consumer.seek_to_beginning(*tps)
    end = consumer.end_offsets(tps)
    records = []
    while any(consumer.position(tp) < end[tp] for tp in tps):
        records += [one for part in consumer.poll(timeout_ms=200).values() for one in part]
    consumer.close()
    return records


def written(settings: Settings) -> list[Event]:
    return [msgspec.json.decode(one.value, type=Event) for one in read(settings, settings.topics.events)]


def test_a_crc32_keyed_topic_with_other_names_arrives_complete_keyed_and_placed_as_eddy_needs_it(
    settings: Settings, source: str
) -> None:
    send(settings, source, [record(number) for number in range(1_000)])
    assert run(settings, source, until_end=True) == Counts(written=1_000)
    records = read(settings, settings.topics.events)
    events = [msgspec.json.decode(one.value, type=Event) for one in records]
    assert sorted((event.timestamp, event.user_id, event.item_id) for event in events) == sorted(
        ((START + number) * 1000, str(number % USERS), str(number % 97)) for number in range(1_000)
    )
    assert [one.key.decode() for one in records] == [event.user_id for event in events]
    homes = partition_of([one.key for one in records], settings.partitions).tolist()
    assert [one.partition for one in records] == homes
    assert {event.event_type for event in events} == {"view"}


def test_an_event_is_named_after_its_source_record_and_the_order_within_a_user_is_kept(
    settings: Settings, source: str
) -> None:
    send(settings, source, [record(number) for number in range(1_000)])
    run(settings, source, until_end=True)
    with admin_client(settings) as admin:
        topic_id = str(topic_ids(admin, [source])[source])
    stored = {f"{topic_id}:{one.partition}:{one.offset}": one.value for one in read(settings, source)}
    seen = defaultdict(list)
    for event in written(settings):
        origin = json.loads(stored.pop(event.event_id or ""))
        assert (str(origin["who"]["uid"]), origin["ts"] * 1000) == (event.user_id, event.timestamp)
        seen[event.user_id].append(event.timestamp)
    assert not stored
    assert all(times == sorted(times) for times in seen.values())


def test_records_that_cannot_be_mapped_become_dead_letters_and_hold_up_no_others(
    settings: Settings, source: str
) -> None:
    send(settings, source, [record(0), b"not json", record(2), b'{"who": {}}', record(4)])
    assert run(settings, source, until_end=True) == Counts(written=3, rejected=2)
    letters = {one.value: dict(one.headers) for one in read(settings, settings.topics.dead_letters)}
    assert set(letters) == {b"not json", b'{"who": {}}'}
    assert letters[b"not json"]["topic"].decode() == source
    assert b"not a JSON object" in letters[b"not json"]["reason"]
    assert b"no user_id: field who.uid is absent or null" in letters[b'{"who": {}}']["reason"]


WRONG = "user_id=who,item_id=sku,timestamp=ts"


def committed(settings: Settings, admin: KafkaAdminClient, topic: str) -> int:
    group = group_of(settings, topic)
    return sum(at.offset for at in admin.list_group_offsets([group])[group].values())


def test_a_topic_of_which_nothing_can_be_mapped_is_left_as_it_is_however_often_it_is_tried(
    settings: Settings, source: str, admin: KafkaAdminClient
) -> None:
    send(settings, source, [record(number) for number in range(200)])
    for _ in range(2):
        with pytest.raises(EddyError, match="none of the first 200 records can be mapped"):
            run(settings, source, WRONG, until_end=True)
        assert read(settings, settings.topics.dead_letters) == written(settings) == []
        assert committed(settings, admin, source) == 0
    assert run(settings, source, until_end=True) == Counts(written=200)
    send(settings, source, [b"no JSON"] * 20)
    assert run(settings, source, until_end=True) == Counts(rejected=20), "not the group's first records"


def test_the_first_thousand_records_without_an_event_stop_a_group_that_follows_a_topic(
    settings: Settings, source: str, admin: KafkaAdminClient
) -> None:
    avro = b"\0\0\0\0\1\x04u1\x04i1"
    send(settings, source, [avro] * (FIRST_RECORDS - 1))
    with pytest.raises(EddyError, match="framed for a schema registry"):
        run(settings, source, until_end=True)
    send(settings, source, [avro])
    with pytest.raises(EddyError, match=f"none of the first {FIRST_RECORDS} records can be mapped"):
        run(settings, source)
    tps = [TopicPartition(source, number) for number in range(SOURCE_PARTITIONS)]
    admin.alter_group_offsets(group_of(settings, source), {tp: OffsetAndMetadata(0, "") for tp in tps})
    assert run(settings, source, until_end=True) == Counts(rejected=FIRST_RECORDS), "set by hand: go on"


def test_first_records_held_back_are_read_again_when_partitions_come_and_go(
    settings: Settings, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(settings, source, [b"no JSON"] * 200)
    with admin_client(settings) as admin:
        topic_id = str(topic_ids(admin, [source])[source])
    reading = Source(settings, source, topic_id, parse_map(FIELDS))

    def read_all() -> None:
        letters = 0
        while letters < 200:
            polled = reading.poll()
            letters += sum(map(len, polled.values()))
            assert reading.map_records(polled) == Mapped([], [], 0, held_back=True)

    read_all()
    reading.on_partitions_revoked([])  # a rebalance after which it keeps its partitions
    assert reading.rest_at_end() == Mapped([], [], 0)
    read_all()
    monkeypatch.setattr(reading, "_group_is_proven", lambda: True)  # another member could map one
    assert len(reading.rest_at_end().letters) == 200
    reading.close()


def test_first_records_that_cannot_be_mapped_are_dead_letters_once_a_later_one_can(
    settings: Settings, source: str
) -> None:
    send(settings, source, [b"no JSON"] * 20)
    process = run_process(settings, source)
    with admin_client(settings) as admin:
        eventually(lambda: group_of(settings, source) in {g["group_id"] for g in admin.list_groups()}, 60)
    send(settings, source, [record(number) for number in range(30)])
    eventually(lambda: ends(settings, settings.topics.dead_letters) == 20, within_s=60)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 0
    assert len(written(settings)) == 30


def test_what_was_committed_is_not_read_again(settings: Settings, source: str) -> None:
    send(settings, source, [record(number) for number in range(500)])
    run(settings, source, until_end=True)
    send(settings, source, [record(number) for number in range(500, 700)], first=500)
    assert run(settings, source, until_end=True) == Counts(written=200)
    assert len(written(settings)) == 700


@pytest.mark.parametrize("fields", [FIELDS, FIELDS + ",event_id=ts"])
def test_events_written_before_a_crash_that_came_before_the_commit_are_not_written_again(
    settings: Settings, source: str, admin: KafkaAdminClient, fields: str
) -> None:
    send(settings, source, [record(number) for number in range(300)])
    run(settings, source, fields, until_end=True)
    before = admin.list_group_offsets([group_of(settings, source)])[group_of(settings, source)]
    send(settings, source, [record(number) for number in range(300, 1_000)], first=300)
    run(settings, source, fields, until_end=True)
    # A process that dies between the confirmation of its writes and its commit leaves exactly this behind:
    admin.alter_group_offsets(
        group_of(settings, source),
        {tp: OffsetAndMetadata(at.offset, at.metadata) for tp, at in before.items()},
    )
    send(settings, source, [record(number) for number in range(1_000, 1_100)], first=1_000)
    assert run(settings, source, fields, until_end=True) == Counts(written=100, known=700)
    assert Counter(event.timestamp for event in written(settings)) == Counter(
        (START + number) * 1000 for number in range(1_100)
    )


def test_events_written_before_two_crashes_in_a_row_are_not_written_again(
    settings: Settings, source: str, admin: KafkaAdminClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eddy.stream.ingest.doubts._CLOCK_MARGIN_MS", 0)  # as if minutes lay between them
    group = group_of(settings, source)
    send(settings, source, [record(number) for number in range(300)])
    run(settings, source, until_end=True)
    before = admin.list_group_offsets([group])[group]
    send(settings, source, [record(number) for number in range(300, 1_000)], first=300)
    run(settings, source, until_end=True)
    # The first process dies before its commit; the second one after the commit of a first small batch.
    admin.alter_group_offsets(
        group, {tp: OffsetAndMetadata(at.offset, at.metadata) for tp, at in before.items()}
    )
    with monkeypatch.context() as patch:
        patch.setattr("eddy.stream.ingest.source.BATCH_RECORDS", 50)
        second = Source(
            settings, source, str(topic_ids(admin, [source])[source]), parse_map(FIELDS, "s", "view")
        )
        while not (polled := second.poll()):
            pass
        assert second.map_records(polled).known == 50
        second.commit()
        second.close()
    assert run(settings, source, until_end=True) == Counts(known=650)
    assert len(written(settings)) == 1_000
    notes = {at.metadata for at in admin.list_group_offsets([group])[group].values()}
    assert min(map(int, notes)) > max(int(at.metadata) for at in before.values()), "and the doubt ends"


def test_offsets_that_somebody_has_set_back_keep_no_more_in_memory_than_what_is_in_doubt(
    settings: Settings, source: str, admin: KafkaAdminClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, in_doubt = group_of(settings, source), 20
    send(settings, source, [record(number) for number in range(1_000)])
    run(settings, source, until_end=True)
    admin.alter_group_offsets(
        group,
        {TopicPartition(source, number): OffsetAndMetadata(0, "") for number in range(SOURCE_PARTITIONS)},
    )
    monkeypatch.setattr("eddy.stream.ingest.source.MOST_IN_DOUBT", in_doubt)
    again = Source(settings, source, str(topic_ids(admin, [source])[source]), parse_map(FIELDS, "s", "view"))
    while not again.poll():
        pass
    assert len(again._written) == in_doubt * SOURCE_PARTITIONS
    came = [one.timestamp for one in read(settings, source)]
    assert all(doubt.since_ms >= min(came) for doubt in again._doubts.values()), "no older events are read"
    again.close()
    assert run(settings, source, until_end=True).known == in_doubt * SOURCE_PARTITIONS


def run_process(settings: Settings, topic: str) -> SpawnProcess:
    process = multiprocessing.get_context("spawn").Process(target=run, args=(settings, topic), daemon=True)
    process.start()
    return process


def ends(settings: Settings, topic: str) -> int:
    consumer = KafkaConsumer(**client_config(settings), group_id=None)
    try:
        tps = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        return sum(consumer.end_offsets(tps).values())
    finally:
        consumer.close()


@pytest.mark.timeout(240)
def test_killed_in_the_middle_again_and_again_no_record_is_lost_and_none_written_twice(
    settings: Settings, source: str
) -> None:
    total, kills = 40_000, 2
    send(settings, source, [record(number) for number in range(total)])
    prepare_topics(settings)

    def grown(so_far: int) -> bool:
        return ends(settings, settings.topics.events) > so_far

    for _ in range(kills):
        so_far = ends(settings, settings.topics.events)
        process = run_process(settings, source)
        eventually(partial(grown, so_far), within_s=60)
        process.kill()
        process.join()
    assert ends(settings, settings.topics.events) < total
    run(settings, source, until_end=True)
    times = Counter(event.timestamp for event in written(settings))
    assert set(times) == {(START + number) * 1000 for number in range(total)}
    assert max(times.values()) == 1


def test_a_stopped_process_flushes_commits_and_exits_with_0(settings: Settings, source: str) -> None:
    process = run_process(settings, source)
    send(settings, source, [record(number) for number in range(100)])
    with admin_client(settings) as admin:
        group = group_of(settings, source)

        def committed() -> int:
            return sum(at.offset for at in admin.list_group_offsets([group])[group].values())

        eventually(lambda: committed() == 100, within_s=60)
        process_id = process.pid
        assert process_id is not None
        os.kill(process_id, signal.SIGTERM)
        process.join(30)
        assert process.exitcode == 0
        assert not admin.describe_groups([group])[group]["members"]
    assert len(written(settings)) == 100


def test_records_of_an_aborted_transaction_are_not_ingested_and_markers_do_not_hold_up_the_end(
    settings: Settings, source: str
) -> None:
    producer = KafkaProducer(**client_config(settings), transactional_id=f"{source}-writer")
    producer.init_transactions()
    for numbers, commit in ((range(10), True), (range(10, 20), False)):
        producer.begin_transaction()
        for number in numbers:
            producer.send(source, record(number), partition=0)
        producer.commit_transaction() if commit else producer.abort_transaction()
    producer.close()
    started = time.monotonic()
    assert run(settings, source, until_end=True) == Counts(written=10)
    assert time.monotonic() - started < 30


def test_a_topic_that_does_not_exist_is_one_clear_line(settings: Settings) -> None:
    with pytest.raises(EddyError, match=r"topic nowhere does not exist on .*: check --topic"):
        run(settings, "nowhere")


def test_one_of_eddys_own_topics_is_refused_as_a_source(settings: Settings) -> None:
    with pytest.raises(EddyError, match="events is one of Eddy's own topics"):
        run(settings, settings.topics.events)


def test_what_retention_removed_before_it_was_read_is_no_reason_to_wait_at_the_end(
    settings: Settings, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eddy.stream.ingest.source._RECOMMIT_S", 1e9)
    send(settings, source, [record(number) for number in range(100)])
    assert run(settings, source, until_end=True) == Counts(written=100)
    send(settings, source, [record(number) for number in range(100, 200)])
    with admin_client(settings) as admin:
        admin.delete_records({TopicPartition(source, number): -1 for number in range(SOURCE_PARTITIONS)})
    assert run(settings, source, until_end=True) == Counts()
