"""The benchmark: `make bench`, or `make bench QUICK=1`, or with ONLY="growth freshness" a part of it.

    python -m tests.bench.run [--quick] [--record] [--only SECTION ...]

Each section writes its figures as soon as it has them: to results/, in the short form to results/quick/. The
figures of sections that are not measured stay as those files have them, each with its own commit and date.
summary.json is written by both; the table and the plot in README.md only by the full form, or by the short
one with --record (RECORD=1).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eddy.models.errors import EddyError
from eddy.models.scoring.approximate_products import Precision
from tests.bench import report
from tests.bench.command import exit_with, new_testbed, print_progress
from tests.bench.freshness_runs import measure_freshness, name_of
from tests.bench.machine import describe
from tests.bench.membership import measure_membership
from tests.bench.memory import measure_memory
from tests.bench.plan import FULL, LOADS, PEERS, QUICK, Plan
from tests.bench.programs import PeerName
from tests.bench.subprograms import result_of
from tests.bench.testbed import Testbed
from tests.bench.throughput import EddyRun, Measured, Rounds, measure_eddy, measure_peer

HERE = Path(__file__).parent
SECTION_S = 600.0
SECTIONS = ("topk", "throughput", "stages", "freshness", "memory", "membership", "growth")
REDUCED: tuple[Precision, ...] = ("int8", "bfloat16")


class Run:
    """One run of the benchmark: its figures so far, and those that were recorded before, by section."""

    def __init__(self, plan: Plan, only: Sequence[str] = SECTIONS) -> None:
        self.plan, self.only = plan, only
        self.target = HERE / "results" / "quick" if plan.quick else HERE / "results"
        self.target.mkdir(parents=True, exist_ok=True)
        self.started = time.monotonic()
        self.machine = {**describe(), "quick": plan.quick}
        self.figures: dict[str, Any] = {}
        self.origins: dict[str, report.Origin] = {}
        """where and when the figures were measured"""

    def __call__(self, line: str) -> bool:
        """Print progress; returns whether there is time for more."""
        self.log(line)
        return self.left > 0

    def log(self, line: str) -> None:
        """Print progress, with the time since the start."""
        print_progress(self.elapsed, line)

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    @property
    def left(self) -> float:
        return self.plan.total_s - self.elapsed

    @property
    def reduced(self) -> Precision | None:
        """See `report.reduced_precision`."""
        return report.reduced_precision(self.figures)

    def section(self, name: str, work: Callable[[], Any]) -> None:
        """Measure a section and write its figures, if it is to be measured. A section that fails, or for
        which no time is left, is logged with the reason, and its figures are None.
        """
        file = self.target / f"{name}.json"
        if name not in self.only:
            if file.exists():
                recorded = json.loads(file.read_text(encoding="utf-8"))
                self.figures[name], self.origins[name] = recorded[name], report.origin_of(recorded)
            return
        if self.left <= 0:
            self.log(f"{name}: left out, no time is left")
            self.figures[name] = None
            return
        try:
            self.figures[name] = work()
        except (EddyError, ValueError) as error:
            self.log(f"{name}: missing: {error}")
            self.figures[name] = None
            return
        self.origins[name] = report.origin_of(self.machine)
        result = {**self.machine, name: self.figures[name]}
        file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def throughput(run: Run, testbed: Testbed) -> dict[str, Any]:
    """Measure all programs in interleaved rounds. A measurement that fails is logged and left out."""
    plan, rounds = run.plan, Rounds()
    reduced = [replace(eddy_run, precision=run.reduced) for eddy_run in plan.reduced if run.reduced]
    programs = [*reduced, *plan.eddy]

    def note(number: int, name: str, measure: Callable[[], Measured]) -> None:
        if number > 1 and run.elapsed > plan.rounds_s:
            return
        try:
            measured = measure()
        except (EddyError, ValueError) as error:
            run.log(f"round {number}  {name}: {error}")
            return
        rounds.add(name, number, measured)
        run.log(f"round {number}  {name:32s} {measured.rate:10,.0f} events/s  ({measured.cpu:.2f} cores)")

    with testbed.installation(4, plan.backlog) as settings:
        for number in range(1, plan.rounds + 1):
            for name in PEERS:
                note(
                    number, name,
                    lambda name=name: measure_peer(  # type: ignore[misc]
                        testbed, settings, name, plan.backlog, plan.warm_s, plan.seconds
                    ),
                )  # fmt: skip
            for eddy_run in programs:
                note(
                    number, eddy_run.name,
                    lambda eddy_run=eddy_run: measure_eddy(  # type: ignore[misc]
                        testbed, eddy_run, plan.backlog, plan.warm_s, plan.seconds
                    ),
                )  # fmt: skip
    return rounds.to_json()


def stages(run: Run, testbed: Testbed) -> dict[str, list[float]]:
    """The rates of each stage alone, in all rounds."""
    with testbed.installation(4, run.plan.staged) as settings:
        cell, whole = testbed.version("cell").id, testbed.version("whole").id
        rates_by_stage: dict[str, list[float]] = result_of(
            "stages", testbed.bootstrap, settings.topic_prefix, settings.registry, settings.partitions,
            run.plan.rounds, min(run.plan.stages_s, run.left), cell, whole,
            "float32", *([run.reduced] if run.reduced else []), limit_s=SECTION_S,
        )  # fmt: skip
    for name, rates in rates_by_stage.items():
        run.log(f"stage  {name:24s} {sorted(rates)[len(rates) // 2]:12,.0f} per s")
    return rates_by_stage


def freshness(run: Run, testbed: Testbed) -> list[dict[str, Any]]:
    """Delays of each program at shares of its own throughput."""
    plan, rows, runs = run.plan, list[dict[str, Any]](), run.figures["throughput"]
    default = run.reduced or "float32"
    programs: list[tuple[EddyRun | PeerName, tuple[float, ...]]] = [
        *((replace(eddy_run, precision=default), LOADS) for eddy_run in plan.freshness),
        *plan.fresh_peers,
    ]
    for program, loads in programs:
        name = name_of(program)
        if name not in runs:
            run.log(f"freshness of {name}: left out, its throughput was not measured")
            continue
        rows += measure_freshness(
            testbed, program, runs[name]["median"], loads, plan.warm_s, plan.steady_s, run
        )
    return rows


def results_of_each(
    run: Run, module: str, arguments: Sequence[tuple[object, ...]], limit_s: float
) -> list[Any]:
    """The results of a subprogram for each of `arguments`. One that fails is logged and left out."""
    results = []
    for point in arguments:
        if run.left <= 0:
            run.log(f"{module}: the rest is left out, no time is left")
            break
        try:
            results.append(result_of(module, *point, limit_s=limit_s))
            run.log(f"{module} {json.dumps(results[-1])}")
        except EddyError as error:
            run.log(str(error))
    return results


def measure(run: Run, testbed: Testbed) -> None:
    """Measure all sections."""
    plan = run.plan
    topk = [(10_000, 3, precision) for precision in ("float32", *REDUCED, "auto")]
    topk += [(items, 3, precision) for items in plan.catalogues for precision in ("float32", "auto")]
    growth = [(*point, 2.0) for point in plan.points]
    run.section("topk", lambda: results_of_each(run, "topk", topk, 120))
    run.section("throughput", lambda: throughput(run, testbed))
    run.section("stages", lambda: stages(run, testbed))
    if run.figures.get("throughput"):
        run.section("freshness", lambda: freshness(run, testbed))
    run.section("memory", lambda: measure_memory(testbed, plan.memory_events, min(plan.memory_s, run.left)))
    run.section("membership", lambda: measure_membership(testbed, plan.membership, run.log))
    if growth:
        run.section("growth", lambda: results_of_each(run, "growth", growth, 120))


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--quick", action="store_true", help="the short form, within 9 minutes")
    parser.add_argument("--record", action="store_true", help="also rewrite README.md after the short form")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="measure these alone")
    options = parser.parse_args()
    run = Run(QUICK if options.quick else FULL, options.only)
    with new_testbed(run.log) as testbed:
        measure(run, testbed)
    if run.plan.restored and options.only == SECTIONS:
        run.log("restore")
        command = [sys.executable, "-m", "tests.bench.restore", str(run.plan.restored)]
        subprocess.run(command, cwd=HERE.parents[1], check=False)
    summary = report.summary(run.machine, run.figures, run.origins)
    text = json.dumps(summary, indent=1) + "\n"
    (HERE / "results" / "summary.json").write_text(text, encoding="utf-8")
    (run.target / "summary.json").write_text(text, encoding="utf-8")
    print(report.table(run.figures, summary))
    if options.record or not run.plan.quick:
        report.write_readme(run.machine, run.figures, run.origins, summary)
    run.log("done")
    return 0


if __name__ == "__main__":
    exit_with(main)
