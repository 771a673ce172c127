"""A real server under requests that mean it no good: it must neither crash, nor answer with an error of its
own, nor grow.

    python -m tests.bench.hostile [--count 100000] [--items N] [--record]

A real `eddy serve` follows a real Kafka. Requests are those of `tests.support.hostile_requests`, drawn with a
fixed seed, each on a connection of its own. Of the answers with a status from 500 on, only 503 is allowed,
by which the server sheds load. Memory is looked at after every tenth of the requests: the first tenth may
fill pools and caches, the others must not add to it. Afterwards a list must be what it was before. Prints
JSON; the exit code is 0 if all of that holds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.bench import machine
from tests.bench.command import exit_with, new_testbed, print_progress
from tests.bench.programs import HOST
from tests.bench.serving import eddy_server, write_rows
from tests.bench.serving_process import Server, started
from tests.bench.testbed import Testbed
from tests.bench.workload import user_id
from tests.support.hostile_requests import hostile_request, send_all

PARTS, SEED, USERS = 10, 1, 10_000
MAY_GROW_MB = 64
"""From the first tenth of the requests to the last: a leak of a kilobyte for each would be 88 MB."""

RESULT = Path(__file__).parent / "results" / "hostile.json"
_SHEDS = 503


def measure(testbed: Testbed, count: int, items: int) -> dict[str, Any]:
    """Statuses by their numbers (0: no answer), and memory as it went."""
    with testbed.installation(partitions=4) as settings:
        testbed.go_live(settings, testbed.version("whole", items))
        write_rows(testbed, settings, USERS, items)
        with started(eddy_server(settings, testbed.folder / "servers.log")) as server:
            return _under_fire(server, count)


def _under_fire(server: Server, count: int) -> dict[str, Any]:
    seed, statuses, rss_mb = random.Random(SEED), Counter[int](), [round(server.rss() / 2**20)]
    before, began = _list(server), time.monotonic()
    for part in range(PARTS):
        requests = (hostile_request(seed) for _ in range(count // PARTS))
        statuses += asyncio.run(send_all((HOST, server.port), requests))
        rss_mb.append(round(server.rss() / 2**20))
        print_progress(time.monotonic() - began, f"{(part + 1) * count // PARTS:,}: {rss_mb[-1]} MB")
    errors = {status: n for status, n in statuses.items() if status >= 500 and status != _SHEDS}
    lives = server.process.poll() is None
    return {
        "requests": statuses.total(),
        "seconds": round(time.monotonic() - began),
        "statuses": {str(status): n for status, n in sorted(statuses.items())},
        "errors": errors,
        "rss_mb": rss_mb,
        "grown_mb": rss_mb[-1] - rss_mb[1],
        "lives": lives,
        "same_list_afterwards": lives and _list(server) == before,
    }


def _list(server: Server) -> list[str]:
    answer = json.loads(server.ask(f"/v1/users/{user_id(1)}/recommendations"))
    return [item["item_id"] for item in answer["items"]]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--record", action="store_true", help=f"write {RESULT.name}")
    args = parser.parse_args()
    with new_testbed(lambda line: print_progress(0, line)) as testbed:
        result = measure(testbed, args.count, args.items)
    result["machine"] = machine.describe()
    text = json.dumps(result, indent=1)
    if args.record:
        RESULT.write_text(text + "\n", encoding="utf-8")
    print(text)
    holds = result["same_list_afterwards"] and not result["errors"] and result["grown_mb"] <= MAY_GROW_MB
    return 0 if holds else 1


if __name__ == "__main__":
    exit_with(main)
