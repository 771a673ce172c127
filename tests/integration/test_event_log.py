"""The event log of a real topic: every valid event exactly once, through repetition and crashes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer

from eddy.models.errors import EddyError
from eddy.models.logs.events import read_events
from eddy.models.logs.manifests import newest_manifests
from eddy.models.storage import Place, located
from eddy.stream.erase import erase
from eddy.stream.event_log.export import Share, export
from eddy.stream.event_log.log import opened
from eddy.stream.kafka.clients import admin_client, client_config
from eddy.stream.kafka.topics import ensure_topics, topic_ids
from eddy.stream.records.schema import Event, encode
from eddy.stream.records.settings import Settings
from tests.chaos.traffic import START_MS
from tests.support.event_logs import logged, parts
from tests.support.object_storage import local_s3
from tests.support.waiting import eventually

DAY_MS = 86_400_000
CRASHES = """
import os, signal, sys
from eddy.models import atomic_files
from eddy.stream.event_log import export, merging
from eddy.stream.event_log.export import Share
from eddy.stream.records.settings import load_settings

sync, calls = atomic_files.sync, 0

def killed(path):
    global calls
    calls += 1
    if calls == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    sync(path)

atomic_files.sync, export.PART_RECORDS, merging.PARTS = killed, 1, 3
export.export(load_settings(), sys.argv[1], share=Share(*map(int, sys.argv[3:])))
"""
"""Everything that is written is made durable by a call, one of which kills the process."""


FOLLOWS = """
import sys
from eddy.stream.event_log import export
from eddy.stream.records.settings import load_settings

