"""Events per second of whole programs over a backlog: peers and `eddy worker`, measured alike.

A window of `seconds` opens `warm_s` after the program's first visible output (so start-up never counts) and
closes early if the backlog ends. Programs that answer every event are measured by the append times of their
answers; Eddy's other emissions by the offsets that its group committed, seen ten times a second. The program
is killed afterwards.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from typing import Any, Literal

from eddy.models.errors import EddyError
from eddy.models.scoring.approximate_products import Precision
from eddy.stream.records.settings import Settings
from tests.bench.observe import Observer, Window, follow
from tests.bench.programs import PeerName, Program, peer, running, worker
from tests.bench.testbed import Testbed
from tests.bench.versions import Score

START_S = 90.0

Emit = Literal["every", "latest", "off"]


@dataclass(frozen=True)
class EddyRun:
    """One row of the table."""

    score: Score
    emit: Emit
    precision: Precision = "float32"
    partitions: int = 4
    workers: int = 1
    device: str = "auto"

    @property
    def name(self) -> str:
        parts = [f"eddy-{self.score}-{self.emit}-{self.precision}"]
        parts += [f"p{self.partitions}"] if self.partitions != 4 else []
        parts += [f"w{self.workers}"] if self.workers != 1 else []
        parts += [self.device] if self.device != "auto" else []
        return "-".join(parts)

    @property
    def environment(self) -> dict[str, str]:
        """What differs from the defaults: lists of ten, as the peers make them, and this row's choices."""
        chosen = {"EDDY_EMIT": self.emit, "EDDY_PRECISION": self.precision, "EDDY_DEVICE": self.device}
        return {"EDDY_K": "10", **chosen}


@dataclass(frozen=True)
class Measured:
    """One run's figures."""

    rate: float
    """events/s"""
    committed: float | None = None
    """events/s by committed offsets, Eddy only"""
    cpu: float = 0.0
    """CPU seconds of the program per second of the window"""
    rss: int = 0
    """bytes at the end of the window"""


@dataclass
class Rounds:
    """All runs by name and round."""

    runs: dict[str, dict[int, Measured]] = field(default_factory=dict)

    def add(self, name: str, number: int, measured: Measured) -> None:
        self.runs.setdefault(name, {})[number] = measured

    def to_json(self) -> dict[str, Any]:
        return {
            name: {
                "median": round(statistics.median(run.rate for run in runs.values()), 1),
                "rounds": {str(number): vars(run) for number, run in runs.items()},
            }
            for name, runs in self.runs.items()
        }


def ratio(runs: dict[str, Any], name: str, other: str) -> float:
    """Median of the ratios of two programs' rates within the same rounds. Errors: KeyError or ValueError
    where one was not measured.
    """
    ours, theirs = runs[name]["rounds"], runs[other]["rounds"]
    common = ours.keys() & theirs.keys()
    if not common:
        raise ValueError(f"{name} and {other} were not measured in the same round")
    return float(statistics.median(ours[number]["rate"] / theirs[number]["rate"] for number in common))


def measure_peer(
    testbed: Testbed, settings: Settings, name: PeerName, events: int, warm_s: float, seconds: float
) -> Measured:
    """A peer on an installation's backlog of `events`."""
    topic, folder = testbed.result_topic(settings, name), testbed.work_folder()
    observer = Observer(settings)
    try:
        with running([peer(name, settings, topic, folder)]) as programs:
            return _measure(observer, programs, topic, None, events, warm_s, seconds)
    finally:
        observer.close()


def measure_eddy(testbed: Testbed, run: EddyRun, events: int, warm_s: float, seconds: float) -> Measured:
    """Eddy's workers on a new installation with a backlog of `events`."""
    with testbed.installation(run.partitions, events) as settings:
        testbed.go_live(settings, testbed.version(run.score))
        folder, observer = testbed.work_folder(), Observer(settings)
        topic = settings.topics.recommendations if run.emit == "every" else None
        try:
            programs = [worker(settings, folder, n, run.environment) for n in range(run.workers)]
            with running(programs):
                return _measure(observer, programs, topic, run.workers, events, warm_s, seconds)
        finally:
            observer.close()


def _measure(
    observer: Observer,
    programs: list[Program],
    answers: str | None,
    members: int | None,
    events: int,
    warm_s: float,
    seconds: float,
) -> Measured:
    """`answers`: the topic with an answer per event; without, committed offsets count. `members`: of Eddy's
    group, which must all be there; None for a peer.
    """
    started = time.time()
    begun: list[float] = []
    usage: list[tuple[float, float]] = []

    def count() -> int:
        return observer.committed() if members is not None else observer.count(answers or "")

    def alive() -> None:
        for program in programs:
            if program.child.process.poll() is not None:
                raise EddyError(f"{program.child.name} ended: {program.child.last_line}")

    def complete() -> bool:
        if members is None or members == 1:
            return True
        return observer.cluster.members() == members and all(p.metric("eddy_ready") for p in programs)

    def window() -> Window | None:
        if begun:
            if not usage and time.time() >= begun[0] + warm_s:
                usage.append(_usage(programs))
            return Window(begun[0] + warm_s, seconds)
        if count() and complete():
            begun.append(time.time())
        elif time.time() - started > START_S:
            raise EddyError(f"{programs[0].child.name} shows no output after {START_S:.0f} s")
        return None

    curve, opened = follow(count, alive, events, window)
    at, spent = _usage(programs)
    cpu = (spent - usage[0][1]) / (at - usage[0][0]) if usage else 0.0
    rss = sum(program.rss() for program in programs)
    committed = curve.rate(opened) if members is not None else None
    if answers is not None:
        curve = observer.appended_curve(answers, opened)
    return Measured(curve.rate(opened), committed, round(cpu, 3), rss)


def _usage(programs: list[Program]) -> tuple[float, float]:
    """(now, CPU seconds spent so far by all)."""
    times = [program.process.cpu_times() for program in programs]
    return time.time(), sum(used.user + used.system for used in times)
