"""Workers that come, go and change their version: `make bench` measures it, or by itself

    python -m tests.bench.membership [--quick] [--rows N] [--only PART] [--checkout PATH]

Three parts: what a change of members costs (rebalances), what a new version costs (swaps), and how long one
worker takes for 100 partitions (partitions). Of Eddy only the command line, the topics and the metrics are
used, so another checkout's `eddy worker` can be measured; its versions and rows must have this one's form.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from eddy.models.errors import EddyError
from tests.bench.command import Progress, exit_with, new_testbed
from tests.bench.group import Group, new_group, python_of
from tests.bench.machine import describe
from tests.bench.membership_plan import FULL_MEMBERSHIP, QUICK_MEMBERSHIP, MembershipPlan, Part
from tests.bench.rebalances import measure_rebalances
from tests.bench.swaps import measure_swaps
from tests.bench.testbed import Testbed

MANY = 100


def measure_membership(
    testbed: Testbed, plan: MembershipPlan, log: Progress, python: str = sys.executable
) -> dict[str, Any]:
    """The figures of all parts; the worker is that of `python`."""
    measures: dict[Part, Callable[[], Any]] = {
        "rebalances": lambda: measure_rebalances(testbed, plan.rebalances, python, log),
        "swaps": lambda: measure_swaps(testbed, plan.swaps, python, log),
        "partitions": lambda: _many_partitions(testbed, plan.ready_s, python, log),
    }
    return {part: measures[part]() for part in plan.parts}


def _many_partitions(testbed: Testbed, limit_s: float, python: str, log: Progress) -> dict[str, Any] | None:
    """How long a worker takes until it has all of 100 empty partitions, with what it then holds, and how long
    until a second one shares them. None when the first one takes too long.
    """
    with testbed.installation(MANY) as settings:
        testbed.go_live(settings, testbed.version("whole"))
        with new_group(settings, testbed.work_folder(), python) as group:
            try:
                figures: dict[str, Any] = {"partitions": MANY, "ready_s": _seconds_to_ready(group, limit_s)}
            except EddyError as error:
                log.miss(f"{MANY} partitions on one worker: {error}")
                return None
            process = group.workers[0].process
            figures |= {
                "sockets": len(process.net_connections(kind="inet")),
                "files": process.num_fds(),
                "rss": group.workers[0].rss(),
            }
            try:
                figures["shared_s"] = _seconds_to_ready(group, limit_s)
            except EddyError as error:
                log.miss(f"{MANY} partitions on two workers: {error}")
                figures["shared_s"] = None
    log(f"{MANY} partitions: {json.dumps(figures)}")
    return figures


def _seconds_to_ready(group: Group, limit_s: float) -> float:
    """Start one more worker; returns the time until all are ready."""
    started = time.monotonic()
    group.start()
    group.follow(group.restored, limit_s)
    return round(time.monotonic() - started, 2)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.membership")
    parser.add_argument("--quick", action="store_true", help="the short form, about a minute")
    parser.add_argument("--rows", type=int, help="rows of the rebalances")
    parser.add_argument("--only", choices=get_args(Part), help="this part alone")
    parser.add_argument("--checkout", type=Path, help="measure the worker of that checkout's .venv")
    options = parser.parse_args()
    plan = QUICK_MEMBERSHIP if options.quick else FULL_MEMBERSHIP
    if options.rows:
        plan = replace(plan, rebalances=replace(plan.rebalances, rows=options.rows))
    if options.only:
        plan = replace(plan, parts=(options.only,))
    python, machine, log = python_of(options.checkout), describe(), Progress()
    with new_testbed(log) as testbed:
        figures = measure_membership(testbed, plan, log, python)
    print(json.dumps({**machine, "membership": figures}, indent=1))
    return log.exit_code()


if __name__ == "__main__":
    exit_with(main)
