"""What the commands of the benchmark share: progress in the terminal, a testbed, and how they end."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from eddy.models.errors import EddyError
from eddy.stream.local_kafka.broker import broker_or_local
from eddy.stream.records.settings import load_settings
from tests.bench.testbed import Testbed
from tests.support.ending import end_on_sigterm


def print_progress(elapsed_s: float, line: str) -> None:
    """Print a line with the time since the start."""
    minutes, seconds = divmod(int(elapsed_s), 60)
    print(f"{minutes:2d}:{seconds:02d}  {line}", flush=True)


class Progress:
    """What a command prints while it measures, each line with the time since the start; it remembers what
    could not be measured.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()
        self.missing: list[str] = []

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def __call__(self, line: str) -> None:
        """Print a line."""
        print_progress(self.elapsed, line)

    def miss(self, line: str) -> None:
        """Print what could not be measured, and why."""
        self(line)
        self.missing.append(line)

    def exit_code(self) -> int:
        """0 when everything was measured; else 1, once it is said again what is missing."""
        for line in self.missing:
            print(f"missing: {line}", file=sys.stderr)
        return 1 if self.missing else 0


@contextmanager
def new_testbed(log: Callable[[str], None]) -> Iterator[Testbed]:
    """Yields a testbed on the cluster that the settings name, or else on one that runs until the end."""
    with (
        tempfile.TemporaryDirectory(prefix="eddy-bench-") as folder,
        broker_or_local(load_settings(), log) as bootstrap,
    ):
        yield Testbed(bootstrap, Path(folder))


def exit_with(main: Callable[[], int]) -> None:
    """Run a command and end the process with its exit code, or with the reason for which it ended early."""
    end_on_sigterm()
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except EddyError as error:
        sys.exit(f"bench: {error}")
