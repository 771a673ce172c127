"""The table of permissions against a real authorizer: each command runs as a user of its own who has what the
table says, and the broker's log tells what of it was used.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from typer.testing import CliRunner

from eddy import __main__ as eddy
from eddy.models.registry import Version, load, versions
from eddy.stream.canary.trial import Limit
from eddy.stream.canary.watch import watch_canary
from eddy.stream.event_log.export import export
from eddy.stream.kafka.clients import admin_client, new_sync_producer
from eddy.stream.kafka.live_ranks import RankReader
from eddy.stream.kafka.security.granted import NotAllowed, require_permissions
from eddy.stream.kafka.security.permissions import COMMANDS, INCLUDE_DESCRIBE, Permission, needed_by
from eddy.stream.kafka.topics import prepare_topics
from eddy.stream.kafka.versions import announce, announce_shares, live_announcement
from eddy.stream.records.settings import Settings
from tests.chaos.cluster import Cluster
from tests.support.engines import item_id, random_version
from tests.support.secured_kafka import ADMIN, SecuredKafka, environment, secured_kafka
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
SOURCE, LISTS = "clicks", "lists"
TOPIC_OF = {"ingest": SOURCE, "recommend": LISTS}
EVENTS, USERS = 60, 12
ONLY_ASKED_FOR = {Permission("cluster", "kafka-cluster", "DESCRIBE")}
"""What kafka-python asks for with other things, and does without."""

TINY = ("hidden=8", "dim=8", "epochs=1", "gate_epochs=1", "gate_events=50", "threads=1")


def user_of(command: str) -> str:
    return "eddy-" + command.replace(" ", "-")


class Installation:
    """One installation, on which each command is its own user."""

    def __init__(self, kafka: SecuredKafka, folder: Path) -> None:
        self.kafka, self.folder = kafka, folder
        self.admin = self.settings(ADMIN)

    def settings(self, user: str) -> Settings:
        return self.kafka.settings(
            user,
            topic_prefix="least.",
            group="least",
            partitions=2,
            session_timeout_s=6,
            registry=self.folder / "registry",
            event_log=self.folder / "log",
            cache_dir=self.folder / f"cache-{user}",
            metrics_port=None,
            prequential_sample=1.0,
            port=0,
        )

    def of(self, command: str) -> Settings:
        return self.settings(user_of(command))

    def run(self, *arguments: str, command: str = "") -> str:
        """Run a command in this process as its user; returns its output."""
        settings = self.of(command or arguments[0])
        ran = CliRunner().invoke(eddy.app, list(arguments), env=environment(settings), catch_exceptions=False)
        assert ran.exit_code == 0, ran.output
        return ran.output

    @contextmanager
    def process(self, command: str) -> Iterator[Path]:
        """A command in a process of its own, as its user; yields the file with its output."""
        log = self.folder / f"{command}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "eddy", command],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment(self.of(command))},
                stdout=output,
                stderr=output,
            )
        try:
            yield log
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()

    def send(self, topic: str, records: Sequence[tuple[bytes | None, bytes]]) -> None:
        producer = new_sync_producer(self.admin)
        for key, value in records:
            producer.send(topic, key=key, value=value)
        producer.flush()
        producer.close()

    def await_worker(self) -> None:
        """Wait until the worker has committed all that is on `events`."""
        cluster = Cluster(self.admin)
        try:
            ends = cluster.ends(self.admin.topics.events, self.admin.partitions)
            there = {number: end for number, end in ends.items() if end}
            eventually(lambda: cluster.committed().items() >= there.items(), 90, f"the worker at {there}")
        finally:
            cluster.close()


def use_everything(here: Installation) -> None:
    """Run each command so that it does all that it can do."""
    # 1. Topics, and a live version, before which another one was live.
    prepare_topics(here.of("topics"))
    with admin_client(here.admin) as admin:
        admin.create_topics(
            {name: {"num_partitions": 1, "replication_factor": 1} for name in (SOURCE, LISTS)}
        )
    old, first, second = (random_version(here.admin.registry, seed=seed) for seed in range(3))
    here.run("announce", old.id)
    here.run("announce", first.id)
    with here.process("worker"), here.process("serve") as server_log:
        # 2. What writes events: good ones, bad ones, and some that an earlier process may have written.
        here.run("replay", "--events", str(_events_file(here.folder)))
        here.send(here.admin.topics.events, [(b"user-1", b"not an event")])
        for _ in range(2):
            here.send(SOURCE, [(None, b'{"u": "ada", "i": "new", "t": 1380000000000}'), (None, b"nothing")])
            here.run("ingest", "--topic", SOURCE, "--map", "user_id=u,item_id=i,timestamp=t", "--until-end")
        here.await_worker()
        _ask_the_server(server_log)
        # 3. What reads and changes the rest.
        assert "removed (" in here.run("erase", "user-2")
        here.run("rules", str(_rules_file(here.folder)))
        here.run("export")
        here.run("recommend", "--topic", LISTS)
        here.run(
            "train", "--events", str(here.folder / "events.csv"), "--announce",
            *(part for setting in TINY for part in ("--set", setting)),
        )  # fmt: skip
        assert "epoch 3" in here.run("models", "list", command="models list")
        here.run("models", "rollback", command="models rollback")
        assert "1 versions removed" in here.run(
            "models", "prune", "--keep", "2", "--yes", command="models prune"
        )
    # 4. What reads the ranks that the worker tells at its end, and what needs it to be stopped: it finds an
    #    event that nobody has read.
    _try_a_canary(here, [(first, 90), (second, 10)])
    _refresh(here)
    here.send(here.admin.topics.events, [(b"user-1", b"not an event")])
    eventually(lambda: "has members" not in _repartition(here), 30, "the end of the group")


def _events_file(folder: Path) -> Path:
    lines = [f"user-{n % USERS},{item_id(n % 20)},{1_380_000_000_000 + 1_000 * n}" for n in range(EVENTS)]
    file = folder / "events.csv"
    file.write_text("\n".join(["user_id,item_id,timestamp", *lines]) + "\n")
    return file


def _rules_file(folder: Path) -> Path:
    file = folder / "rules.json"
    file.write_text('{"rules": []}')
    return file


def _ask_the_server(log: Path) -> None:
    """A list, a written event, and an answer that waits for what never comes, and so asks for commits."""
    eventually(lambda: "serving on http" in log.read_text(), 60, "the server")
    url = log.read_text().partition("serving on ")[2].split()[0]

    def answer(path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = Request(url + path, data, {"Content-Type": "application/json"})
        with urlopen(request, timeout=30) as response:
            answered: dict[str, Any] = json.load(response)
            return answered

    eventually(lambda: answer("/v1/users/user-3/recommendations").get("known"), 60, "the user's row")
    event = {"user_id": "user-3", "item_id": "item-1", "event_type": "view"}
    written = re.search(r'"wait_for": "(\d+):\d+"', json.dumps(answer("/v1/events", event)))
    assert written is not None
    never = f"wait_for={written[1]}:1000000&wait=1000"
    assert not answer(f"/v1/users/user-3/recommendations?{never}")["includes"]


def _try_a_canary(here: Installation, shares: list[tuple[Version, int]]) -> None:
    settings = here.of("models watch")
    epoch = announce_shares(here.of("announce"), shares).epoch
    prepare_topics(settings, "models watch")
    decided = watch_canary(settings, epoch, Limit(seconds=0.1), threading.Event())
    assert decided is not None


def _refresh(here: Installation) -> None:
    """The parts of a refresh that use the cluster: its training would take half a minute."""
    settings = here.of("refresh").replace(event_log=here.folder / "log-of-refresh")
    prepare_topics(settings, "refresh")
    assert live_announcement(settings) is not None
    export(settings, settings.event_log)
    announce(settings, load(settings.registry / versions(settings.registry)[-1]))
    reader = RankReader(settings)
    assert list(reader.read_on())
    reader.close()


def _repartition(here: Installation) -> str:
    """What the command says."""
    settings = here.of("repartition")
    arguments = ["repartition", "--partitions", "3", "--yes"]
    ran = CliRunner().invoke(eddy.app, arguments, env=environment(settings))
    if ran.exception is not None and "has members" not in str(ran.exception):
        raise ran.exception
    return ran.output + str(ran.exception)


Decisions = dict[str, set[Permission]]


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("least")
    with secured_kafka(folder, map(user_of, COMMANDS)) as kafka:
        here = Installation(kafka, folder)
        for command in COMMANDS:
            kafka.allow(user_of(command), needed_by(command, here.admin, TOPIC_OF.get(command)))
        yield here


@pytest.fixture(scope="module")
def decisions(installation: Installation) -> dict[str, Decisions]:
    """By verdict and command: what the broker allowed, and what it denied."""
    use_everything(installation)
    return {
        verdict: {command: installation.kafka.decisions(user_of(command), verdict) for command in COMMANDS}
        for verdict in ("Allowed", "Denied")
    }


@pytest.mark.timeout(300)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_uses_all_that_it_is_allowed_and_nothing_else(
    installation: Installation, decisions: dict[str, Decisions], command: str
) -> None:
    used = decisions["Allowed"][command]
    with_more = {(each.resource, each.name) for each in used if each.operation in INCLUDE_DESCRIBE}
    used = {
        each for each in used if each.operation != "DESCRIBE" or (each.resource, each.name) not in with_more
    }
    assert decisions["Denied"][command] <= ONLY_ASKED_FOR
    assert sorted(used) == needed_by(command, installation.admin, TOPIC_OF.get(command))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_permission_that_is_missing_is_named(installation: Installation, command: str) -> None:
    settings, source = installation.of(command), TOPIC_OF.get(command)
    permission = next(
        each for each in needed_by(command, settings, source) if each.operation in ("READ", "WRITE", "CREATE")
    )
    installation.kafka.forbid(user_of(command), permission)
    try:
        expected = re.escape(f"allow User:{user_of(command)} {permission}")
        with admin_client(settings) as admin, pytest.raises(NotAllowed, match=expected):
            require_permissions(admin, settings, command, source)
    finally:
        installation.kafka.allow(user_of(command), [permission])


def test_a_command_without_a_permission_ends_with_one_line_that_names_it(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = installation.settings("eddy-serve")  # who may write events, and not read them
    for variable, value in environment(settings).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(sys, "argv", ["eddy", "export"])
    with pytest.raises(SystemExit) as ended:
        eddy.run()
    assert ended.value.code == 1
    assert capsys.readouterr().err == (
        "eddy: the cluster does not allow what `eddy export` does; missing: allow User:eddy-serve READ on "
        "topic least.events. An administrator adds that: `eddy acls --principal User:eddy-serve --for "
        "'export'` prints how\n"
    )
