"""A real Apache Kafka (KRaft, one node) as a child process, for machines that have none.

Guarantee: whatever ends this process (Ctrl-C, an exception, SIGKILL), the broker ends with it, because its
watchdog holds a pipe from here. A broker without `data_dir` leaves nothing behind but its log.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from filelock import FileLock, Timeout

from eddy.models.errors import EddyError
from eddy.models.locks import locked
from eddy.stream.kafka.clients import admin_client, cluster_id_at
from eddy.stream.kafka.waiting import wait_until
from eddy.stream.local_kafka import watchdog as broker_watchdog
from eddy.stream.local_kafka.config import (
    HOST,
    PORT_TAKEN,
    cluster_id,
    java_command,
    java_environment,
    likely_cause,
    server_properties,
)
from eddy.stream.local_kafka.disk import require_disk
from eddy.stream.local_kafka.free_port import free_port, is_free
from eddy.stream.local_kafka.jars import Progress, kafka_class_path
from eddy.stream.local_kafka.security import PROTOCOLS, BrokerSecurity
from eddy.stream.records.settings import Settings, load_settings

_START_TIMEOUT_S = 120.0
_LOGIN_BY = "SASL_PLAINTEXT"
"""The listener of a secured broker at which it is asked whether it is ready: it needs no certificate."""
_PORT_ATTEMPTS = 5
_FREE_BYTES = 1 << 30
"""So much room the disk must have before a broker starts."""

_LOG_AGE_S = 7 * 86_400.0
"""Logs of ended brokers are removed when they are older."""


class _PortTaken(Exception):
    """Another program listens on the port, or was faster to take it."""


class LocalBroker:
    """A one-node Kafka on loopback ports; a context manager, or `start` and `stop`.

    data_dir: the folder that keeps the data across runs; None: a folder in the cache, removed at the end.
    port: where clients connect; None: any free port. heap: Java's -Xmx. properties: added to Kafka's own.
    cache_dir: where jars, ephemeral data and logs go; None: the settings' cache folder.
    whole_heap: the heap is taken at the start, so that what the process grows by later is something else.
    security: who may come in (the log then has a line for each decision of the authorizer); None: everybody.
    progress: called with one line for each step that a user may have to wait for.

    The attribute `pid` is the broker's while it runs; `log_file` remains after its end.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        port: int | None = None,
        heap: str = "512m",
        properties: Mapping[str, str] | None = None,
        *,
        cache_dir: Path | None = None,
        whole_heap: bool = False,
        security: BrokerSecurity | None = None,
        progress: Progress = lambda line: None,
    ) -> None:
        self._cache = (cache_dir or load_settings().cache_dir).expanduser().absolute()
        self._ephemeral = data_dir is None
        name = uuid.uuid4().hex[:12]
        self._home = data_dir.expanduser().absolute() if data_dir else self._cache / "brokers" / name
        self._data = self._home / "data"
        logs = self._cache / "logs"
        self.log_file = self._home / "broker.log" if data_dir else logs / f"broker-{name}.log"
        self.pid: int | None = None
        self._port = port
        self._security = security
        self._other_ports: dict[str, int] = {}
        """by protocol: of a secured broker's further listeners"""
        self._heap, self._whole_heap = heap, whole_heap
        self._properties = dict(properties or {})
        self._progress = progress
        self._class_path: list[Path] = []
        self._watchdog: subprocess.Popen[str] | None = None
        self._lock = FileLock(self._home / "lock", thread_local=False)

    @property
    def bootstrap_servers(self) -> str:
        """The address for clients; it stays the same across `restart` and after `kill`."""
        if self._port is None:
            raise RuntimeError("the broker was not started")
        return f"{HOST}:{self._port}"

    def address_of(self, protocol: str) -> str:
        """The address of a secured broker's listener for this protocol, one of `PROTOCOLS`."""
        port = self._other_ports.get(protocol)
        return f"{HOST}:{port}" if port else self.bootstrap_servers

    def start(self) -> None:
        """Start the broker; returns when clients can connect.

        1. Claim the folder and fetch the jars.
        2. Launch Kafka on the given port, or on a free one, and wait until it answers.
        3. If another program was faster to take a free port, try with the next one.

        Errors: EddyError with the log's path and the likely cause; then nothing is left running.
        """
        try:
            # 1. Folder and jars.
            self._prepare()
            # 2. Launch.
            attempts = _PORT_ATTEMPTS if self._port is None else 1
            for attempt in range(1, attempts + 1):
                port = self._port or free_port(HOST)
                try:
                    self._launch(port)
                except _PortTaken:
                    # 3. The next port.
                    self._end("kill")
                    if attempt == attempts:
                        advice = f"port {port} is taken: stop what listens there, or choose another port"
                        raise self._failure(advice) from None
                else:
                    self._port = port
                    return
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the broker, cleanly if its data stays; ephemeral data is removed. May be called repeatedly."""
        self._end("kill" if self._ephemeral else "stop")
        if self._ephemeral:
            shutil.rmtree(self._home, ignore_errors=True)
        self._lock.release(force=True)

    def kill(self) -> None:
        """End the broker as a crash would (SIGKILL); `start` brings it back on the same port and data."""
        self._end("kill")

    def restart(self) -> None:
        """Stop the broker cleanly and start it on the same port and data."""
        self._end("stop")
        self.start()

    def wait(self) -> NoReturn:
        """Wait while the broker runs. Errors: EddyError with the likely cause as soon as it has ended by
        itself.
        """
        if self._watchdog is None:
            raise RuntimeError("the broker was not started")
        self._watchdog.wait()
        raise EddyError(f"Kafka ended by itself: {likely_cause(self._log())} (log: {self.log_file})")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _prepare(self) -> None:
        """Claim a folder on a disk with room for it, and fetch Kafka's jars. Errors: EddyError."""
        require_disk(self._home, _FREE_BYTES)
        self._cache.mkdir(parents=True, exist_ok=True)
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        # Cleaning and claiming take turns: a folder that is not yet claimed looks like a dead broker's.
        with locked(self._cache / "brokers.lock", "another broker to start"):
            _remove_leftovers(self._cache)
            self._home.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                raise EddyError(
                    f"another broker is using {self._home}: stop it, or give another folder"
                ) from None
        self._class_path = kafka_class_path(self._cache, self._progress)

    def _launch(self, port: int) -> None:
        """Start Kafka under its watchdog; returns when it answers. Errors: _PortTaken, EddyError."""
        if not is_free(HOST, port):
            raise _PortTaken
        config = self._home / "server.properties"
        controller_port = free_port(HOST, but=port)
        properties, secured = self._properties, self._security is not None
        if self._security is not None:
            if self._port is None:  # after a port that was taken, which it may have been as well
                self._other_ports.clear()
            for protocol in PROTOCOLS[1:]:
                self._other_ports.setdefault(protocol, free_port(HOST, but=port))
            ports = {PROTOCOLS[0]: port, **self._other_ports}
            properties = {**self._security.properties(ports, controller_port), **properties}
        config.touch(mode=0o600)  # it may hold passwords
        config.write_text(server_properties(self._data, port, controller_port, properties))
        if self.log_file.exists():
            self.log_file.replace(self.log_file.with_suffix(".previous.log"))
        if not self._data.exists():
            self._format(config)
        self._progress(f"Starting Apache Kafka on {HOST}:{port}")
        self._watchdog = subprocess.Popen(
            [
                *(sys.executable, "-I", broker_watchdog.__file__),
                *(str(os.getpid()), str(self.log_file), str(self._home) if self._ephemeral else ""),
                *java_command(
                    self._class_path,
                    self._heap,
                    "kafka.Kafka",
                    str(config),
                    audited=secured,
                    whole_heap=self._whole_heap,
                ),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=java_environment(),
        )
        assert self._watchdog.stdout is not None
        self.pid = int(self._watchdog.stdout.readline() or 0) or None
        self._wait_until_ready(port)

    def _format(self, config: Path) -> None:
        """Make the data folder a new cluster's. Errors: EddyError."""
        # No leading dash: the formatter's command line would take it for an option.
        new_cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "x")
        arguments = ["kafka.tools.StorageTool", "format", "-t", new_cluster_id, "-c", str(config)]
        if self._security is not None:
            arguments += self._security.format_arguments()
        with self.log_file.open("ab") as log:
            done = subprocess.run(
                java_command(self._class_path, self._heap, *arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=java_environment(),
                check=False,
            )
        if done.returncode:
            raise self._failure()

    def _wait_until_ready(self, port: int) -> None:
        """Return when this very broker answers on the port, for which another program may have been
        faster.
        """
        expected_id = cluster_id(self._data)
        address, login = f"{HOST}:{port}", dict[str, str]()
        if self._security is not None:
            address, login = f"{HOST}:{self._other_ports[_LOGIN_BY]}", self._security.admin_login(_LOGIN_BY)

        def ready() -> bool:
            assert self._watchdog is not None
            if PORT_TAKEN in self._log():
                raise _PortTaken
            if self._watchdog.poll() is not None:
                raise self._failure()
            return _answers(port) and cluster_id_at(address, **login) == expected_id

        if not wait_until(ready, _START_TIMEOUT_S, every_s=0.05):
            raise self._failure(f"it did not answer on port {port} within {_START_TIMEOUT_S:.0f} s")

    def _end(self, order: str) -> None:
        watchdog, self._watchdog = self._watchdog, None
        pid, self.pid = self.pid, None
        if watchdog is None:
            return
        watchdog.communicate(order + "\n")
        if watchdog.returncode < 0 and pid:  # somebody killed the watchdog, and it could not end the broker
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _log(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def _failure(self, cause: str = "") -> EddyError:
        return EddyError(f"Kafka did not start: {cause or likely_cause(self._log())} (log: {self.log_file})")


@contextmanager
def broker_or_local(settings: Settings, progress: Progress = lambda line: None) -> Iterator[str]:
    """The address of the settings' cluster; without one, of a local broker that runs as long as the block
    does.

    Errors: EddyError when the named cluster does not answer, or the local broker does not start.
    """
    if settings.bootstrap_servers:
        with admin_client(settings):
            pass
        yield settings.bootstrap_servers
        return
    with LocalBroker(cache_dir=settings.cache_dir, progress=progress) as broker:
        yield broker.bootstrap_servers


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
        return True
    return False


def _remove_leftovers(cache: Path) -> None:
    """Remove old logs, and the folders of ephemeral brokers whose process is gone (after a power cut)."""
    for folder in (cache / "brokers").glob("*/"):
        with suppress(Timeout), FileLock(folder / "lock", timeout=0):
            shutil.rmtree(folder, ignore_errors=True)
    for log in (cache / "logs").glob("*.log"):
        if time.time() - log.stat().st_mtime > _LOG_AGE_S:
            log.unlink(missing_ok=True)
