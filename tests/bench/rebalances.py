"""What a change of the group's members costs: workers that join, leave, are killed and are restarted, while
events come at a low, steady rate to users of all partitions.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from eddy.models.errors import EddyError
from tests.bench.answer_log import AnswerLog
from tests.bench.answered import Answered
from tests.bench.command import Progress
from tests.bench.crowd import Appender, Crowd, write_rows
from tests.bench.group import Group, Owners, fewest_moves, moved_partitions, new_group
from tests.bench.membership_plan import Change, RebalancePlan
from tests.bench.testbed import Testbed

ITEMS = 10_000
LEAD_S = 2.0
"""A window begins so long before its change."""

TAIL_S = 2.0
"""It ends so long after the group has settled."""

LATE_S = 1.0
"""Answers that take longer are late."""

STEADY_S = 10.0


def measure_rebalances(
    testbed: Testbed, plan: RebalancePlan, python: str, log: Progress
) -> list[dict[str, Any]]:
    """A row of figures for the group as it is, then one for each change. A change after which the group does
    not settle is the last one.
    """
    results: list[dict[str, Any]] = []
    with testbed.installation(plan.partitions) as settings:
        version = testbed.version("whole", ITEMS)
        testbed.go_live(settings, version)
        started = time.monotonic()
        crowd = Crowd.of(plan.rows, plan.partitions, ITEMS)
        asyncio.run(write_rows(settings, crowd, version))
        log(f"{plan.rows:,} rows written in {time.monotonic() - started:.0f} s")
        with new_group(settings, testbed.work_folder(), python) as group, AnswerLog(settings) as answers:
            try:
                group.start()
                group.start(stable_name="stable")
                group.follow(group.restored, plan.limit_s)
                with Appender(settings, crowd).steady(plan.rate):
                    group.follow(group.settled, plan.limit_s)
                    results.append(_steady(group, answers))
                    log(_line(results[-1]))
                    for change in plan.changes:
                        results.append(_changed(group, answers, change, plan.limit_s))
                        log(_line(results[-1]))
            except EddyError as error:
                log.miss(f"the group's changes end here: {error}")
    return [{"rows": plan.rows, **figures} for figures in results]


def _steady(group: Group, answers: AnswerLog) -> dict[str, Any]:
    mark = answers.mark()
    time.sleep(STEADY_S)
    answered = answers.since(mark)
    every = range(group.settings.partitions)
    return {
        "change": "none",
        "workers": len(group.workers),
        "stay": _figures(answered, set(every)),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _changed(group: Group, answers: AnswerLog, change: Change, limit_s: float) -> dict[str, Any]:
    """Make a change and wait until the group has settled; returns its figures."""
    # 1. The window begins before the change.
    mark, workers = answers.mark(), len(group.workers)
    before = _owners(group)
    time.sleep(LEAD_S)
    began, load = time.time(), os.getloadavg()[0]
    # 2. The change.
    _make(group, change)
    history = group.follow(group.settled, limit_s)
    settled = time.time()
    time.sleep(TAIL_S)
    # 3. What the log says of it.
    after, answered = _owners(group), answers.since(mark)
    moved = moved_partitions([before, *history, after])
    stayed = set(range(group.settings.partitions)) - moved
    return {
        "change": change,
        "workers": workers,
        "workers_after": len(group.workers),
        "moved": len(moved),
        "had_to_move": fewest_moves(before, after),
        "stay": _figures(answered, stayed),
        "move": _figures(answered, moved),
        "late_for_s": round(max(answered.late_until(LATE_S) - began, 0), 2),
        "settled_s": round(settled - began, 2),
        "window_s": round(answered.until - began + LEAD_S, 1),
        "unanswered": answered.unanswered,
        "load_average": round(load, 2),
    }


def _make(group: Group, change: Change) -> None:
    match change:
        case "joins":
            group.start()
        case "leaves":
            group.stop(group.unnamed()[0])
        case "is killed":
            group.kill(group.unnamed()[-1])
        case "is restarted":
            group.restart(group.unnamed()[-1])
        case "is restarted, stable name":
            group.restart(group.named())


def _owners(group: Group) -> Owners:
    """Who owns what now. Errors: EddyError when the group is rebalancing."""
    owners = group.observer.cluster.owners()
    if owners is None:
        raise EddyError("the group began to rebalance by itself")
    return owners


def _figures(answered: Answered, partitions: set[int]) -> dict[str, float | None]:
    """Of these partitions, in s and ms; None where there is none."""
    gap, delay, p99 = answered.gap(partitions), answered.delay(partitions), answered.p99(partitions)
    return {
        "gap_s": None if gap is None else round(gap, 3),
        "delay_s": None if delay is None else round(delay, 3),
        "p99_ms": None if p99 is None else round(1000 * p99, 1),
    }


def _line(figures: dict[str, Any]) -> str:
    said = [f"a worker {figures['change']}" if figures["change"] != "none" else "nothing changes"]
    for name in ("stay", "move"):
        of_those = figures.get(name, {})
        if of_those.get("gap_s") is not None:
            said.append(f"{name}: gap {of_those['gap_s']} s, p99 {of_those['p99_ms']:,.0f} ms")
    if "moved" in figures:
        said.append(
            f"{figures['moved']} moved of {figures['had_to_move']}, late for {figures['late_for_s']} s"
        )
    return "; ".join(said)
