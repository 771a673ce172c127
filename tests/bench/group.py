"""A group of `eddy worker` processes that join, leave and are killed, and what the cluster says of it."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from eddy.models.errors import EddyError
from eddy.stream.records.settings import Settings
from tests.bench.observe import Observer
from tests.bench.programs import Program, worker
from tests.bench.throughput import EddyRun

POLL_S = 0.2
ENVIRONMENT = EddyRun("whole", "every", "int8").environment | {"EDDY_PRECISION": "auto"}
"""Every event is answered, in the precision that is the default."""

Owners = dict[int, str]
"""The id of the member that owns a partition."""


def python_of(checkout: Path | None) -> str:
    """The Python that has a checkout's Eddy installed; without one, this one. Errors: EddyError."""
    if checkout is None:
        return sys.executable
    python = checkout / ".venv" / "bin" / "python"
    if not python.exists():
        raise EddyError(f"{checkout} has no {python.relative_to(checkout)}: run `make setup` there")
    return str(python.absolute())


class Group:
    """The workers of one installation, the longest running first."""

    def __init__(self, settings: Settings, folder: Path, python: str) -> None:
        self.settings = settings
        self.workers: list[Program] = []
        self.observer = Observer(settings)
        self._folder, self._python = folder, python
        self._numbers: dict[str, int] = {}
        self._names: dict[str, str] = {}

    def start(self, stable_name: str | None = None, place: int | None = None) -> Program:
        """Start a worker, on a new machine or, with `place`, on one where another one ran before."""
        number = len(self._numbers) if place is None else place
        named = {} if stable_name is None else {"EDDY_WORKER_ID": stable_name}
        program = worker(self.settings, self._folder, number, ENVIRONMENT | named, self._python)
        self._numbers[program.child.name] = number
        if stable_name is not None:
            self._names[program.child.name] = stable_name
        self.workers.append(program)
        return program

    def stop(self, program: Program) -> None:
        """SIGTERM: it flushes, leaves the group, unless it has a stable name, and ends."""
        self._end(program, "stop")

    def kill(self, program: Program) -> None:
        """SIGKILL."""
        self._end(program, "kill")

    def restart(self, program: Program) -> None:
        """SIGTERM, then start it with the same name, if it has one, and what it left on its disk."""
        name = program.child.name
        self.stop(program)
        self.start(self._names.get(name), self._numbers[name])

    def named(self) -> Program:
        """The worker that has a stable name."""
        return next(program for program in self.workers if program.child.name in self._names)

    def unnamed(self) -> list[Program]:
        """Those that have none, the longest running first."""
        return [program for program in self.workers if program.child.name not in self._names]

    def _end(self, program: Program, order: str) -> None:
        program.child.tell(order)
        program.child.wait()
        self.workers.remove(program)

    def restored(self) -> bool:
        """Whether all workers have their share of the partitions, and have restored them."""
        owners = self.observer.cluster.owners()
        if owners is None or len(owners) < self.settings.partitions:
            return False
        if len(set(owners.values())) != len(self.workers):
            return False
        return all(program.metric("eddy_ready") for program in self.workers)

    def settled(self) -> bool:
        """Whether they have also made durable what was appended a moment ago."""
        if not self.restored():
            return False
        ends = self.observer.count(self.settings.topics.events)
        time.sleep(2 * self.settings.checkpoint_ms / 1000)
        return self.observer.committed() >= ends

    def follow(self, until: Callable[[], bool], limit_s: float) -> list[Owners]:
        """Wait until the condition holds; returns the owners that the partitions had meanwhile, one after
        another. Errors: EddyError when it takes longer, or a worker has ended.
        """
        deadline, history = time.monotonic() + limit_s, list[Owners]()
        while True:
            owners = self.observer.cluster.owners()
            if owners is not None and (not history or owners != history[-1]):
                history.append(owners)
            if until():
                return history
            for program in self.workers:
                program.child.check()
            if time.monotonic() > deadline:
                raise EddyError(f"the group did not settle within {limit_s:.0f} s; {self._last_words()}")
            time.sleep(POLL_S)

    def _last_words(self) -> str:
        """What the group is doing."""
        partitions = Counter((self.observer.cluster.owners() or {}).values())
        lines = [f"{program.child.name}: {program.child.last_line}" for program in self.workers]
        return f"partitions by member: {dict(partitions)}; {'; '.join(lines)}"

    def close(self) -> None:
        for program in self.workers:
            program.child.tell("kill")
        for program in self.workers:
            program.child.wait()
        self.observer.close()


@contextmanager
def new_group(settings: Settings, folder: Path, python: str) -> Iterator[Group]:
    """Yields a group without workers; those that run are killed at the end."""
    group = Group(settings, folder, python)
    try:
        yield group
    finally:
        group.close()


def moved_partitions(history: Sequence[Owners]) -> set[int]:
    """The partitions that had more than one owner."""
    numbers = {number for owners in history for number in owners}
    return {
        number for number in numbers if len({owners[number] for owners in history if number in owners}) > 1
    }


def fewest_moves(before: Owners, after: Owners) -> int:
    """How many partitions had to move so that the members of `after` have equal shares, give or take one,
    each keeping as many of its own as that allows.
    """
    members = set(after.values())
    share, more = divmod(len(after), len(members))
    shares = [share + 1] * more + [share] * (len(members) - more)
    before_by_member = Counter(owner for owner in before.values() if owner in members)
    most_first = sorted((before_by_member[member] for member in members), reverse=True)
    return len(after) - sum(map(min, shares, most_first))
