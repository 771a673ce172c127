"""What the page looks at: a real broker, a worker, a server with API keys, some users, and two versions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from kafka import KafkaProducer

from eddy.models.registry import Version
from eddy.serving.api_keys import new_key
from eddy.stream.kafka.clients import client_config
from eddy.stream.kafka.topics import prepare_topics
from eddy.stream.kafka.versions import announce
from eddy.stream.local_kafka.free_port import free_port
from eddy.stream.records.schema import Event, encode
from eddy.stream.records.settings import Settings
from tests.chaos.faults import HoldEngine
from tests.chaos.fleet import Fleet
from tests.support.engines import item_id, random_version
from tests.support.waiting import eventually

STARTS_S = 240.0
"""A worker or a server starts within this time, also on a machine that does much else."""

ENDS_S = 30.0
"""A server that takes longer to end is killed."""

ITEMS = 200
PAYLOAD = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
"""What a page that took text for markup would run."""

HOSTILE_ITEM, HOSTILE_USER = item_id(3), "mallory" + PAYLOAD
USERS = ("alice", "bruno", "chen", HOSTILE_USER)
_WORDS = ("Quiet", "Golden", "Paper", "Last", "Hidden"), ("River", "Garden", "Signal", "Harbour")


class LiveSystem:
    """One installation, whose server can be ended and started again."""

    def __init__(self, settings: Settings, folder: Path, fleet: Fleet) -> None:
        self.settings = settings
        self.fleet = fleet
        self._folder = folder
        self._port = free_port("127.0.0.1")
        self.address = f"http://127.0.0.1:{self._port}/"
        self.versions: list[Version] = []
        self._server: subprocess.Popen[bytes] | None = None
        (self.read_key, read_line), (self.write_key, write_line) = (
            new_key("reader", ["read"]), new_key("writer", ["read", "write", "operate"])
        )  # fmt: skip
        (folder / "keys").write_text(f"{read_line}\n{write_line}\n")

    def prepare(self) -> None:
        """Topics, titles, two versions with different cells, of which the first is live, and a worker."""
        prepare_topics(self.settings)
        registry = self.settings.registry
        self.versions = [random_version(registry, cell, items=ITEMS - 5) for cell in ("gru", "lstm")]
        announce(self.settings, self.versions[0])
        self.fleet.start()
        first, second = _WORDS
        titles = {
            item_id(n): f"The {first[n % 5]} {second[n // 5 % 4]} {n}" for n in range(ITEMS)
        } | {HOSTILE_ITEM: PAYLOAD}  # fmt: skip
        described = [
            {"item_id": item, "title": title, "category": PAYLOAD if item == HOSTILE_ITEM else "Drama"}
            for item, title in titles.items()
        ]
        records = [(str(each["item_id"]), json.dumps(each).encode()) for each in described]
        self.write(self.settings.topics.items, records)

    def write(self, topic: str, records: Iterable[tuple[str, bytes | None]]) -> None:
        """Write records, and return when they are confirmed."""
        producer = KafkaProducer(**client_config(self.settings), acks="all")
        try:
            futures = [producer.send(topic, key=key.encode(), value=value) for key, value in records]
            for future in futures:
                future.get(timeout=30)
        finally:
            producer.close()

    def send(self, count: int, users: Iterable[str] = USERS) -> None:
        """Events of these users in turn, as any producer would write them; they happen now."""
        users, now = tuple(users), time.time_ns() // 1_000_000
        events = [
            Event(users[n % len(users)], item_id((now + n * 7) % (ITEMS - 10)), now - count + n)
            for n in range(count)
        ]
        self.write(self.settings.topics.events, [(event.user_id, encode(event)) for event in events])

    def start_server(self) -> None:
        """Start `eddy serve`, and return when it is ready."""
        environment = {
            **os.environ,
            "EDDY_BOOTSTRAP_SERVERS": str(self.settings.bootstrap_servers),
            "EDDY_TOPIC_PREFIX": self.settings.topic_prefix,
            "EDDY_GROUP": self.settings.group,
            "EDDY_PARTITIONS": str(self.settings.partitions),
            "EDDY_REGISTRY": str(self.settings.registry),
            "EDDY_PORT": str(self._port),
            "EDDY_API_KEYS_FILE": str(self._folder / "keys"),
        }
        with (self._folder / "server.log").open("ab") as log:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "eddy", "serve"], env=environment, stdout=log, stderr=log
            )
        eventually(self._ready, STARTS_S, "a server that is ready")

    def _ready(self) -> bool:
        try:
            return httpx.get(self.address + "readyz").status_code == 200
        except httpx.TransportError:
            return False

    @contextmanager
    def held_worker(self, method: str) -> Iterator[HoldEngine]:
        """The worker is replaced by one that stands still once this method of the engine has changed rows,
        until the file `release` is made, at the latest in the end.
        """
        hold = HoldEngine(method, self._folder)
        self.fleet.stop()
        self.fleet.start(fault=hold)
        try:
            yield hold
        finally:
            hold.release.touch()

    def ask(self, path: str) -> Any:
        """The server's answer to a GET with the key that may read."""
        answer = httpx.get(self.address + path, headers={"X-API-Key": self.read_key}, timeout=30)
        return answer.raise_for_status().json()

    @property
    def server_pid(self) -> int:
        assert self._server is not None
        return self._server.pid

    def kill_server(self) -> None:
        """SIGKILL: connections break."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> int:
        assert self._server is not None
        self._server.send_signal(number)
        try:
            code = self._server.wait(ENDS_S)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
            raise
        self._server = None
        return code

    def close(self) -> None:
        if self._server is not None:
            self._end(signal.SIGTERM)

    def log_of_server(self) -> str:
        """The end of what the server has written."""
        return (self._folder / "server.log").read_text(errors="replace")[-5000:]


@contextmanager
def live_system(settings: Settings, folder: Path) -> Iterator[LiveSystem]:
    """Yields an installation with rows of all USERS, and ends it afterwards."""
    with Fleet(settings, folder) as fleet:
        system = LiveSystem(settings, folder, fleet)
        try:
            system.prepare()
            system.start_server()
            system.send(40)
            # One record that no worker can use, so that there is a dead letter to look at.
            system.write(settings.topics.events, [(PAYLOAD, b'{"user_id":"x","note":1}')])
            with httpx.Client(base_url=system.address, headers={"X-API-Key": system.read_key}) as client:
                eventually(
                    lambda: all(client.get(f"/v1/users/{user}").status_code == 200 for user in USERS[:3]),
                    STARTS_S,
                    "rows of the users",
                )
            yield system
        except BaseException:
            for log in sorted(folder.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-5000:]}")
            raise
        finally:
            system.close()
