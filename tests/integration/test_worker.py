"""A worker seen from outside: what those downstream read, and what befalls the stream without harm to it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.consumer.fetcher import ConsumerRecord
from kafka.partitioner import murmur2

from eddy.models.errors import EddyError
from eddy.models.event_limits import EARLIEST_MS
from eddy.stream.erase import erase
from eddy.stream.event_log.export import export
from eddy.stream.kafka.clients import admin_client, client_config
from eddy.stream.local_kafka.broker import LocalBroker
from eddy.stream.records.dead_letters import MAX_VALUE_BYTES
from eddy.stream.records.partitioner import Partitioner, partition_of
from tests.chaos.traffic import START_MS, traffic
from tests.support.engines import item_id
from tests.support.kafka_clusters import MakeSettings
from tests.support.stage import PATIENCE_S, SCALE, Stage, staged
from tests.support.waiting import eventually
from tests.unit.records.test_decode import JSON, ODD


def event(user: str, item: str, time: int = START_MS, **more: object) -> tuple[bytes, bytes]:
    return user.encode(), json.dumps({"user_id": user, "item_id": item, "timestamp": time, **more}).encode()


def read(stage: Stage, topic: str, partitions: int) -> list[ConsumerRecord]:
    """As a downstream team would, with kafka-python and nothing of ours."""
    consumer = KafkaConsumer(**client_config(stage.settings), enable_auto_commit=False)
    tps = [TopicPartition(topic, number) for number in range(partitions)]
    consumer.assign(tps)
    consumer.seek_to_beginning(*tps)
    ends = consumer.end_offsets(tps)
    records: list[ConsumerRecord] = []
    while any(consumer.position(tp) < ends[tp] for tp in tps):
        for part in consumer.poll(timeout_ms=200).values():
            records += part
    consumer.close()
    return records


def test_downstream_reads_lists_and_dead_letters_with_a_plain_client(stage: Stage) -> None:
    topics, events = stage.settings.topics, [event(f"user-{i % 7}", item_id(i)) for i in range(60)]
    bad = [
        (b"user-1", b"not JSON \xff"),
        (b"user-1", b'{"user_id": "user-1", "item_id": 5, "timestamp": 1}'),
        (b"user-2", b'{"user_id": "user-1", "item_id": "i", "timestamp": 1}'),
        (None, b""),
        event("user-3", "i", time=2 * 10**13),
        (b"user-4", b"[" * 900_000),
    ]
    large = event("user-5", "large", context="x" * 900_000)
    stage.fleet.start()
    stage.send([*events[:30], *bad, large, *events[30:]])
    stage.await_end()
    stage.fleet.stop()

    answers = read(stage, topics.recommendations, 2)
    newest = {record.key.decode(): json.loads(record.value) for record in answers}
    assert sorted(newest) == [f"user-{i}" for i in range(7)]
    for record in answers:
        answer = json.loads(record.value)
        assert answer["user_id"].encode() == record.key
        assert record.partition == (murmur2(record.key) & 0x7FFFFFFF) % 2 == answer["partition"]
        assert len(answer["items"]) == 5
        scores = [one["score"] for one in answer["items"]]
        assert scores == sorted(scores, reverse=True)
        assert (answer["topic_id"], answer["version"]) == (stage.topic_id.hex(), stage.version.id)
        assert answer["epoch"] == 1

    letters = read(stage, topics.dead_letters, 1)
    assert sorted(letter.value for letter in letters) == sorted(value for _, value in bad)
    for letter in letters:
        headers = dict(letter.headers)
        assert headers["reason"]
        assert letter.key == b":".join((headers["topic"], headers["partition"], headers["offset"]))
    assert stage.verdict().problems == []


def home(user: bytes, partitioner: Partitioner = "murmur2") -> int:
    """The user's partition of two."""
    return int(partition_of([user], 2, partitioner)[0])


def reasons(stage: Stage) -> list[str]:
    return [
        dict(one.headers)["reason"].decode() for one in read(stage, stage.settings.topics.dead_letters, 1)
    ]


def test_a_tombstone_in_a_wrong_partition_is_a_dead_letter_and_erases_nobody(stage: Stage) -> None:
    user, topics = b"user-1", stage.settings.topics
    worker = stage.fleet.start()
    stage.send([event(user.decode(), item_id(i), START_MS + i) for i in range(5)])
    stage.send([(user, None)], partition=1 - home(user))
    stage.send([event(user.decode(), item_id(9), START_MS + 9)])
    stage.await_end()
    told = worker.metrics()
    stage.fleet.stop()
    assert (told["eddy_users_erased_total"], told["eddy_dead_letters_total"]) == (0, 1)
    assert reasons(stage)[0].startswith("nobody was erased; in the wrong partition")
    for topic in (topics.user_state, topics.recommendations):
        written = [one for one in read(stage, topic, 2) if one.key == user]
        assert {one.partition for one in written} == {home(user)}
        assert all(one.value is not None for one in written)
    assert stage.verdict().problems == []


