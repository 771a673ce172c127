"""Freshness of Eddy's worker, and of peers, at shares of the capacity that was measured before."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from eddy.models.errors import EddyError
from eddy.stream.records.settings import Settings
from tests.bench.observe import Observer
from tests.bench.programs import PeerName, Program, peer, running, worker
from tests.bench.subprograms import result_of
from tests.bench.testbed import Testbed
from tests.bench.throughput import EddyRun

KNOWN_EVENTS, KNOWN_S = 40_000, 5.0
"""The backlog that a program reads first: so many events, or fewer if it needs more than this time for
them.
"""

PATIENCE_S = 90.0

QUIET_PER_S = 100.0
"""The rate of a stream so quiet that every event can be answered by itself."""

IDLE_S = 5.0
"""For how long the processor time of a program that has nothing to do is measured."""


def name_of(program: EddyRun | PeerName) -> str:
    """The program's name in the tables."""
    return program if isinstance(program, str) else program.name


@dataclass(frozen=True)
class _Live:
    """A running program that has finished its backlog."""

    settings: Settings
    answers: str
    """its topic"""
    positional: bool
    """whether the n-th answer of a partition is to its n-th event, instead of naming it"""
    done: Callable[[], int]
    """events answered so far"""
    program: Program


def measure_freshness(
    testbed: Testbed,
    program: EddyRun | PeerName,
    capacity: float,
    loads: tuple[float, ...],
    warm_s: float,
    steady_s: float,
    go_on: Callable[[str], bool],
) -> Iterator[dict[str, Any]]:
    """Measure one program, once it has read a first backlog: with a quiet stream, then with each load in
    turn, as long as `go_on` says so.
    """
    name = name_of(program)
    sent = min(KNOWN_EVENTS, round(KNOWN_S * capacity))
    partitions = 4 if isinstance(program, str) else program.partitions
    with testbed.installation(partitions, sent) as settings:
        observer = Observer(settings)
        try:
            with _live(testbed, settings, program, observer) as live:
                _until_idle(live, sent)
                idle = live.program.cores(IDLE_S)
                for number, load in enumerate((QUIET_PER_S / capacity, *loads)):
                    _until_idle(live, sent)
                    figures: dict[str, Any] = result_of(
                        "freshness", settings.bootstrap_servers, settings.topic_prefix, settings.partitions,
                        live.answers, int(live.positional), capacity * load, warm_s, steady_s, 10 + number,
                        limit_s=warm_s + steady_s + PATIENCE_S,
                    )  # fmt: skip
                    sent = observer.count(settings.topics.events)
                    yield {"run": name, "load": round(load, 4), "idle_cores": idle, **figures}
                    delays = f"p50 {figures.get('p50_ms')}, p99 {figures.get('p99_ms')} ms"
                    if not go_on(f"{name} at {capacity * load:,.0f}/s ({load:.1%}): {delays}"):
                        return
        finally:
            observer.close()


@contextmanager
def _live(
    testbed: Testbed, settings: Settings, program: EddyRun | PeerName, observer: Observer
) -> Iterator[_Live]:
    folder = testbed.work_folder()
    if isinstance(program, str):
        topic = testbed.result_topic(settings, program)
        with running([peer(program, settings, topic, folder)]) as (started,):
            yield _Live(settings, topic, True, lambda: observer.count(topic), started)
    else:
        testbed.go_live(settings, testbed.version(program.score))
        with running([worker(settings, folder, 0, program.environment)]) as (started,):
            yield _Live(settings, settings.topics.recommendations, False, observer.committed, started)


def _until_idle(live: _Live, events: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while live.done() < events:
        if time.monotonic() > deadline:
            raise EddyError(f"the program did not reach the log's end within {PATIENCE_S:.0f} s")
        time.sleep(0.2)
