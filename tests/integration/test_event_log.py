"""The event log of a real topic: every valid event exactly once, through repetition and crashes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.dataset as ds
import pytest
from kafka import KafkaAdminClient, KafkaProducer

from eddy.models.errors import EddyError
from eddy.models.logs.events import read_events
from eddy.stream.erase import erase
from eddy.stream.event_log.export import export
from eddy.stream.kafka.clients import client_config
from eddy.stream.kafka.topics import ensure_topics
from eddy.stream.records.schema import Event, encode
from eddy.stream.records.settings import Settings
from tests.chaos.traffic import START_MS
from tests.support.waiting import eventually

DAY_MS = 86_400_000
CRASHES = """
import os, sys
from pathlib import Path
from eddy.stream import event_log
from eddy.stream.records.settings import load_settings

store, calls = event_log._store, 0

def crash(folder, position):
    global calls
    calls += 1
    if calls == int(sys.argv[2]):
        os._exit(9)  # as SIGKILL: the files are there, the position is not
    return store(folder, position)

event_log._store, event_log.PART_RECORDS = crash, 1
event_log.export(load_settings(), Path(sys.argv[1]))
"""


FOLLOWS = """
import sys
from pathlib import Path
from eddy.stream import event_log
from eddy.stream.records.settings import load_settings

event_log._FLUSH_MS = 200
event_log.export(load_settings(), Path(sys.argv[1]), until_end=False)
"""


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


def logged(folder: Path) -> list[int]:
    """Numbers of the events in the log."""
    ids = ds.dataset(folder, format="parquet").to_table(columns=["event_id"])["event_id"].to_pylist()
    return sorted(int(name.removeprefix("event-")) for name in ids)


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
    assert logged(log) == list(range(700))
    assert len(read_events(log)) == 700


def test_a_killed_export_goes_on_where_the_files_end(topics: Settings, tmp_path: Path) -> None:
    log = tmp_path / "log"
    environment = {
        "EDDY_BOOTSTRAP_SERVERS": str(topics.bootstrap_servers),
        "EDDY_TOPIC_PREFIX": topics.topic_prefix,
    }
    write(topics, 0, 1000)
    for moment in (1, 2, 1):  # the first call makes the position's file; every poll is a part of its own
        killed = subprocess.run(
            [sys.executable, "-c", CRASHES, str(log), str(moment)], env=environment, check=False
        )
        assert killed.returncode == 9
        write(topics, 1000, 1000)
    export(topics, log)
    assert logged(log) == list(range(1000))


def test_an_export_that_follows_forgets_erased_users_meanwhile(topics: Settings, tmp_path: Path) -> None:
    log = tmp_path / "log"
    environment = {
        "EDDY_BOOTSTRAP_SERVERS": str(topics.bootstrap_servers),
        "EDDY_TOPIC_PREFIX": topics.topic_prefix,
    }
    write(topics, 0, 300)
    export(topics, log)
    child = subprocess.Popen([sys.executable, "-c", FOLLOWS, str(log)], env=environment)
    try:
        write(topics, 300, 400)
        eventually(lambda: logged(log) == list(range(400)), 60)
        erase(topics, "user-7", wait_s=0)
        eventually(lambda: logged(log) == [number for number in range(400) if number % 100 != 7], 60)
        write(topics, 400, 500)
        eventually(lambda: 407 in logged(log), 60)  # who comes back after an erasure is somebody new
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()


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
    assert logged(tmp_path / "log") == [1]


def test_a_topic_that_was_made_again_is_not_mixed_into_an_old_log(
    topics: Settings, admin: KafkaAdminClient, tmp_path: Path
) -> None:
    write(topics, 0, 5)
    export(topics, tmp_path / "log")
    admin.delete_topics([topics.topics.events])
    ensure_topics_again(admin, topics)
    with pytest.raises(EddyError, match="another topic"):
        export(topics, tmp_path / "log")
    assert logged(tmp_path / "log") == list(range(5))


def ensure_topics_again(admin: KafkaAdminClient, settings: Settings) -> None:
    """Deleting goes on for a moment after the answer."""
    eventually(lambda: settings.topics.events not in admin.list_topics())
    ensure_topics(admin, settings)