def test_a_new_user_whose_first_event_lies_in_a_wrong_partition_is_known_by_the_next_one(
    stage: Stage,
) -> None:
    users = [f"new-{i}" for i in range(20)]
    for user in users:  # all of it is there when the worker starts, so one micro-batch holds both
        stage.send([event(user, item_id(1))], partition=1 - home(user.encode()))
        stage.send([event(user, item_id(2))], partition=home(user.encode()))
    worker = stage.fleet.start()
    stage.await_end()
    told = worker.metrics()
    stage.fleet.stop()
    assert (told["eddy_events_applied_total"], told["eddy_dead_letters_total"]) == (20, 20)
    assert worker.log().count(b"partitioner") <= 1
    assert stage.verdict().problems == []


def placed(partitioner: Partitioner, stage: Stage, events: list[tuple[bytes, bytes]]) -> None:
    for number in range(2):
        stage.send([one for one in events if home(one[0], partitioner) == number], partition=number)


def test_the_partitioner_of_librdkafka_is_told_of_and_once_it_is_set_nothing_is_refused(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings(partitions=2, session_timeout_s=6, metrics_port=0)
    (tmp_path / "before").mkdir()
    with staged(settings, tmp_path / "before") as stage:
        first = [event(f"user-{i}", item_id(i % 20), START_MS + i) for i in range(100)]
        wrong = sum(home(key) != home(key, "crc32") for key, _ in first)
        worker = stage.fleet.start()
        placed("crc32", stage, first)
        stage.await_end()
        stage.fleet.stop()
        assert len(reasons(stage)) == wrong > 20
        assert worker.log().count(b"set EDDY_PARTITIONER=crc32") == 1
        assert stage.verdict().problems == []
        with pytest.raises(EddyError, match="set EDDY_PARTITIONER=crc32"):
            export(settings, tmp_path / "log")
    settings = settings.replace(partitioner="crc32")
    with staged(settings, tmp_path) as stage:
        stage.fleet.start()
        placed("crc32", stage, [event(f"user-{i}", item_id(i % 20), START_MS + 200 + i) for i in range(100)])
        stage.await_end()
        assert len(reasons(stage)) == wrong
        assert erase(settings, "user-7", wait_s=PATIENCE_S).applied
        erased = [one for one in read(stage, settings.topics.user_state, 2) if one.value is None]
        assert [(one.key, one.partition) for one in erased] == [(b"user-7", home(b"user-7", "crc32"))]
        for answer in read(stage, settings.topics.recommendations, 2):
            assert answer.partition == home(answer.key, "crc32")
        with pytest.raises(EddyError, match="nothing of user-3 was erased"):
            erase(settings.replace(partitioner="murmur2"), "user-3", wait_s=PATIENCE_S)
        stage.fleet.stop()


USERS: st.SearchStrategy[str] = st.sampled_from([f"user-{i}" for i in range(30)]) | st.text(
    min_size=1, max_size=4
)
GOOD = st.fixed_dictionaries(
    {"item_id": st.text(min_size=1, max_size=5), "timestamp": st.integers(EARLIEST_MS, START_MS)},
    optional={
        "event_type": st.text(min_size=1, max_size=5),
        "event_id": st.text(min_size=1),
        "context": JSON,
    },
)


STRUCTURED = st.tuples(USERS, GOOD | ODD).map(
    lambda one: (one[0].encode(), json.dumps({"user_id": one[0], **one[1]}).encode())
)
RAW = st.tuples(st.none() | st.binary(max_size=8), st.binary(max_size=60))


def fuzzed(count: int) -> list[tuple[bytes | None, bytes]]:
    """Records drawn by hypothesis, the same every time."""
    found: list[tuple[bytes | None, bytes]] = []

    @settings(
        max_examples=count // 20, phases=[Phase.generate], derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.lists(STRUCTURED | RAW, min_size=20, max_size=20))
    def collect(records: list[tuple[bytes | None, bytes]]) -> None:
        found.extend(records)

    collect()
    return found


def test_fuzzed_records_are_applied_or_dead_letters_and_the_sums_agree(stage: Stage) -> None:
    records = fuzzed(2_000 * SCALE)
    worker = stage.fleet.start()
    stage.send(records)
    stage.await_end()
    told = worker.metrics()
    stage.fleet.stop()
    letters = {
        letter.key: dict(letter.headers) for letter in read(stage, stage.settings.topics.dead_letters, 1)
    }
    applied, repeats = told["eddy_events_applied_total"], told["eddy_events_repeated_total"]
    assert len(records) == 2_000 * SCALE
    assert applied + repeats + len(letters) == len(records) == told["eddy_events_read_total"]
    assert min(applied, len(letters)) > len(records) // 5
    assert all(headers["reason"] for headers in letters.values())
    assert stage.verdict().problems == []


def test_a_dead_letter_that_is_too_large_is_cut_and_says_what_was_cut(stage: Stage) -> None:
    topic = stage.settings.topics.events
    with admin_client(stage.settings) as admin:
        limit = {"max.message.bytes": str(6 << 20)}
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, limit)])
    huge = b'{"user_id":' + b"9" * (4 << 20)
    stage.fleet.start()
    stage.send([event("a", "1"), (b"a", huge), event("a", "2")])
    stage.await_end()
    stage.fleet.stop()
    (letter,) = read(stage, stage.settings.topics.dead_letters, 1)
    headers = dict(letter.headers)
    assert letter.value == huge[:MAX_VALUE_BYTES]
    assert headers["length"] == str(len(huge)).encode()
    assert headers["sha256"] == hashlib.sha256(huge).hexdigest().encode()
    assert stage.verdict().problems == []


