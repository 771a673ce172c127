"""A server process under measurement: its load, its processor time and its memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from eddy.models.errors import EddyError
from tests.bench.programs import HOST

CONNECTIONS = 128
END_S = 60.0
"""So long a server may take to end."""


class Server:
    """A server process under measurement."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], log: Path, port: int) -> None:
        self.port, self.log = port, log
        with log.open("ab") as lines:
            self.process = psutil.Popen(
                list(command), env={**os.environ, **environment}, stdout=lines, stderr=lines
            )

    def rss(self) -> int:
        """Resident bytes of the process and its children."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(int(process.memory_info().rss) for process in family)

    def cpu_s(self) -> float:
        """Processor seconds so far."""
        family = [self.process, *self.process.children(recursive=True)]
        return float(sum(t.user + t.system for t in (process.cpu_times() for process in family)))

    def wait_until_ready(self, within_s: float = 300) -> None:
        """Errors: EddyError when it is not ready in time, or has ended."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise EddyError(f"the server ended with {self.process.returncode}: see {self.log}")
            try:
                with urllib.request.urlopen(f"http://{HOST}:{self.port}/readyz", timeout=5):
                    return
            except OSError:
                time.sleep(0.2)
        raise EddyError(f"the server was not ready within {within_s:.0f} s: see {self.log}")

    def ask(self, path: str) -> bytes:
        """One answer."""
        with urllib.request.urlopen(f"http://{HOST}:{self.port}{path}", timeout=30) as answer:
            body: bytes = answer.read()
            return body

    def under_load(
        self, requests: Sequence[bytes], rate: float, seconds: float, connections: int = CONNECTIONS
    ) -> dict[str, Any]:
        """The figures of one load, and the server's own."""
        command = [
            sys.executable, "-m", "tests.bench.open_loop",
            HOST, str(self.port), str(rate), str(seconds), str(connections),
        ]  # fmt: skip
        rendered = "\n".join(json.dumps(request.decode()) for request in requests)
        highest, stop = [self.rss()], threading.Event()

        def watch() -> None:
            while not stop.wait(0.2):
                highest.append(self.rss())

        watching = threading.Thread(target=watch)
        cpu, began = self.cpu_s(), time.monotonic()
        watching.start()
        try:
            done = subprocess.run(command, input=rendered, stdout=subprocess.PIPE, text=True, check=True)
        finally:
            stop.set()
            watching.join()
        figures: dict[str, Any] = json.loads(done.stdout)
        return {
            "rate": rate,
            **figures,
            "server_cores": round((self.cpu_s() - cpu) / (time.monotonic() - began), 2),
            "rss_mb": round(max(highest) / 2**20),
            "rss_mb_before": round(highest[0] / 2**20),
        }

    def end(self) -> None:
        """Tell the process to end, and wait for it. Errors: EddyError when it has to be killed."""
        self.process.terminate()
        try:
            self.process.wait(END_S)
        except psutil.TimeoutExpired:
            self.process.kill()
            raise EddyError(f"the server did not end within {END_S:.0f} s of SIGTERM") from None


@contextmanager
def started(server: Server) -> Iterator[Server]:
    """Yields a server when it is ready, and ends it in the end."""
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.end()
