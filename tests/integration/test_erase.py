"""An erased user is gone: from memory, from the compacted topics' bytes, from snapshots and from the event
log.

A replay from before the erasure ends erased. The cleaner is forced and waited for, the broker's files are
searched.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError

from eddy.cli.rules import publish_rules
from eddy.models.errors import EddyError
from eddy.models.logs.events import read_events
from eddy.stream.erase import erase
from eddy.stream.event_log.export import export
from eddy.stream.kafka.clients import admin_client, client_config
from eddy.stream.kafka.topics import prepare_topics
from eddy.stream.kafka.versions import announce
from eddy.stream.local_kafka.broker import LocalBroker
from eddy.stream.records.partitioner import partition_of
from eddy.stream.records.schema import Event, encode
from eddy.stream.records.settings import Settings, load_settings
from eddy.stream.state.rows import Rows, decode_rows
from tests.chaos.cluster import Cluster
from tests.chaos.fleet import Fleet
from tests.chaos.traffic import START_MS
from tests.support.engines import random_version
from tests.support.kafka_clusters import MakeSettings
from tests.support.waiting import eventually

ERASED, OTHERS = "user-to-be-forgotten", [f"other-{i}" for i in range(8)]


@pytest.fixture(scope="module")
def busy_cleaner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, Path]]:
    """A broker of its own whose log cleaner never rests, and the folder of its data."""
    folder = tmp_path_factory.mktemp("erase")
    data = Path(load_settings().cache_dir) / f"test-erase-{folder.parent.name}-{time.monotonic_ns()}"
    quick = {
        "log.cleaner.backoff.ms": "100",
        "log.cleaner.min.cleanable.ratio": "0.0001",
        "log.segment.delete.delay.ms": "0",
        "log.initial.task.delay.ms": "0",
    }
    try:
        with LocalBroker(data, properties=quick) as broker:
            yield (
                load_settings(
                    bootstrap_servers=broker.bootstrap_servers,
                    registry=folder / "registry",
                    cache_dir=folder / "cache",
                    event_log=folder / "log",
                    partitions=1,
                    exclude_seen=False,
                ),
                data,
            )
    finally:
        shutil.rmtree(data, ignore_errors=True)


def _send(settings: Settings, users: list[str], start: int) -> None:
    producer = KafkaProducer(**client_config(settings), acks="all")
    for number, user in enumerate(users):
        event = Event(user, f"item-{(start + number) % 90}", START_MS + start + number)
        partition = int(partition_of([user.encode()], settings.partitions)[0])
        producer.send(settings.topics.events, key=user.encode(), value=encode(event), partition=partition)
    producer.flush()
    producer.close()


def _rows(settings: Settings) -> dict[bytes, bytes | None]:
    records = Cluster(settings).read(settings.topics.user_state, settings.partitions)
    return {record.key: record.value for record in records}


def _bytes_of(data: Path, topic: str) -> bytes:
    return b"".join(
        path.read_bytes() for folder in data.glob(f"**/{topic}-*") for path in folder.glob("*.log")
    )


def _force_cleaning(admin: KafkaAdminClient, topics: list[str]) -> None:
    config = {
        "segment.ms": "100",
        "min.cleanable.dirty.ratio": "0.0001",
        "max.compaction.lag.ms": "100",
        "delete.retention.ms": "0",
    }
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=config) for topic in topics])


def test_nothing_of_an_erased_user_is_left_in_state_lists_snapshots_and_event_log(
    busy_cleaner: tuple[Settings, Path], tmp_path: Path
) -> None:
    settings, data = busy_cleaner
    prepare_topics(settings)
    announce(settings, random_version(settings.registry))
    _send(settings, [ERASED, *OTHERS] * 5, 0)
    with Fleet(settings, tmp_path) as fleet:
        fleet.start("worker")
        eventually(lambda: ERASED.encode() in _rows(settings), 60)
        export(settings, settings.event_log)
        assert ERASED in read_events(settings.event_log).users
        fleet.stop()  # leaves a snapshot that holds the user
        snapshots = list(tmp_path.rglob("snapshots/**/*.snapshot"))
        assert any(ERASED.encode() in path.read_bytes() for path in snapshots)
        fleet.start("worker")
        done = erase(settings, ERASED, wait_s=60)
        assert done.applied
        assert not any(
            ERASED.encode() in path.read_bytes() for path in tmp_path.rglob("snapshots/**/*.snapshot")
        )
        eventually(lambda: _rows(settings).get(ERASED.encode(), b"") is None, 60)
        eventually(lambda: _rows(settings).get(OTHERS[0].encode()) is not None, 60)
        export(settings, settings.event_log)
        assert ERASED not in read_events(settings.event_log).users
        assert len(read_events(settings.event_log)) == 5 * len(OTHERS), "nobody else's events were touched"
        with admin_client(settings) as admin:
            _force_cleaning(admin, [settings.topics.user_state, settings.topics.recommendations])
        sent = 45

        def cleaned() -> bool:
            # The open segment is never cleaned: others' events close it.
            nonlocal sent
            _send(settings, OTHERS, sent)
            sent += len(OTHERS)
            kept = [_bytes_of(data, t) for t in (settings.topics.user_state, settings.topics.recommendations)]
            assert all(OTHERS[0].encode() in part for part in kept), "the search looks where the data is"
            return not any(ERASED.encode() in part for part in kept)

        eventually(cleaned, 120)
        fleet.stop()
        assert not any(
            ERASED.encode() in path.read_bytes() for path in tmp_path.rglob("snapshots/**/*.snapshot")
        )


def test_a_replay_from_before_the_erasure_ends_erased(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings(cache_dir=tmp_path / "cache", partitions=1)
    prepare_topics(settings)
    announce(settings, random_version(settings.registry))
    _send(settings, [ERASED, *OTHERS] * 3, 0)
    erase(settings, ERASED, wait_s=0)
    _send(settings, OTHERS, 27)
    with Fleet(settings, tmp_path) as fleet:
        fleet.start("first")
        eventually(lambda: _rows(settings).get(ERASED.encode(), b"") is None, 60)
        fleet.stop()
    again = settings.replace(group=settings.group + "-again")  # a group that starts from the log's beginning
    with Fleet(again, tmp_path) as fleet:
        fleet.start("second")

        def at_the_end() -> bool:
            with admin_client(again) as admin, suppress(KafkaError):
                offsets = admin.list_group_offsets(again.group)[again.group]
                return any(at.offset == 27 + 1 + len(OTHERS) for at in offsets.values())
            return False

        eventually(at_the_end, 60)
        fleet.stop()
    newest = _rows(again)
    assert newest[ERASED.encode()] is None
    kept = {user: value for user, value in newest.items() if value is not None}
    rows: list[Rows] = decode_rows(list(kept), list(kept.values()))
    assert sorted(user.decode() for part in rows for user in part.user) == OTHERS
    assert all((part.applied == 4).all() for part in rows)


def test_an_erasure_that_would_not_find_the_user_is_refused_before_anything_is_written(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    settings = make_settings(partitions=3)
    prepare_topics(settings)
    for user, message in (("", "has 1 to 1024"), ("u" * 1025, "has 1 to 1024"), ("\udc80", "not UTF-8")):
        with pytest.raises(EddyError, match=message):
            erase(settings, user)
    with pytest.raises(EddyError, match=r"events has 3 partitions, 4 are expected.*EDDY_PARTITIONS=3"):
        erase(settings.replace(partitions=4), "user")
    cluster = Cluster(settings)
    assert sum(cluster.ends(settings.topics.events, 3).values()) == 0
    cluster.close()


@pytest.mark.timeout(30)
def test_before_there_are_topics_nothing_is_written_and_the_reason_is_said(
    settings: Settings, tmp_path: Path
) -> None:
    """A client that writes to a topic waits for it, or has the cluster make it with any settings."""
    with pytest.raises(EddyError, match="events does not exist"):
        erase(settings, "user")
    rules = tmp_path / "rules.json"
    rules.write_text('{"rules": []}')
    with pytest.raises(EddyError, match="items does not exist"):
        publish_rules(settings, rules)
