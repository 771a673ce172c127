"""Several server processes on one port, under one parent.

Each follows all topics and holds all rows, so that any of them can answer: N processes answer N times as much
where there are cores, and need N times the memory. The parent serves nothing. It starts a process that dies
again, and ends all when it is told to end or when one says that it cannot go on. A process whose parent has
gone ends itself. Only the processes import what serves: torch would take the parent seconds and 400 MB.
"""

import asyncio
import logging
import multiprocessing
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType

from eddy.models.errors import EddyError
from eddy.serving.listening import BACKLOG, GRACE_S, bind
from eddy.stream.records.settings import Settings

log = logging.getLogger("eddy.serving")

KERNEL_BALANCES = sys.platform == "linux"
"""Whether each process can listen by itself, and the kernel deals connections out evenly. Elsewhere all
accept from one socket.
"""

RESTART_AFTER_S = 1.0
"""The pause before a dead process is started again."""

_LOOK_EVERY_S = 0.2
_spawn = multiprocessing.get_context("spawn")


def run_processes(settings: Settings, count: int, set_up_logging: Callable[[str], None]) -> None:
    """Serve with `count` processes until SIGTERM or SIGINT. `set_up_logging` runs in each with the
    format of the settings, and must be a function of a module.

    Errors: EddyError when the port is taken, or a process cannot start.
    """
    bind(settings).close()  # another installation's port would be shared without a word
    with bind(settings, shared=KERNEL_BALANCES) as reserved, tempfile.TemporaryDirectory() as folder:
        if not KERNEL_BALANCES:
            reserved.listen(BACKLOG)
        port: int = reserved.getsockname()[1]
        shared = None if KERNEL_BALANCES else reserved
        settings = settings.replace(port=port)

        def start(number: int, again: bool) -> SpawnProcess:
            process = _spawn.Process(
                target=_run,
                args=(settings, number, again, folder, shared, set_up_logging),
                name=f"eddy-serve-{number}",
            )
            process.start()
            return process

        _Parent(start, settings.http_drain_s + GRACE_S + 5).run(count)


class _Parent:
    """Keeps processes running until a signal."""

    def __init__(self, start: Callable[[int, bool], SpawnProcess], ends_within_s: float) -> None:
        self._start = start
        self._ends_within_s = ends_within_s
        self._told_to_end = False
        self._processes: dict[int, SpawnProcess] = {}

    def run(self, count: int) -> None:
        """Returns when all have ended. Errors: EddyError when one could not start."""
        signals = (signal.SIGTERM, signal.SIGINT)
        before = [signal.signal(number, self._end) for number in signals]
        try:
            for number in range(count):
                self._processes[number] = self._start(number, False)
            while not self._told_to_end:
                wait([process.sentinel for process in self._processes.values()], _LOOK_EVERY_S)
                self._look_after()
        finally:
            self._end_all()
            for number, handler in zip(signals, before, strict=True):
                signal.signal(number, handler)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._told_to_end = True

    def _look_after(self) -> None:
        """Start the dead again."""
        for number, process in list(self._processes.items()):
            if process.exitcode is None or self._told_to_end:
                continue
            if process.exitcode == 1:  # it has said why, and would say it again
                raise EddyError(f"process {number} could not go on; the line above says why")
            log.warning("process %d ended with exit code %s; it is started again", number, process.exitcode)
            time.sleep(RESTART_AFTER_S)
            self._processes[number] = self._start(number, True)

    def _end_all(self) -> None:
        """Tell all to end, and wait."""
        for process in self._processes.values():
            process.terminate()
        until = time.monotonic() + self._ends_within_s
        for process in self._processes.values():
            process.join(max(until - time.monotonic(), 0))
            if process.exitcode is None:
                process.kill()
                process.join()


def _run(
    settings: Settings,
    number: int,
    again: bool,
    folder: str,
    shared: socket.socket | None,
    set_up_logging: Callable[[str], None],
) -> None:
    """A process of its own."""
    from eddy.serving.server import run_with_fast_loop

    set_up_logging(settings.log_format)
    try:
        run_with_fast_loop(_serve(settings, number, again, Path(folder), shared))
    except EddyError as error:
        sys.exit(f"eddy: {error}")


async def _serve(
    settings: Settings, number: int, again: bool, folder: Path, shared: socket.socket | None
) -> None:
    from eddy.serving.process_metrics import ProcessMetrics
    from eddy.serving.server import serve_on

    parent = multiprocessing.parent_process()
    assert parent is not None
    loop = asyncio.get_running_loop()
    loop.add_reader(parent.sentinel, signal.raise_signal, signal.SIGTERM)
    try:
        # Whoever takes over for a dead process listens when it is ready: the others answer meanwhile.
        with shared or bind(settings, shared=True) as bound:
            await serve_on(bound, settings, metrics=ProcessMetrics(folder, number), when_ready=again)
    finally:
        loop.remove_reader(parent.sentinel)