export._FLUSH_MS = 200
export.export(load_settings(), sys.argv[1], until_end=False)
"""


def environment(settings: Settings) -> dict[str, str]:
    return {
        "EDDY_BOOTSTRAP_SERVERS": str(settings.bootstrap_servers),
        "EDDY_TOPIC_PREFIX": settings.topic_prefix,
    }


def write(settings: Settings, first: int, last: int) -> None:
    """Events number first … last - 1, one of a hundred users and a new item each, ten a day."""
    producer = KafkaProducer(**client_config(settings))
    for number in range(first, last):
        user = f"user-{number % 100}"
        event = Event(user, f"item-{number}", START_MS + number * DAY_MS // 10, event_id=f"event-{number}")
        producer.send(settings.topics.events, key=user.encode(), value=encode(event))
    producer.send(settings.topics.events, key=b"user-1", value=b"no event")
    producer.flush()
    producer.close()


def numbers(folder: Place) -> list[int]:
    """Numbers of the events in the log."""
    return sorted(int(name.removeprefix("event-")) for name in logged(folder)["event_id"].to_pylist())


@pytest.fixture
def topics(settings: Settings, admin: KafkaAdminClient) -> Settings:
    ensure_topics(admin, settings)
    return settings


def test_every_event_is_in_the_log_once_however_often_it_is_exported(
    topics: Settings, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    write(topics, 0, 500)
    assert export(topics, log) == 500
    assert export(topics, log) == 0
    write(topics, 500, 700)
    assert export(topics, log) == 200
    assert numbers(log) == list(range(700))
    assert len(read_events(log)) == 700


def test_killed_exports_that_share_a_log_go_on_where_they_were(topics: Settings, tmp_path: Path) -> None:
    log = tmp_path / "log"
    write(topics, 0, 600)
    for moment in (11, 30):
        children = [
            subprocess.Popen(
                [sys.executable, "-c", CRASHES, str(log), str(moment + number), str(number), "2"],
                env=environment(topics),
            )
            for number in (1, 2)
        ]
        assert [child.wait() for child in children] == [-9, -9]
        found = numbers(log)
        assert len(set(found)) == len(found)
    for number in (1, 2):
        export(topics, log, share=Share(number, 2))
    assert numbers(log) == list(range(600))
    assert export(topics, log) == 0
    on_disk = {str(path.relative_to(log)) for path in log.rglob("*.parquet")}
    replaced = [
        each.path for stored in newest_manifests(located(log)).values() for each in stored.manifest.replaced
    ]
    assert on_disk == {part.path for part in parts(log)} | set(replaced)


def test_a_share_without_a_partition_and_a_second_export_are_refused(
    topics: Settings, tmp_path: Path
) -> None:
    with pytest.raises(EddyError, match=r"share 5/5: .* has 4 partitions, and none of them"):
        export(topics, tmp_path / "log", share=Share(5, 5))
    partitions = range(4)
    with (
        opened(tmp_path / "log", topics.topics.events, topic_id_of(topics), partitions),
        pytest.raises(EddyError, match="another export is writing to it"),
    ):
        export(topics, tmp_path / "log", share=Share(1, 2))


def topic_id_of(settings: Settings) -> str:
    with admin_client(settings) as admin:
        return str(topic_ids(admin, [settings.topics.events])[settings.topics.events])


def test_an_export_that_follows_forgets_erased_users_meanwhile(topics: Settings, tmp_path: Path) -> None:
    log = tmp_path / "log"
    write(topics, 0, 300)
    export(topics, log)
    child = subprocess.Popen([sys.executable, "-c", FOLLOWS, str(log)], env=environment(topics))
    try:
        write(topics, 300, 400)
        eventually(lambda: numbers(log) == list(range(400)), 60)
        erase(topics, "user-7", wait_s=0)
        eventually(lambda: numbers(log) == [number for number in range(400) if number % 100 != 7], 60)
        write(topics, 400, 500)
        eventually(lambda: 407 in numbers(log), 60)  # who comes back after an erasure is somebody new
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()


def test_a_log_on_object_storage_is_exported_trained_from_and_gone_on_with(topics: Settings) -> None:
    write(topics, 0, 100)
    with local_s3("eddy-log"):
        log = "s3://eddy-log/event-log"
        assert export(topics, log) == 100
        write(topics, 100, 150)
        assert [export(topics, log, share=Share(number, 2)) > 0 for number in (1, 2)] == [True, True]
        assert numbers(log) == list(range(150))
        assert len(read_events(log)) == 150


def test_what_a_producer_aborted_never_happened(topics: Settings, tmp_path: Path) -> None:
    producer = KafkaProducer(**client_config(topics), transactional_id=topics.group)
    producer.init_transactions()
    for number, end in ((1, producer.commit_transaction), (2, producer.abort_transaction)):
        producer.begin_transaction()
        event = Event("ada", "heat", START_MS + number, event_id=f"event-{number}")
        producer.send(topics.topics.events, key=b"ada", value=encode(event)).get(timeout=30)
        end()
    producer.close()
    assert export(topics, tmp_path / "log") == 1
    assert numbers(tmp_path / "log") == [1]


def test_a_topic_that_was_made_again_is_not_mixed_into_an_old_log(
    topics: Settings, admin: KafkaAdminClient, tmp_path: Path
) -> None:
    write(topics, 0, 5)
    export(topics, tmp_path / "log")
    admin.delete_topics([topics.topics.events])
    ensure_topics_again(admin, topics)
    with pytest.raises(EddyError, match="another topic"):
        export(topics, tmp_path / "log")
    assert numbers(tmp_path / "log") == list(range(5))


def ensure_topics_again(admin: KafkaAdminClient, settings: Settings) -> None:
    """Deleting goes on for a moment after the answer."""
    eventually(lambda: settings.topics.events not in admin.list_topics())
    ensure_topics(admin, settings)


def test_an_export_that_follows_ends_when_the_topic_is_made_again(
    topics: Settings, admin: KafkaAdminClient, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    write(topics, 0, 300)
    child = subprocess.Popen(
        [sys.executable, "-c", FOLLOWS, str(log)], env=environment(topics), stderr=subprocess.PIPE, text=True
    )
    try:
        eventually(lambda: numbers(log) == list(range(300)), 60)
        admin.delete_topics([topics.topics.events])
        ensure_topics_again(admin, topics)
        write(topics, 300, 400)
        said = child.communicate(timeout=60)[1]
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 1
    assert "was deleted or made again" in said
    assert numbers(log) == list(range(300))
