"""The sections of a run of the benchmark: their figures, what of them is missing, and their files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eddy.models.errors import EddyError
from eddy.models.scoring.approximate_products import Precision
from tests.bench import report
from tests.bench.command import Progress
from tests.bench.freshness_runs import measure_freshness, name_of
from tests.bench.machine import describe
from tests.bench.plan import LOADS, Plan
from tests.bench.programs import PeerName
from tests.bench.subprograms import result_of
from tests.bench.testbed import Testbed
from tests.bench.throughput import EddyRun

HERE = Path(__file__).parent
SECTIONS = ("topk", "throughput", "stages", "freshness", "memory", "membership", "growth")


class Run:
    """One run of the benchmark: its figures so far, and those that were recorded before, by section."""

    def __init__(self, plan: Plan, only: Sequence[str] = SECTIONS) -> None:
        self.plan, self.only = plan, only
        self.target = HERE / "results" / "quick" if plan.quick else HERE / "results"
        self.target.mkdir(parents=True, exist_ok=True)
        self.log = Progress()
        self.machine = {**describe(), "quick": plan.quick}
        self.figures: dict[str, Any] = {}
        self.origins: dict[str, report.Origin] = {}
        """where and when the figures were measured"""

    def __call__(self, line: str) -> bool:
        """Print progress; returns whether there is time for more."""
        self.log(line)
        return self.left > 0

    @property
    def left(self) -> float:
        return self.plan.total_s - self.log.elapsed

    @property
    def reduced(self) -> Precision | None:
        """See `report.reduced_precision`."""
        return report.reduced_precision(self.figures)

    def section(self, name: str, work: Callable[[], Any]) -> None:
        """Measure a section and write its figures, if it is to be measured. A section that fails, that has
        measured nothing, or for which no time is left, is missing, and its figures are None.
        """
        file = self.target / f"{name}.json"
        if name not in self.only:
            if file.exists():
                recorded = json.loads(file.read_text(encoding="utf-8"))
                self.figures[name], self.origins[name] = recorded[name], report.origin_of(recorded)
            return
        self.figures[name] = None
        if self.left <= 0:
            self.log.miss(f"{name}: left out, no time is left")
            return
        try:
            measured = work()
        except (EddyError, ValueError) as error:
            self.log.miss(f"{name}: {error}")
            return
        if not measured:
            self.log.miss(f"{name}: nothing was measured")
            return
        self.figures[name] = measured
        self.origins[name] = report.origin_of(self.machine)
        result = {**self.machine, name: measured}
        file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


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
            run.log.miss(f"freshness of {name}: left out, its throughput was not measured")
            continue
        measured = measure_freshness(
            testbed, program, runs[name]["median"], loads, plan.warm_s, plan.steady_s, run
        )
        before = len(rows)
        try:
            rows += measured
        except (EddyError, ValueError) as error:
            run.log.miss(f"freshness of {name}: {error}")
            continue
        if len(rows) - before < 1 + len(loads):
            run.log.miss(f"freshness of {name}: the rest is left out, no time is left")
    return rows


def results_of_each(
    run: Run, module: str, arguments: Sequence[tuple[object, ...]], limit_s: float
) -> list[Any]:
    """The results of a subprogram for each of `arguments`. One that fails is logged and left out."""
    results = []
    for point in arguments:
        if run.left <= 0:
            run.log.miss(f"{module}: the rest is left out, no time is left")
            break
        try:
            results.append(result_of(module, *point, limit_s=limit_s))
            run.log(f"{module} {json.dumps(results[-1])}")
        except EddyError as error:
            run.log.miss(str(error))
    return results
