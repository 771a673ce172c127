"""Freshness of a worker at shares of the capacity that was measured before."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from models.errors import EddyError
from tests.bench.observe import Observer
from tests.bench.place import Place
from tests.bench.programs import running, worker
from tests.bench.subprograms import result_of
from tests.bench.throughput import EddyRun

KNOWN_EVENTS = 40_000
PATIENCE_S = 90.0


def measure_freshness(
    place: Place,
    run: EddyRun,
    capacity: float,
    loads: tuple[float, ...],
    warm_s: float,
    steady_s: float,
    go_on: Callable[[str], bool],
) -> Iterator[dict[str, Any]]:
    """One worker that has taken in a first backlog; then each load in turn, as long as `go_on` says so."""
    with place.installation(run.partitions, KNOWN_EVENTS) as settings:
        place.go_live(settings, place.version(run.score))
        observer = Observer(settings)
        try:
            with running([worker(settings, place.work_folder(), 0, run.environment)]):
                sent = KNOWN_EVENTS
                for number, load in enumerate(loads):
                    _until_idle(observer, sent)
                    found: dict[str, Any] = result_of(
                        "freshness", settings.bootstrap_servers, settings.topic_prefix, settings.partitions,
                        capacity * load, warm_s, steady_s, 10 + number,
                        limit_s=warm_s + steady_s + PATIENCE_S,
                    )  # fmt: skip
                    sent = observer.count(settings.topics.events)
                    yield {"run": run.name, "load": load, **found}
                    delays = f"p50 {found.get('p50_ms')}, p99 {found.get('p99_ms')} ms"
                    if not go_on(f"{run.name} at {load:.0%}: {delays}"):
                        return
        finally:
            observer.close()


def _until_idle(observer: Observer, events: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while observer.committed() < events:
        if time.monotonic() > deadline:
            raise EddyError(f"the worker did not reach the log's end within {PATIENCE_S:.0f} s")
        time.sleep(0.2)
