"""What callers see over HTTP while things change: events stream in at half of a worker's capacity and a
second version goes live; an item is withdrawn.

A part of `tests.bench.serving` (`--only swap`, `--only withdrawal`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.error import HTTPError

from kafka import KafkaProducer

from eddy.models.errors import EddyError
from eddy.stream.kafka.clients import client_config
from eddy.stream.records.settings import Settings
from tests.bench.background import meanwhile
from tests.bench.crowd import Appender, Crowd, write_rows
from tests.bench.group import Group, new_group
from tests.bench.serving_process import Server, started
from tests.bench.testbed import Testbed
from tests.bench.versions import make_version
from tests.bench.workload import user_id

ITEMS, PARTITIONS, RATE = 10_000, 4, 500
"""Lists are asked for at half of the rate of the quiet benchmark: a worker has a processor to itself."""

SHARE = 0.5
"""Of the worker's capacity."""

HIDDEN = 96
"""Units of the second version: its states are others, and so all rows are encoded anew."""

START_S, BACKLOG, ANNOUNCED_AT = 300.0, 50_000, 0.2
"""The announcement comes after this share of the load."""

ASKERS, ASKED = 4, 300
GONE_WITHIN_S = 1.0

Log = Callable[[str], object]
StartServer = Callable[[Settings], Server]


def measure_swap(
    testbed: Testbed, users: int, seconds: float, requests: Sequence[bytes], start: StartServer, log: Log
) -> dict[str, Any]:
    """The same load three times: alone, beside events, and beside events while a version goes live."""
    with _installation(testbed, users) as (settings, crowd), started(start(settings)) as server:
        server.under_load(requests, RATE / 4, 3)
        result: dict[str, Any] = {"rate": RATE, "quiet": server.under_load(requests, RATE, seconds)}
        log(f"quiet: {_brief(result['quiet'])}")
        with new_group(settings, testbed.work_folder(), sys.executable) as group:
            group.start()
            group.follow(group.restored, START_S)
            appender = Appender(settings, crowd)
            capacity = _capacity(group, appender)
            result["events_per_s"] = round(SHARE * capacity)
            with appender.steady(SHARE * capacity):
                result["events"] = server.under_load(requests, RATE, seconds)
                log(f"{result['events_per_s']} events/s: {_brief(result['events'])}")
                second = make_version(testbed.folder / "registry", "whole", ITEMS, HIDDEN)

                def announce(ended: threading.Event) -> None:
                    if not ended.wait(ANNOUNCED_AT * seconds):
                        testbed.go_live(settings, second)

                with meanwhile(announce):
                    result["swap"] = server.under_load(requests, RATE, seconds)
                epochs = Counter(_answer(server, number)["epoch"] for number in range(ASKED))
                result["epochs_afterwards"] = {str(epoch): n for epoch, n in sorted(epochs.items())}
                log(f"and a swap: {_brief(result['swap'])}; lists by epoch {dict(epochs)}")
        result["p99_ratio"] = round(result["swap"]["p99_ms"] / result["quiet"]["p99_ms"], 2)
    return result


def measure_withdrawal(
    testbed: Testbed, users: int, seconds: float, requests: Sequence[bytes], start: StartServer, log: Log
) -> dict[str, Any]:
    """Under load, withdraw an item that many lists have, and ask for these lists again and again."""
    with _installation(testbed, users) as (settings, _), started(start(settings)) as server:
        lists = {number: _items(server, number) for number in range(min(ASKED, users))}
        ((item, _),) = Counter(item for items in lists.values() for item in items).most_common(1)
        having = [number for number, items in lists.items() if item in items]
        asked: list[tuple[float, bool]] = []
        ended = threading.Event()

        def ask(turn: int) -> None:
            while not ended.is_set():
                turn += 1
                began = time.monotonic()
                with contextlib.suppress(HTTPError):  # an overloaded server refuses some
                    asked.append((began, item in _items(server, having[turn % len(having)])))

        with ThreadPoolExecutor(1 + ASKERS) as threads:
            load = threads.submit(server.under_load, requests, RATE, seconds)
            time.sleep(seconds / 4)
            asking = [threads.submit(ask, number) for number in range(ASKERS)]
            try:
                with contextlib.closing(KafkaProducer(**client_config(settings))) as producer:
                    producer.send(settings.topics.items, key=item.encode(), value=None).get(timeout=30)
                    withdrawn = time.monotonic()
                load.result()
            finally:
                ended.set()
            for each in asking:
                each.result()
    after = [(began - withdrawn, has) for began, has in asked if began > withdrawn]
    if not any(began > GONE_WITHIN_S for began, _ in after):
        raise EddyError("no list was answered after the withdrawal: is the machine too busy?")
    result = {
        "rate": RATE,
        "lists_with_it_before": len(having),
        "asked_after": len(after),
        "last_with_it_s": round(max((began for began, has in after if has), default=0.0), 3),
        "with_it_a_second_later": sum(has for began, has in after if began > GONE_WITHIN_S),
    }
    log(f"withdrawn: {result}")
    return result


@contextmanager
def _installation(testbed: Testbed, users: int) -> Iterator[tuple[Settings, Crowd]]:
    """Topics with a version and a row of each user."""
    with testbed.installation(PARTITIONS) as settings:
        version = testbed.version("whole", ITEMS)
        testbed.go_live(settings, version)
        crowd = Crowd.of(users, PARTITIONS, ITEMS)
        asyncio.run(write_rows(settings, crowd, version))
        yield settings, crowd


def _capacity(group: Group, appender: Appender) -> float:
    """Events per second over a backlog."""
    began = time.monotonic()
    appender.append(BACKLOG)
    appender.flush()
    group.follow(group.settled, START_S)
    return BACKLOG / (time.monotonic() - began)


def _answer(server: Server, number: int) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(server.ask(f"/v1/users/{user_id(number)}/recommendations"))
    if not answer["known"]:
        raise EddyError("the rows were not read")
    return answer


def _items(server: Server, number: int) -> list[str]:
    return [item["item_id"] for item in _answer(server, number)["items"]]


def _brief(figures: dict[str, Any]) -> str:
    return f"p50 {figures['p50_ms']} ms, p99 {figures['p99_ms']} ms, {figures['statuses']}"


__all__ = ["measure_swap", "measure_withdrawal"]
