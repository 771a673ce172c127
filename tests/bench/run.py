"""The benchmark: `make bench`, or `make bench QUICK=1`.

    python -m tests.bench.run [--quick] [--record]

Each section writes its figures as soon as it has them: to results/, in the short form to results/quick/.
summary.json is written by both; the table and the plot in README.md only by the full form, or by the short
one with --record (RECORD=1).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eddy.models.errors import EddyError
from eddy.models.scoring.approximate_products import Precision
from eddy.stream.local_kafka.broker import broker_or_local
from eddy.stream.records.settings import load_settings
from tests.bench import report
from tests.bench.freshness_runs import measure_freshness, name_of
from tests.bench.machine import describe
from tests.bench.memory import measure_memory
from tests.bench.place import Place
from tests.bench.plan import FULL, LOADS, PEERS, QUICK, Plan
from tests.bench.programs import PeerName
from tests.bench.subprograms import result_of
from tests.bench.throughput import EddyRun, Measured, Rounds, measure_eddy, measure_peer

HERE = Path(__file__).parent
SECTION_S = 600.0
REDUCED: tuple[Precision, ...] = ("int8", "bfloat16")


class Run:
    """One run: what was found so far, by section."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.target = HERE / "results" / "quick" if plan.quick else HERE / "results"
        self.target.mkdir(parents=True, exist_ok=True)
        self.started = time.monotonic()
        self.machine = {**describe(), "quick": plan.quick}
        self.found: dict[str, Any] = {}

    def __call__(self, line: str) -> bool:
        """Tell progress; whether there is time for more."""
        self.log(line)
        return self.left > 0

    def log(self, line: str) -> None:
        """Progress, with the time since the start."""
        minutes, seconds = divmod(int(self.elapsed), 60)
        print(f"{minutes:2d}:{seconds:02d}  {line}", flush=True)

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    @property
    def left(self) -> float:
        return self.plan.total_s - self.elapsed

    @property
    def reduced(self) -> Precision | None:
        """See `report.reduced_precision`."""
        return report.reduced_precision(self.found)

    def section(self, name: str, work: Callable[[], Any]) -> None:
        """Do a section and write it down; one that fails or has no time left is missing, and says why."""
        if self.left <= 0:
            self.log(f"{name}: left out, no time is left")
            self.found[name] = None
            return
        try:
            self.found[name] = work()
        except (EddyError, ValueError) as error:
            self.log(f"{name}: missing: {error}")
            self.found[name] = None
            return
        result = {**self.machine, name: self.found[name]}
        (self.target / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def throughput(run: Run, place: Place) -> dict[str, Any]:
    """All programs in interleaved rounds; a failed measurement is told and left out."""
    plan, rounds = run.plan, Rounds()
    reduced = [replace(one, precision=run.reduced) for one in plan.reduced if run.reduced]
    programs = [*(one for one in reduced if one.possible), *plan.eddy]

    def note(number: int, name: str, measure: Callable[[], Measured]) -> None:
        if number > 1 and run.elapsed > plan.rounds_s:
            return
        try:
            found = measure()
        except (EddyError, ValueError) as error:
            run.log(f"round {number}  {name}: {error}")
            return
        rounds.add(name, number, found)
        run.log(f"round {number}  {name:32s} {found.rate:10,.0f} events/s  ({found.cpu:.2f} cores)")

    with place.installation(4, plan.backlog) as settings:
        for number in range(1, plan.rounds + 1):
            for name in PEERS:
                note(
                    number, name,
                    lambda name=name: measure_peer(  # type: ignore[misc]
                        place, settings, name, plan.backlog, plan.warm_s, plan.seconds
                    ),
                )  # fmt: skip
            for one in programs:
                note(
                    number, one.name,
                    lambda one=one: measure_eddy(  # type: ignore[misc]
                        place, one, plan.backlog, plan.warm_s, plan.seconds
                    ),
                )  # fmt: skip
    return rounds.to_json()


def stages(run: Run, place: Place) -> dict[str, list[float]]:
    """Ceilings of each stage, all rounds."""
    with place.installation(4, run.plan.staged) as settings:
        cell, whole = place.version("cell").id, place.version("whole").id
        found: dict[str, list[float]] = result_of(
            "stages", place.bootstrap, settings.topic_prefix, settings.registry, settings.partitions,
            run.plan.rounds, min(run.plan.stages_s, run.left), cell, whole,
            "float32", *([run.reduced] if run.reduced else []), limit_s=SECTION_S,
        )  # fmt: skip
    for name, rates in found.items():
        run.log(f"stage  {name:24s} {sorted(rates)[len(rates) // 2]:12,.0f} per s")
    return found


def freshness(run: Run, place: Place) -> list[dict[str, Any]]:
    """Delays at shares of the capacity of the same program."""
    plan, found, runs = run.plan, list[dict[str, Any]](), run.found["throughput"]
    default = run.reduced or "float32"
    programs: list[tuple[EddyRun | PeerName, tuple[float, ...]]] = [
        *((replace(one, precision=default), LOADS) for one in plan.freshness),
        *plan.fresh_peers,
    ]
    for program, loads in programs:
        name = name_of(program)
        if name not in runs:
            run.log(f"freshness of {name}: left out, its throughput was not measured")
            continue
        found += measure_freshness(
            place, program, runs[name]["median"], loads, plan.warm_s, plan.steady_s, run
        )
    return found


def each(run: Run, module: str, arguments: Sequence[tuple[object, ...]], limit_s: float) -> list[Any]:
    """A program's results for each of some arguments; one that fails is told and left out."""
    found = []
    for one in arguments:
        if run.left <= 0:
            run.log(f"{module}: the rest is left out, no time is left")
            break
        try:
            found.append(result_of(module, *one, limit_s=limit_s))
            run.log(f"{module} {json.dumps(found[-1])}")
        except EddyError as error:
            run.log(str(error))
    return found


def measure(run: Run, place: Place) -> None:
    """All sections."""
    plan = run.plan
    topk = [(10_000, 3, precision) for precision in ("float32", *REDUCED, "auto")]
    topk += [(items, 3, precision) for items in plan.catalogues for precision in ("float32", "auto")]
    growth = [(*point, 2.0) for point in plan.points]
    run.section("topk", lambda: each(run, "topk", topk, 120))
    run.section("throughput", lambda: throughput(run, place))
    run.section("stages", lambda: stages(run, place))
    if run.found["throughput"]:
        run.section("freshness", lambda: freshness(run, place))
    run.section("memory", lambda: measure_memory(place, plan.memory_events, min(plan.memory_s, run.left)))
    if growth:
        run.section("growth", lambda: each(run, "growth", growth, 120))


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--quick", action="store_true", help="the short form, within 8 minutes")
    parser.add_argument("--record", action="store_true", help="also rewrite README.md after the short form")
    options = parser.parse_args()
    run = Run(QUICK if options.quick else FULL)
    with (
        tempfile.TemporaryDirectory(prefix="eddy-bench-") as folder,
        broker_or_local(load_settings(), run.log) as bootstrap,
    ):
        measure(run, Place(bootstrap, Path(folder)))
    if run.plan.restored:
        run.log("restore")
        command = [sys.executable, "-m", "tests.bench.restore", str(run.plan.restored)]
        subprocess.run(command, cwd=HERE.parents[1], check=False)
    summary = report.summary(run.machine, run.found)
    text = json.dumps(summary, indent=1) + "\n"
    (HERE / "results" / "summary.json").write_text(text, encoding="utf-8")
    (run.target / "summary.json").write_text(text, encoding="utf-8")
    print(report.table(run.found, summary))
    if options.record or not run.plan.quick:
        report.write_readme(run.machine, run.found, summary)
    run.log("done")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except EddyError as error:
        sys.exit(f"bench: {error}")
