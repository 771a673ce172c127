"""What the live page costs, and how fast it is, before a real broker, worker and server on this machine.

    python -m tests.bench.live_page                  # about three minutes

It prints, from one run: the time from a click on an item until the new list is on screen, as a reader sees it
(100 clicks; with nothing else on the stream, and beside 100 events a second); the share of a core that the
server takes for 50 open pages. What a page holds that is left open is measured by `tests.bench.page_memory`.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
from playwright.sync_api import Browser, Page, expect

from eddy.stream.records.settings import load_settings
from tests.bench.background import meanwhile
from tests.browser.chromium import MISSING, chromium
from tests.browser.live_system import LiveSystem, live_system
from tests.support.kafka_clusters import broker_kind, cluster

CLICKS, PAUSE_MS, PAGES, WATCHED_S = 100, 150, 50, 30.0
LIST_S = 30.0
"""A click whose list takes longer ends the run."""
EVENTS_PER_S, BURST = 100, 20
OTHERS = [f"user-{number}" for number in range(40)]
TOTALS = "document.querySelector('[data-totals]')?.dataset.totals ?? ''"


@contextlib.contextmanager
def page_before_a_system() -> Iterator[tuple[Browser, LiveSystem]]:
    """Yields a Chromium, and an installation with a worker and a server for it to look at."""
    name = uuid.uuid4().hex[:8]
    with tempfile.TemporaryDirectory() as folder, chromium() as browser, cluster(broker_kind()) as broker:
        if browser is None:
            raise SystemExit(MISSING)
        settings = load_settings(
            bootstrap_servers=broker, topic_prefix=f"bench-{name}.", group=f"bench-{name}",
            registry=Path(folder) / "registry", partitions=2, metrics_port=0,
        )  # fmt: skip
        with live_system(settings, Path(folder)) as system:
            yield browser, system


@contextlib.contextmanager
def traffic(system: LiveSystem, events_per_s: float, users: Sequence[str]) -> Iterator[None]:
    """About so many events a second of these users in turn, in the background."""

    def send(ended: threading.Event) -> None:
        while not ended.wait(BURST / events_per_s):
            system.send(BURST, users)

    with meanwhile(send):
        yield


def open_page(browser: Browser, system: LiveSystem, view: str) -> Page:
    page = browser.new_page()
    page.add_init_script(f"sessionStorage.setItem('eddy-api-key', {system.write_key!r})")
    page.goto(f"{system.address}#/{view}")
    return page


def clicks(browser: Browser, system: LiveSystem) -> str:
    """Durations from click to list, each waited for before the next click."""
    page = open_page(browser, system, "user")
    expect(page.locator(".tiles button").first).to_be_visible()
    durations: list[float] = []
    for click in range(CLICKS):
        before = page.evaluate(TOTALS)
        page.locator(".tiles button").nth(click * 5 % 12).click()
        deadline = time.monotonic() + LIST_S
        while (now := page.evaluate(TOTALS)) == before:
            if time.monotonic() > deadline:
                raise SystemExit(f"no list followed click {click + 1} within {LIST_S:.0f} s")
            page.wait_for_timeout(5)
        durations.append(float(now.split()[-1]))
        page.wait_for_timeout(PAUSE_MS + click * 7 % 50)  # not in step with the worker's checkpoints
    page.close()
    cuts = statistics.quantiles(durations, n=20, method="inclusive")
    return f"p50 {cuts[9]:.0f} ms, p95 {cuts[18]:.0f} ms, longest {max(durations):.0f} ms of {CLICKS} clicks"


async def _watch(system: LiveSystem, ready: asyncio.Barrier, done: asyncio.Event) -> None:
    headers = {"X-API-Key": system.read_key}
    async with (
        httpx.AsyncClient(base_url=system.address, headers=headers, timeout=30) as client,
        client.stream("GET", "/v1/live") as stream,
    ):
        lines = stream.aiter_lines()
        await anext(lines)
        await ready.wait()
        while not done.is_set():
            await anext(lines)


def pages_open(system: LiveSystem, pages: int) -> float:
    """The share of a core that the server takes while so many pages follow it."""
    with ThreadPoolExecutor(1) as thread:  # Playwright's own event loop has the main thread
        return thread.submit(asyncio.run, _pages_open(system, pages)).result()


async def _pages_open(system: LiveSystem, pages: int) -> float:
    ready, done = asyncio.Barrier(pages + 1), asyncio.Event()
    watching = [asyncio.create_task(_watch(system, ready, done)) for _ in range(pages)]
    await ready.wait()
    server = psutil.Process(system.server_pid)
    before, start = server.cpu_times(), time.monotonic()
    await asyncio.sleep(WATCHED_S)
    after, took = server.cpu_times(), time.monotonic() - start
    done.set()
    await asyncio.gather(*watching)
    return (after.user + after.system - before.user - before.system) / took


def main() -> None:
    with page_before_a_system() as (browser, system):
        print(f"click to list, quiet stream: {clicks(browser, system)}", flush=True)
        with traffic(system, EVENTS_PER_S, OTHERS):
            print(f"click to list, beside {EVENTS_PER_S} events/s: {clicks(browser, system)}", flush=True)
            alone = pages_open(system, 1)
            many = pages_open(system, PAGES)
            print(f"server: {alone:.3f} of a core with 1 page, {many:.3f} with {PAGES}", flush=True)


if __name__ == "__main__":
    main()
