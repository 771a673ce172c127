"""Whether a page that is left open holds its memory, before a real broker, worker and server on this machine.

    python -m tests.bench.page_memory                # an hour, with a point each minute
    python -m tests.bench.page_memory --minutes 5    # is printed and not kept

Two pages are open at once, *Now* and *A person*, beside ten events a second, of which some are that person's.
Each minute, after a forced garbage collection, Chromium is asked what the script's heap holds, and how many
DOM nodes and listeners there are. A full hour is written to results/page_memory.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, CDPSession, expect

from tests.bench.live_page import open_page, page_before_a_system, traffic
from tests.bench.machine import describe
from tests.browser.live_system import USERS, LiveSystem

RESULT = Path(__file__).parent / "results" / "page_memory.json"
HOUR, EVENTS_PER_S = 60, 10
VIEWS = {"now": ".chart .line path", f"person/{USERS[0]}": ".list li"}
"""The views that are left open, and what each shows once it has something to show."""

Figures = Mapping[str, float]


def look(devtools: CDPSession) -> Figures:
    """What a page holds after a garbage collection."""
    devtools.send("HeapProfiler.collectGarbage")
    told = {each["name"]: each["value"] for each in devtools.send("Performance.getMetrics")["metrics"]}
    return {
        "heap_mb": round(told["JSHeapUsedSize"] / 1e6, 3),
        "nodes": told["Nodes"],
        "listeners": told["JSEventListeners"],
    }


def measure(browser: Browser, system: LiveSystem, minutes: int) -> dict[str, list[Figures]]:
    """What each view holds at its beginning and after each minute."""
    pages = {view: open_page(browser, system, view) for view in VIEWS}
    sessions: dict[str, CDPSession] = {}
    for view, page in pages.items():
        expect(page.locator(VIEWS[view]).first).to_be_attached()
        sessions[view] = page.context.new_cdp_session(page)
        sessions[view].send("Performance.enable")
    held: dict[str, list[Figures]] = {view: [] for view in VIEWS}
    started = time.monotonic()
    for minute in range(minutes + 1):
        pages["now"].wait_for_timeout(max(0.0, started + 60 * minute - time.monotonic()) * 1000)
        for view, devtools in sessions.items():
            held[view].append(look(devtools))
            print(f"minute {minute}, {view}: {held[view][-1]}", flush=True)
    return held


def summary(points: Sequence[Figures]) -> str:
    """First, largest and last figure of each kind."""
    return ", ".join(
        f"{name} {points[0][name]:g} first, at most {max(point[name] for point in points):g}, "
        f"{points[-1][name]:g} last"
        for name in points[0]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=int, default=HOUR, help="how long the pages are left open")
    minutes = parser.parse_args().minutes
    machine: dict[str, Any] = describe()
    with page_before_a_system() as (browser, system), traffic(system, EVENTS_PER_S, USERS):
        held = measure(browser, system, minutes)
    for view, points in held.items():
        print(f"{view}: {summary(points)}")
    if minutes >= HOUR:
        result = {"minutes": minutes, "events_per_s": EVENTS_PER_S, "views": held, "machine": machine}
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
