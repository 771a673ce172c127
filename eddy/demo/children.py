"""The demo's own processes: `eddy worker`, `eddy serve` and the others, each with its log.

Guarantee: they end with the demo, whatever ends it. Each runs under the watchdog that also guards the broker.
"""

import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from eddy.models.errors import EddyError
from eddy.stream.local_kafka import watchdog

_STOP_S = 30.0


class Child:
    """A running `eddy` command."""

    def __init__(
        self, name: str, command: list[str], log: Path, environment: Mapping[str, str],
        well: Collection[int] = (0,),
    ) -> None:  # fmt: skip
        """environment: all of it."""
        self.name = name
        self.log = log
        self._well = well
        self.process = subprocess.Popen(
            [sys.executable, "-I", watchdog.__file__, str(os.getpid()), str(log), "", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**environment, "PYTHONUNBUFFERED": "1"},
        )

    @property
    def last_line(self) -> str:
        """The last line of its log; "" while it has none."""
        with suppress(OSError):
            lines = self.log.read_text(errors="replace").splitlines()
            return next((line.strip() for line in reversed(lines) if line.strip()), "")
        return ""

    def check(self) -> None:
        """Errors: EddyError when it has ended."""
        status = self.process.poll()
        if status is not None:
            reason = self.last_line.removeprefix("eddy: ")
            raise EddyError(f"`eddy {self.name}` ended (exit code {status}): {reason} (log: {self.log})")

    def ended(self) -> bool:
        """Whether it has ended well. Errors: EddyError when it has failed."""
        if self.process.poll() not in (None, *self._well):
            self.check()
        return self.process.returncode is not None

    def tell(self, order: str) -> None:
        """Give the watchdog its one order: `stop` lets the command finish its work, `kill` does not."""
        if self.process.poll() is None and self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.write(order + "\n")
                self.process.stdin.flush()

    def wait(self) -> None:
        """Wait for its end, for up to _STOP_S."""
        with suppress(subprocess.TimeoutExpired, BrokenPipeError):
            self.process.communicate(timeout=_STOP_S)


class Children:
    """All processes of a demo; a context manager that ends those which still run."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = dict(environment)
        self.running: list[Child] = []

    def start(self, *arguments: str, nice: bool = False, well: Collection[int] = (0,)) -> Child:
        """Start `eddy` with these arguments; its output goes to a log named after the command.

        nice: with a lower priority. well: the exit codes that are no failure.
        """
        name = arguments[0]
        count = sum(child.name == name for child in self.running)
        log = self.folder / (f"{name}-{count + 1}.log" if count else f"{name}.log")
        command = [*(("nice", "-n", "10") if nice else ()), sys.executable, "-m", "eddy", *arguments]
        child = Child(name, command, log, self.environment, well)
        self.running.append(child)
        return child

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self.running:
            child.tell("stop" if kind is None else "kill")
        for child in self.running:
            child.wait()