def fence(stage: Stage) -> None:
    """Whoever comes with the same transactional id is the partitions' owner from now on."""
    for number in range(2):
        usurper = KafkaProducer(
            **client_config(stage.settings), transactional_id=f"{stage.settings.group}-{number}"
        )
        usurper.init_transactions()
        usurper.close()


def test_a_fenced_owner_writes_nothing_more_takes_its_partitions_back_once_and_then_ends(
    stage: Stage,
) -> None:
    """No rebalance comes, so the group gives them to it all the time."""
    worker = stage.fleet.start()
    stage.send(traffic(500, users=20, seed=1))
    stage.await_end()
    before = len(list(stage.cluster.read(stage.settings.topics.user_state, 2)))
    fence(stage)
    stage.send(traffic(500, users=20, seed=2))
    eventually(lambda: b"was taken over by another" in worker.log(), PATIENCE_S, "it notices")
    assert len(list(stage.cluster.read(stage.settings.topics.user_state, 2))) == before
    stage.await_end()
    assert b"taking it back" in worker.log()
    fence(stage)
    stage.send(traffic(500, users=20, seed=3))
    assert worker.ended(PATIENCE_S) == 1
    assert b"was taken over by another worker, twice" in worker.log()
    stage.fleet.mend()  # as a supervisor would
    stage.await_end()
    stage.fleet.stop()
    assert stage.verdict().problems == []


@pytest.fixture
def strict_broker(tmp_path: Path) -> LocalBroker:
    """A broker that looks for records to delete several times a second."""
    return LocalBroker(tmp_path / "broker", properties={"log.retention.check.interval.ms": "300"})


def test_events_of_2013_survive_the_retention_check(
    strict_broker: LocalBroker, make_settings: MakeSettings, tmp_path: Path
) -> None:
    with strict_broker as broker:
        settings = make_settings(
            bootstrap_servers=broker.bootstrap_servers, partitions=2, session_timeout_s=6
        )
        with staged(settings, tmp_path) as stage:
            sent = 20_000 * SCALE
            stage.send(traffic(sent, users=200 * SCALE, seed=1))
            control = TopicPartition("stamped-by-event-time", 0)
            with admin_client(settings) as admin:
                config = {"message.timestamp.type": "CreateTime", "retention.ms": str(30 * 86_400_000)}
                admin.create_topics([NewTopic(control.topic, 1, 1, topic_configs=config)])
                admin.wait_for_topics([control.topic])
            producer = KafkaProducer(**client_config(settings))
            for _ in range(100):
                producer.send(control.topic, b"x", timestamp_ms=START_MS)
            producer.close()
            consumer = KafkaConsumer(**client_config(settings))
            eventually(
                lambda: consumer.beginning_offsets([control])[control] == 100, PATIENCE_S, "the check deletes"
            )
            consumer.close()
            stage.fleet.start()
            stage.await_end()
            stage.fleet.stop()
            verdict = stage.verdict()
            assert verdict.problems == []
            assert verdict.events == sent
