"""The measured programs as child processes: they end with the benchmark, whatever ends it."""

from __future__ import annotations

import os
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import psutil
from prometheus_client.parser import text_string_to_metric_families

from eddy.demo.children import Child
from eddy.stream.local_kafka.free_port import free_port
from eddy.stream.records.settings import Settings

HOST = "127.0.0.1"
PEERS = Path(__file__).parent / "peers"
PeerName = Literal["faust_textbook", "quix_stateful", "handwritten"]


class Program:
    """One running program, and the port of its metrics."""

    def __init__(
        self, name: str, command: list[str], folder: Path, environment: Mapping[str, str], port: int = 0
    ) -> None:
        self.child = Child(name, command, folder / f"{name}.log", {**os.environ, **environment})
        assert self.child.process.stdout is not None
        self.process = psutil.Process(int(self.child.process.stdout.readline()))
        self._port = port

    def rss(self) -> int:
        """Its resident bytes."""
        return int(self.process.memory_info().rss)

    def cores(self, seconds: float) -> float:
        """How many processors it keeps busy, as the mean over the next `seconds`."""
        before = self.process.cpu_times()
        time.sleep(seconds)
        now = self.process.cpu_times()
        return round((now.user + now.system - before.user - before.system) / seconds, 4)

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels; 0 while the program does not answer yet."""
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self._port}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            return 0.0
        samples = (s for family in text_string_to_metric_families(text) for s in family.samples)
        return sum(sample.value for sample in samples if sample.name == name)


@contextmanager
def running(programs: list[Program]) -> Iterator[list[Program]]:
    """Yields the programs, and kills them at the end."""
    try:
        yield programs
    finally:
        for program in programs:
            program.child.tell("kill")
        for program in programs:
            program.child.wait()


def peer(name: PeerName, settings: Settings, results: str, folder: Path) -> Program:
    """A peer that reads `events` and answers on `results`."""
    assert settings.bootstrap_servers is not None
    state = folder / "state"
    state.mkdir(parents=True, exist_ok=True)
    arguments = [settings.bootstrap_servers, settings.topics.events, results, str(state)]
    return Program(name, [sys.executable, str(PEERS / f"{name}.py"), *arguments], folder, {})


def worker(
    settings: Settings, folder: Path, number: int, environment: Mapping[str, str],
    python: str = sys.executable,
) -> Program:  # fmt: skip
    """`eddy worker`, with every setting that is not given in `environment` at its default, as the Python has
    it installed.
    """
    assert settings.bootstrap_servers is not None
    port = free_port(HOST)
    defaults = {
        "EDDY_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "EDDY_TOPIC_PREFIX": settings.topic_prefix,
        "EDDY_GROUP": settings.group,
        "EDDY_PARTITIONS": str(settings.partitions),
        "EDDY_REGISTRY": str(settings.registry),
        "EDDY_CACHE_DIR": str(folder / f"cache-{number}"),
        "EDDY_METRICS_PORT": str(port),
    }
    command = [python, "-P", "-m", "eddy", "worker"]  # -P: not what lies in the present folder
    return Program(f"worker-{number}", command, folder, {**defaults, **environment}, port)
