"""The HTTP endpoint under a constant rate of requests, with 10,000 to 1,000,000 items.

    python -m tests.bench.serving [--quick] [--only PART] [--items N] [--users N] [--record]

A real `eddy serve` follows a real Kafka, which holds a row for each of 100,000 users. `tests.bench.open_loop`
asks for lists of 20, in a process of its own: times count from the moment at which a request was due, and the
generator prints its own share of a processor. The floor is the same application and server with a route that
returns a constant of the same size. Then come a search for the greatest rate at which nothing is refused and
p99 stays below 100 ms, and twice that rate, while the server's memory is watched. With `--only` swap
or withdrawal: what callers see while things change (`tests.bench.serving_changes`).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from kafka import KafkaProducer

from eddy.stream.kafka.clients import client_config
from eddy.stream.local_kafka.free_port import free_port
from eddy.stream.records.partitioner import partition_of
from eddy.stream.records.settings import Settings
from eddy.stream.state.rows import encode_rows
from tests.bench import machine, parts
from tests.bench.command import exit_with, new_testbed, print_progress
from tests.bench.growth import events
from tests.bench.open_loop import get
from tests.bench.programs import HOST
from tests.bench.serving_changes import measure_swap, measure_withdrawal
from tests.bench.serving_process import Server, started
from tests.bench.testbed import Testbed
from tests.bench.workload import user_id
from tests.support.engines import stored_rows

RATES = {10_000: 1_000, 100_000: 500, 1_000_000: 100}
"""Requests per second, by the number of items."""

MANY_CONNECTIONS = 700
"""Under overload: with few connections requests would wait in the generator, where no server refuses them."""

K = 20
BOUND_MS = 100
RESULTS = Path(__file__).parent / "results" / "serving.json"
_COLUMNS = (
    "ok_per_s", "p50_ms", "p99_ms", "p99.9_ms", "p100_ms", "server_cores", "rss_mb", "generator_cpu_share",
)  # fmt: skip


def write_rows(testbed: Testbed, settings: Settings, users: int, items: int) -> None:
    """A row for each user, as a worker that has read two events of most of them would write it."""
    engine = parts.engine(testbed.version("whole", items), settings, "off", "auto")
    batches, applied = events(users, items, time.time_ns() // 1_000_000 - 3_600_000), 0
    while applied < 2 * users:
        applied += engine.apply([next(batches)]).applied
    rows = stored_rows(engine)
    partitions = partition_of(list(rows.user), settings.partitions).tolist()
    producer = KafkaProducer(**client_config(settings), linger_ms=50, batch_size=1 << 18)
    for key, value, partition in zip(rows.user, encode_rows(rows), partitions, strict=True):
        producer.send(settings.topics.user_state, key=key, value=value, partition=partition)
    producer.flush()
    producer.close()


def requests_for(users: int, count: int = 20_000) -> list[bytes]:
    """Questions for lists of users drawn at random."""
    drawn = np.random.default_rng(2).integers(users, size=count).tolist()
    return [get(f"/v1/users/{user_id(number)}/recommendations?k={K}") for number in drawn]


def eddy_server(settings: Settings, log: Path, arguments: Sequence[str] = ()) -> Server:
    """`eddy serve` with default settings."""
    assert settings.bootstrap_servers is not None
    port = free_port(HOST)
    environment = {
        "EDDY_BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "EDDY_TOPIC_PREFIX": settings.topic_prefix,
        "EDDY_PARTITIONS": str(settings.partitions),
        "EDDY_REGISTRY": str(settings.registry),
        "EDDY_PORT": str(port),
    }
    return Server([sys.executable, "-m", "eddy", "serve", *arguments], environment, log, port)


def floor_server(log: Path) -> Server:
    """The framework, returning a constant."""
    port = free_port(HOST)
    return Server([sys.executable, "-m", "tests.bench.serving_floor", str(port)], {}, log, port)


def sustainable(ask: Callable[[float], dict[str, Any]], start: float) -> tuple[float, list[dict[str, Any]]]:
    """The greatest rate, to a quarter, at which nothing is refused and p99 stays below the bound."""
    tried, rate = list[dict[str, Any]](), start
    while len(tried) < 12:
        figures = ask(rate)
        tried.append(figures)
        refused = sum(figures["statuses"].values()) - figures["statuses"].get("200", 0) + figures["broken"]
        if refused or figures["p99_ms"] is None or figures["p99_ms"] > BOUND_MS:
            return rate / 1.25, tried
        rate *= 1.25
    return rate / 1.25, tried


def measure(testbed: Testbed, args: argparse.Namespace, log: Callable[[str], None]) -> dict[str, Any]:
    """All figures."""
    seconds, server_log = 10 if args.quick else 60, Path(testbed.folder) / "servers.log"
    requests = requests_for(args.users)
    result: dict[str, Any] = {"machine": machine.describe(), "users": args.users, "seconds": seconds}
    if args.only:
        measured = {"swap": measure_swap, "withdrawal": measure_withdrawal}[args.only]
        start = partial(eddy_server, log=server_log)
        return result | {args.only: measured(testbed, args.users, seconds, requests, start, log)}
    with started(floor_server(server_log)) as server:
        figures = server.under_load(requests, max(RATES.values()), seconds)
        result["floor"] = figures
        log(row("floor", figures))
    for items in args.items:
        with testbed.installation(partitions=4) as settings:
            testbed.go_live(settings, testbed.version("whole", items))
            write_rows(testbed, settings, args.users, items)
            with started(eddy_server(settings, server_log)) as server:
                known = json.loads(server.ask(f"/v1/users/{user_id(1)}/recommendations"))["known"]
                assert known, "the rows were not read"
                server.under_load(requests, RATES[items] / 4, 3)  # what is compiled or made once
                figures = server.under_load(requests, RATES[items], seconds)
                result[str(items)] = figures
                log(row(f"{items:,} items", figures))
                if items == min(RATES):
                    result["overload"] = overloaded(server, requests, seconds, log)
    return result


def overloaded(
    server: Server, requests: Sequence[bytes], seconds: float, log: Callable[[str], None]
) -> dict[str, Any]:
    """Twice the rate that the server sustains."""
    rate, tried = sustainable(lambda rate: server.under_load(requests, rate, seconds / 5), 250)
    figures = server.under_load(requests, 2 * rate, seconds, MANY_CONNECTIONS)
    log(row(f"sustains {rate:.0f}/s; twice as much", figures))
    after = server.under_load(requests, rate / 2, seconds / 5)
    log(row("half of it, afterwards", after))
    return {"sustained_per_s": round(rate, 1), "tried": tried, "twice": figures, "half_afterwards": after}


def row(name: str, figures: dict[str, Any]) -> str:
    """A line of the table."""
    cells = " | ".join(str(figures[column]) for column in _COLUMNS)
    return f"| {name} | {figures['rate']:g} | {cells} | {figures['statuses']} |"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="10 seconds a figure")
    parser.add_argument("--only", choices=("swap", "withdrawal"), help="what callers see while things change")
    parser.add_argument("--items", type=int, nargs="*", default=list(RATES), choices=list(RATES))
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument(
        "--record", action="store_true", help=f"write {RESULTS.name}, with --only a file of its own"
    )
    args = parser.parse_args()
    began = time.monotonic()

    def log(line: str) -> None:
        print_progress(time.monotonic() - began, line)

    log(f"| what | rate | {' | '.join(_COLUMNS)} | statuses |")
    with new_testbed(log) as testbed:
        result = measure(testbed, args, log)
    text = json.dumps(result, indent=1)
    if args.record:
        name = f"serving_{args.only}.json" if args.only else RESULTS.name
        RESULTS.with_name(name).write_text(text + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    exit_with(main)
