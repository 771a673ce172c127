"""The benchmark: `make bench`, or `make bench QUICK=1`, or with ONLY="growth freshness" a part of it.

    python -m tests.bench.run [--quick] [--record] [--only SECTION ...]

Each section writes its figures as soon as it has them: to results/, in the short form to results/quick/. The
figures of sections that are not measured stay as those files have them, each with its own commit and date.
summary.json is written by both; the table and the plot in README.md only by the full form, or by the short
one with --record (RECORD=1). When something could not be measured, the end says so and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from eddy.models.errors import EddyError
from eddy.models.scoring.approximate_products import Precision
from tests.bench import report
from tests.bench.command import exit_with, new_testbed
from tests.bench.membership import measure_membership
from tests.bench.memory import measure_memory
from tests.bench.plan import FULL, PEERS, QUICK
from tests.bench.sections import SECTIONS, Run, freshness, results_of_each
from tests.bench.subprograms import result_of
from tests.bench.testbed import Testbed
from tests.bench.throughput import Measured, Rounds, measure_eddy, measure_peer

HERE = Path(__file__).parent
SECTION_S = 600.0
REDUCED: tuple[Precision, ...] = ("int8", "bfloat16")


def throughput(run: Run, testbed: Testbed) -> dict[str, Any]:
    """Measure all programs in interleaved rounds. A measurement that fails is logged and left out."""
    plan, rounds = run.plan, Rounds()
    reduced = [replace(eddy_run, precision=run.reduced) for eddy_run in plan.reduced if run.reduced]
    programs = [*reduced, *plan.eddy]

    def note(number: int, name: str, measure: Callable[[], Measured]) -> None:
        if number > 1 and run.log.elapsed > plan.rounds_s:
            return
        try:
            measured = measure()
        except (EddyError, ValueError) as error:
            run.log.miss(f"round {number}  {name}: {error}")
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
    elif "freshness" in run.only:
        run.log.miss("freshness: left out, no throughput was measured")
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
        if subprocess.run(command, cwd=HERE.parents[1], check=False).returncode:
            run.log.miss("restore: it has failed")
    summary = report.summary(run.machine, run.figures, run.origins)
    text = json.dumps(summary, indent=1) + "\n"
    (HERE / "results" / "summary.json").write_text(text, encoding="utf-8")
    (run.target / "summary.json").write_text(text, encoding="utf-8")
    print(report.table(run.figures, summary))
    if options.record or not run.plan.quick:
        report.write_readme(run.machine, run.figures, run.origins, summary)
    run.log("done")
    return run.log.exit_code()


if __name__ == "__main__":
    exit_with(main)
