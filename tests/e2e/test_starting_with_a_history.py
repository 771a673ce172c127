"""Whoever has a history gets a log of it, a first version and warm states, by the README's commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic

from eddy.models.logs.events import read_events
from eddy.stream.kafka.clients import client_config
from eddy.stream.kafka.versions import live_announcement
from eddy.stream.records.settings import Settings
from eddy.stream.state.rows import decode_rows
from tests.chaos.cluster import Cluster
from tests.support.commands import ROOT, run, tiny
from tests.support.waiting import eventually

USERS, EVENTS = 20, 300
START_MS = 1_362_062_307_000
HISTORY = [
    {"who": f"user-{n % USERS}", "what": f"item-{(n // USERS + n % USERS) % 30}", "at": START_MS + n * 60_000}
    for n in range(EVENTS)
]
WITHIN_S = 240.0


def documented(beginning: str) -> list[str]:
    """The commands of README's "Starting with a history" behind these words, in their order."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    paragraph = readme.partition("**Starting with a history.**")[2].partition("\n\n")[0]
    sentence = paragraph.partition(beginning)[2].partition("From a")[0]
    commands = [" ".join(command.split()) for command in re.findall(r"`([^`]+)`", sentence)]
    return [command for command in commands if command.startswith("eddy ")]


class Beginner:
    """Somebody who types commands in a folder; those that go on, beside the others."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self._environment = {
            "EDDY_BOOTSTRAP_SERVERS": settings.bootstrap_servers or "",
            "EDDY_TOPIC_PREFIX": settings.topic_prefix,
            "EDDY_GROUP": settings.group,
            "EDDY_REGISTRY": str(settings.registry),
        }
        self._going_on: list[subprocess.Popen[str]] = []

    def type(self, command: str, **words: str) -> None:
        """A documented command, some of whose words stand for others; trainings are small."""
        _, *arguments = (words.get(word, word) for word in command.split())
        if arguments[0] == "worker":
            self._going_on.append(self._start(*arguments[:1]))
            return
        done = run(self.folder, *arguments, *(tiny() if arguments[0] == "train" else ()), **self._environment)
        assert done.returncode == 0, done.stderr

    def _start(self, *arguments: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **self._environment}
        return subprocess.Popen(
            [sys.executable, "-m", "eddy", *arguments], cwd=self.folder, env=environment, text=True
        )

    def end(self) -> None:
        for process in self._going_on:
            process.terminate()
        for process in self._going_on:
            assert process.wait(60) == 0


@pytest.fixture
def beginner(settings: Settings, tmp_path: Path) -> Iterator[Beginner]:
    one = Beginner(settings, tmp_path)
    yield one
    one.end()


def from_a_table(beginner: Beginner) -> None:
    table = beginner.folder / "table"
    table.mkdir()
    renamed = [{"user_id": row["who"], "item_id": row["what"], "timestamp": row["at"]} for row in HISTORY]
    for half in range(2):
        part = renamed[half * EVENTS // 2 : (half + 1) * EVENTS // 2]
        pq.write_table(pa.Table.from_pylist(part), table / f"part-{half}.parquet")
    commands = documented("From a table:")
    assert [command.split()[1] for command in commands] == ["train", "worker", "replay"]
    for command in commands:
        beginner.type(command, TABLE="table")


def from_a_topic(beginner: Beginner) -> None:
    topic = f"{beginner.settings.topic_prefix}clicks"
    with KafkaAdminClient(**client_config(beginner.settings)) as admin:
        admin.create_topics([NewTopic(topic, num_partitions=3, replication_factor=1)])
    producer = KafkaProducer(**client_config(beginner.settings))
    for row in HISTORY:  # in one partition, since the order of two is nobody's promise
        producer.send(topic, value=json.dumps(row).encode(), partition=1)
    producer.flush()
    producer.close()
    commands = documented("From a topic of yours:")
    assert [command.split()[1] for command in commands] == ["ingest", "export", "train", "worker"]
    for command in commands:
        beginner.type(command, **{"T": topic, "…": "user_id=who,item_id=what,timestamp=at"})
    assert len(read_events(beginner.folder / "event-log")) == EVENTS


@pytest.mark.timeout(900)
@pytest.mark.parametrize("begin", [from_a_table, from_a_topic])
def test_a_history_becomes_a_live_version_and_a_warm_state_of_everybody(
    beginner: Beginner, begin: Callable[[Beginner], None]
) -> None:
    begin(beginner)
    settings, cluster = beginner.settings, Cluster(beginner.settings)
    announced = live_announcement(settings)
    assert announced is not None
    assert announced.version in settings.registry.children()
    sent = list(cluster.read(settings.topics.events, settings.partitions))
    assert len(sent) == EVENTS
    last = {record.key.decode(): (record.partition, record.offset) for record in sent}

    def stored() -> dict[str, tuple[int, int]]:
        records = cluster.read(settings.topics.user_state, settings.partitions)
        newest = {record.key: record.value for record in records}
        return {
            user.decode(): (partition, offset)
            for rows in decode_rows(list(newest), list(newest.values()))
            for user, partition, offset in zip(
                rows.user, rows.partition.tolist(), rows.offset.tolist(), strict=True
            )
        }

    eventually(lambda: stored() == last, WITHIN_S, "the row of everybody includes their last event", 0.5)
    beginner.type("eddy recommend --users all --out lists.parquet")
    lists = pq.read_table(beginner.folder / "lists.parquet").to_pylist()
    assert {row["user_id"] for row in lists} == last.keys()
    assert all(row["items"] for row in lists)
    cluster.close()
