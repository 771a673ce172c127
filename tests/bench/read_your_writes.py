"""Reading one's own writes: from posting an event to a list that includes it, over HTTP.

    python -m tests.bench.read_your_writes [TRIES]        (default 1,000; 10,000 items, 4 partitions)

A real worker and a real server with default settings. One client posts an event of a random user, then asks
for that user's list with the `wait_for` of the answer, and so on: `post_ms` is the time to the
acknowledgement, `list_ms` that of both requests. In a second round another thread posts batches of other
users' events meanwhile, so that workers and partitions are never idle. A try is `included` if the list says
so, and names the event's own offset or a later one. Most of the time is waiting for the next checkpoint
(`EDDY_CHECKPOINT_MS`). Writes `results/read_your_writes.json`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from eddy.models.errors import EddyError
from eddy.stream.kafka.waiting import wait_until
from eddy.stream.local_kafka.free_port import free_port
from eddy.stream.records.settings import Settings
from tests.bench.background import meanwhile
from tests.bench.command import exit_with, new_testbed, print_progress
from tests.bench.machine import describe
from tests.bench.programs import HOST, Program, running, worker
from tests.bench.testbed import Testbed
from tests.support.engines import item_id

ITEMS, USERS, PARTITIONS = 10_000, 1_000, 4
WARM_UP = 20
READY_S = 300.0
WAIT_MS = 10_000
BATCH, BATCH_EVERY_S = 20, 0.1
RESULT = Path(__file__).parent / "results" / "read_your_writes.json"


def serve(settings: Settings, folder: Path, port: int) -> Program:
    """`eddy serve`, with every setting at its default."""
    assert settings.bootstrap_servers is not None
    environment = {
        "EDDY_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "EDDY_TOPIC_PREFIX": settings.topic_prefix,
        "EDDY_GROUP": settings.group,
        "EDDY_PARTITIONS": str(settings.partitions),
        "EDDY_REGISTRY": str(settings.registry),
        "EDDY_HOST": HOST,
        "EDDY_PORT": str(port),
    }
    return Program("serve", [sys.executable, "-P", "-m", "eddy", "serve"], folder, environment, port)


class Reader:
    """Posts events and reads lists, and notes what it gets."""

    def __init__(self, client: httpx.Client) -> None:
        self._client, self._rng = client, np.random.default_rng(0)
        self.included = 0
        self.seconds: list[tuple[float, float]] = []
        """to the acknowledgement, and to the list"""

    def attempt(self) -> bool:
        """One event and one list; returns whether the list includes the event."""
        user = f"user-{self._rng.integers(USERS)}"
        event = {"user_id": user, "item_id": item_id(int(self._rng.integers(ITEMS)))}
        began = time.perf_counter()
        (at,) = self._client.post("/v1/events", json=event).raise_for_status().json()["accepted"]
        posted = time.perf_counter()
        query = {"wait_for": at["wait_for"], "wait": WAIT_MS}
        path = f"/v1/users/{user}/recommendations"
        answer = self._client.get(path, params=query).raise_for_status().json()
        self.seconds.append((posted - began, time.perf_counter() - began))
        shown = answer["partition"] == at["partition"] and answer["offset"] >= at["offset"]
        included = bool(answer["includes"] and shown and answer["items"])
        self.included += included
        return included

    def figures(self) -> dict[str, Any]:
        """Counts, and percentiles in ms."""
        post, whole = 1000 * np.array(self.seconds).T
        return {
            "tries": len(self.seconds),
            "included": self.included,
            **{f"post_p{p}_ms": round(float(np.percentile(post, p)), 2) for p in (50, 99)},
            **{f"list_p{p}_ms": round(float(np.percentile(whole, p)), 2) for p in (50, 99)},
            "list_max_ms": round(float(whole.max()), 2),
        }


@contextmanager
def others(url: str) -> Iterator[None]:
    """Other users' events meanwhile."""

    def post(ended: threading.Event) -> None:
        rng = np.random.default_rng(1)
        with httpx.Client(base_url=url, timeout=60) as client:
            while not ended.wait(BATCH_EVERY_S):
                events = [
                    {"user_id": f"other-{user}", "item_id": item_id(int(item))}
                    for user, item in rng.integers((USERS, ITEMS), size=(BATCH, 2)).tolist()
                ]
                client.post("/v1/events", json=events).raise_for_status()

    with meanwhile(post):
        yield


def measure(testbed: Testbed, tries: int) -> list[dict[str, Any]]:
    """The figures alone, and beside other users' events."""
    with testbed.installation(PARTITIONS) as settings:
        testbed.go_live(settings, testbed.version("whole", ITEMS))
        folder, port = testbed.work_folder(), free_port(HOST)
        url = f"http://{HOST}:{port}"
        with (
            running([worker(settings, folder, 0, {}), serve(settings, folder, port)]),
            httpx.Client(base_url=url, timeout=60) as client,
        ):
            _require(lambda: _ready(client), 0.5, "a server that is ready")
            warm = Reader(client)
            _require(warm.attempt, 0.0, "a list that includes its event")
            for _ in range(WARM_UP):
                warm.attempt()
            alone, beside = Reader(client), Reader(client)
            for _ in range(tries):
                alone.attempt()
            print_progress(0, f"alone: {alone.figures()}")
            with others(url):
                for _ in range(tries):
                    beside.attempt()
            print_progress(0, f"beside others: {beside.figures()}")
    return [
        {"background_events_per_second": 0, **alone.figures()},
        {"background_events_per_second": round(BATCH / BATCH_EVERY_S), **beside.figures()},
    ]


def _require(condition: Callable[[], object], every_s: float, what: str) -> None:
    """Wait for something without which nothing can be measured. Errors: EddyError when it does not come."""
    if not wait_until(condition, READY_S, every_s):
        raise EddyError(f"{what} did not come within {READY_S:.0f} s")


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def main() -> int:
    """Measure, and write the result; 0 if every list included its event."""
    tries = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    with new_testbed(lambda line: print_progress(0, line)) as testbed:
        rounds = measure(testbed, tries)
    result = {"rounds": rounds, "load_after": round(os.getloadavg()[0], 2), "machine": describe()}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if all(one["included"] == one["tries"] for one in rounds) else 1


if __name__ == "__main__":
    exit_with(main)
