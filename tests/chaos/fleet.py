"""Real worker processes that can be killed, paused, added and removed. They are forked from a server that has
imported everything, so that a start takes one second instead of ten.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from urllib.request import urlopen

from eddy.stream.records.settings import Settings
from eddy.stream.worker.app import run_worker
from tests.chaos.faults import Die, Hold, HoldEngine, Impatient, LoseChunk, nothing
from tests.support.waiting import eventually

EXIT_S = 60.0
LAST_LINES = 5
"""Lines of a worker's log that are printed when it ends unexpectedly."""

_OBEYS = "process %d obeys"
Fault = Die | Hold | HoldEngine | Impatient | LoseChunk


def work(settings: Settings, log_file: Path, fault: Fault | None) -> None:
    """The main function of a worker process: does what `eddy worker` does, with its output in a file."""
    with log_file.open("ab", buffering=0) as log:
        os.dup2(log.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    for chatty in ("aiokafka", "kafka"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.info("process %d", os.getpid())
    if isinstance(fault, HoldEngine | Impatient):
        fault.begin()
    asyncio.run(_work(settings, fault or nothing))


async def _work(settings: Settings, fault: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, _tell)
    running = asyncio.ensure_future(run_worker(settings, fault))
    await asyncio.sleep(0)  # the first thing it does is to say what happens on SIGTERM
    logging.info(_OBEYS, os.getpid())
    await running


def _tell() -> None:
    """Write into the log where every task stands; a test asks for it when something takes too long."""
    for task in asyncio.all_tasks():
        task.print_stack(file=sys.stderr)


@dataclass
class Worker:
    """One process."""

    name: str
    process: ForkServerProcess
    log_file: Path
    static_name: str | None = None
    """a successor takes it over"""
    doomed: bool = False
    """kills itself"""
    log_start: int = 0
    """where its part of the log begins, in bytes, behind that of the one that it succeeds"""

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    @property
    def obeys(self) -> bool:
        """Whether SIGTERM would end it gently: not in its first moments."""
        return (_OBEYS % (self.process.pid or 0)).encode() in self.log()

    def log(self) -> bytes:
        """The output that it has written so far."""
        return self.log_file.read_bytes() if self.log_file.exists() else b""

    def metrics(self) -> dict[str, float]:
        """Its metrics (EDDY_METRICS_PORT=0): value by name and labels, as they are written."""
        address = re.findall(rb"metrics: (http\S+)", self.log())[-1].decode()
        with urlopen(address, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def sources(self) -> dict[int, list[str]]:
        """Where the rows came from each time that a partition began anew in this process, by partition."""
        sources: dict[int, list[str]] = {}
        pattern = r"partition (\d+): \d+ rows from (.*) in [\d.]+ s"
        for number, source in re.findall(pattern, self.log()[self.log_start :].decode()):
            sources.setdefault(int(number), []).append(source)
        return sources

    def signal(self, number: int) -> None:
        """Send it a signal, of which one that has ended hears nothing: `ended` tells how it did."""
        assert self.process.pid is not None
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def ended(self, within_s: float = EXIT_S) -> int | None:
        """Waits for its end; returns its exit code, negative for a signal, None if it still runs."""
        self.process.join(within_s)
        return self.process.exitcode


class Fleet:
    """Workers of one group. The static ones keep a name, so that a successor takes their partitions up
    at once.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._processes = multiprocessing.get_context("forkserver")
        # Loading a version makes torch import the second one, which takes seconds.
        self._processes.set_forkserver_preload(["tests.chaos.fleet", "torch._dynamo"])
        self._numbers = itertools.count(1)
        self.workers: list[Worker] = []
        self.unexpected: list[str] = []

    def start(self, static_name: str | None = None, fault: Fault | None = None, **values: object) -> Worker:
        """Start a new worker, with a fault or without one; `values` are settings of its
        own.
        """
        name = static_name or f"worker-{next(self._numbers)}"
        log_file = self._folder / f"{name}.log"
        log_start = log_file.stat().st_size if log_file.exists() else 0
        settings = self._settings.replace(
            **{"worker_id": static_name, "cache_dir": self._folder / f"cache-{name}", **values}
        )
        process = self._processes.Process(
            target=work, args=(settings, log_file, fault), name=name, daemon=True
        )
        process.start()
        doomed = fault is not None and fault.fatal
        worker = Worker(name, process, log_file, static_name, doomed, log_start)
        self.workers.append(worker)
        return worker

    def kill(self, worker: Worker) -> None:
        """SIGKILL, and wait until it is gone. One that had ended by itself before is remembered."""
        worker.signal(signal.SIGKILL)
        code = worker.ended()
        self.workers.remove(worker)
        if code != -signal.SIGKILL:
            self._remember(worker, code)

    def await_death(self, worker: Worker, within_s: float) -> None:
        """Wait for a worker that kills itself."""
        code = worker.ended(within_s)
        assert code is not None, (
            f"{worker.name} did not reach its step within {within_s} s, see {worker.log_file}"
        )
        self.workers.remove(worker)
        if code != -signal.SIGKILL:
            self._remember(worker, code)

    def remove(self, worker: Worker) -> None:
        """SIGTERM: it flushes, leaves the group and exits with 0."""
        eventually(lambda: worker.obeys or not worker.alive, EXIT_S, f"{worker.name} has begun")
        worker.signal(signal.SIGTERM)
        code = worker.ended()
        self.workers.remove(worker)
        if code is None:
            worker.signal(signal.SIGKILL)
        if code != 0:
            self._remember(worker, code)

    def mend(self) -> int:
        """Does what a supervisor does: starts a worker for each that ended by itself. Returns how many."""
        gone = [worker for worker in self.workers if not worker.alive and not worker.doomed]
        for worker in gone:
            self.workers.remove(worker)
            self._remember(worker, worker.process.exitcode)
            self.start(worker.static_name)
        return len(gone)

    def _remember(self, worker: Worker, code: int | None) -> None:
        lines = worker.log().decode(errors="replace").strip().splitlines()
        self.unexpected.append("\n".join([f"{worker.name} ended with {code}:", *lines[-LAST_LINES:]]))
        print(f"  {self.unexpected[-1]}", flush=True)

    def interrogate(self) -> None:
        """Have every worker write into its log where it stands."""
        log_lengths = {worker.name: len(worker.log()) for worker in self.workers if worker.alive}
        for worker in self.workers:
            if worker.name in log_lengths:
                worker.signal(signal.SIGUSR1)
        with suppress(AssertionError):  # a worker that does not answer is news as well
            eventually(
                lambda: all(len(w.log()) > log_lengths[w.name] for w in self.workers if w.alive),
                10,
                "answers",
            )

    def stop(self) -> None:
        """End all, gently; every exit but 0 is remembered."""
        for worker in list(self.workers):
            self.remove(worker)

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            if worker.alive:
                worker.signal(signal.SIGKILL)
                worker.ended()
