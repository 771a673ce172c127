"""What a new version costs a worker that is busy: how long answers stop, and how fast rows are encoded anew.

One worker with emission `every` at half of the rate that it reached just before. A version of the same size
is announced, then one of another hidden size; each move is followed to its end or to a limit.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from eddy.models.errors import EddyError
from tests.bench.answer_log import AnswerLog
from tests.bench.command import Progress
from tests.bench.crowd import Appender, Crowd, write_rows
from tests.bench.group import Group, new_group
from tests.bench.membership_plan import SwapPlan
from tests.bench.subprograms import result_of
from tests.bench.testbed import Testbed
from tests.bench.versions import make_version

PARTITIONS = 4
START_S = 240.0
SHARE = 0.5
"""Of the measured capacity."""

POLL_S = 0.1
FIRST_BACKLOG, MOST_BACKLOG = 10_000, 200_000
BACKLOG_S = 6.0
"""Capacity is measured with a backlog that takes about so long."""

WARM_S, CALM_S, TAIL_S = 4.0, 8.0, 2.0
BARE_ROWS = 20_000
BARE_S = 300.0


def measure_swaps(testbed: Testbed, plan: SwapPlan, python: str, log: Progress) -> list[dict[str, Any]]:
    """A row of figures for each swap. What fails is logged and left out."""
    results: list[dict[str, Any]] = []
    for rows, items in plan.points:
        try:
            _measure_point(testbed, plan, rows, items, python, log, results)
        except EddyError as error:
            log.miss(f"swaps with {rows:,} rows and {items:,} items end here: {error}")
    return results


def _measure_point(
    testbed: Testbed, plan: SwapPlan, rows: int, items: int, python: str, log: Progress,
    results: list[dict[str, Any]],
) -> None:  # fmt: skip
    with testbed.installation(PARTITIONS) as settings:
        # 1. Versions, and what their bare cells reach.
        version = testbed.version("whole", items)
        others = [make_version(testbed.folder / "registry", "whole", items, hidden) for hidden in plan.hidden]
        bare = [result_of("bare_cell", other.path, BARE_ROWS, limit_s=BARE_S) for other in others]
        testbed.go_live(settings, version)
        # 2. A worker with rows, at half of its capacity.
        crowd = Crowd.of(rows, PARTITIONS, items)
        asyncio.run(write_rows(settings, crowd, version))
        with new_group(settings, testbed.work_folder(), python) as group, AnswerLog(settings) as answers:
            group.start()
            group.follow(group.restored, START_S)
            appender = Appender(settings, crowd)
            capacity = _capacity(group, answers, appender)
            log(f"{rows:,} rows, {items:,} items: {capacity:,.0f} events/s")
            with appender.steady(SHARE * capacity):
                time.sleep(WARM_S)
                mark = answers.mark()
                time.sleep(CALM_S)
                calm = answers.since(mark)
                # 3. Swaps under this load.
                for epoch, (other, bare_rate) in enumerate(zip(others, bare, strict=True), 2):
                    announce = partial(testbed.go_live, settings, other)
                    swapped = _swapped(group, answers, announce, epoch, rows, plan.limit_s)
                    shape = {"rows": rows, "items": items, "hidden": other.recommender.config.hidden}
                    results.append(
                        {
                            **shape,
                            "capacity": round(capacity),
                            "rate": round(SHARE * capacity),
                            "calm_gap_ms": round(1000 * (calm.gap(range(PARTITIONS)) or 0.0)),
                            **swapped,
                            "bare_rows_per_s": round(bare_rate),
                            "share_of_bare": round(swapped["rows_per_s"] / bare_rate, 3),
                        }
                    )
                    log(_line(results[-1]))


def _capacity(group: Group, answers: AnswerLog, appender: Appender) -> float:
    """Answers per second over a backlog that takes about BACKLOG_S."""
    backlog = FIRST_BACKLOG
    while True:
        mark, started = answers.mark(), time.monotonic()
        appender.append(backlog)
        appender.flush()
        group.follow(group.settled, START_S)
        seconds = time.monotonic() - started
        if seconds >= BACKLOG_S / 2 or backlog >= MOST_BACKLOG:
            return answers.since(mark).rate
        backlog = min(round(backlog * BACKLOG_S / seconds), MOST_BACKLOG)


def _swapped(
    group: Group, answers: AnswerLog, announce: Callable[[], None], epoch: int, rows: int, limit_s: float
) -> dict[str, Any]:
    """Announce a version of that epoch and follow the rows until all are encoded for it, or to the limit."""
    (worker,) = group.workers
    mark, load = answers.mark(), os.getloadavg()[0]
    time.sleep(TAIL_S)
    announced = time.monotonic()
    announce()
    switched, stale = 0.0, rows
    while time.monotonic() - announced < limit_s:
        worker.child.check()
        now = time.monotonic()
        if worker.metric("eddy_epoch") == epoch:
            switched = switched or now
            seen = round(worker.metric("eddy_rows_of_older_epochs"))
            if seen or stale < rows:  # the gauge is 0 until the first rows were encoded
                stale = min(seen, rows)
            if not stale:
                break
        time.sleep(POLL_S)
    if not switched:
        raise EddyError(f"the version was not live within {limit_s:.0f} s")
    took = time.monotonic() - switched
    time.sleep(TAIL_S)
    answered = answers.since(mark)
    every = range(group.settings.partitions)
    return {
        "gap_ms": round(1000 * (answered.gap(every) or 0.0)),
        "delay_ms": round(1000 * (answered.delay(every) or 0.0)),
        "p99_ms": round(1000 * (answered.p99(every) or 0.0)),
        "live_after_s": round(switched - announced, 2),
        "encoded_rows": rows - stale,
        "rows_per_s": round((rows - stale) / took),
        "load_average": round(load, 2),
    }


def _line(figures: dict[str, Any]) -> str:
    return (
        f"swap, {figures['rows']:,} rows, {figures['items']:,} items, H = {figures['hidden']}, "
        f"{figures['rate']:,} events/s: gap {figures['gap_ms']} ms "
        f"(before {figures['calm_gap_ms']}), {figures['rows_per_s']:,} rows/s "
        f"({figures['share_of_bare']:.0%} of the bare cell)"
    )
