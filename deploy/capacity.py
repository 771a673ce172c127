"""How much of everything an installation needs, worked out from what the benchmark measured.

    python deploy/capacity.py                                     # the table of README.md, "Sizing"
    python deploy/capacity.py --events 50000 --users 5000000      # one size, with the arithmetic

Measured figures come from tests/bench/results/*.json, of a worker on a machine of two cores (H = 128, 10,000
items). Everything else is an assumption, stated in `Assumed` and to be replaced by yours. Larger sizes were
not run: the model says what the measured costs add up to, if each worker does what one did.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).resolve().parent.parent / "tests" / "bench" / "results"
MB, GB, HOURS_A_MONTH, DAY_S = 1e6, 1e9, 730, 86_400


@dataclass(frozen=True)
class Assumed:
    """What was not measured."""

    load: float = 0.5
    """share of its capacity that a worker may use at the peak; freshness is measured at this load"""
    peak_to_mean: float = 3.0
    replication: int = 3
    partitions_per_worker: int = 2
    """so that the group can double without `eddy repartition`"""
    event_bytes: int = 150
    """of a record of `events`, compressed"""
    list_bytes: int = 450
    """of a record of `recommendations` with 20 items, compressed"""
    broker_bytes_per_s: float = 100 * MB
    """that one broker writes at the peak, replicas included"""
    broker_cores: int = 8
    broker_memory: float = 32 * GB
    retention_days: int = 30
    core_hour: float = 0.04
    """US dollars, as are the next two"""
    gb_hour: float = 0.005
    disk_gb_month: float = 0.05


@dataclass(frozen=True)
class Measured:
    """What one worker did in the benchmark."""

    seconds_per_event: dict[str, float]
    """of a whole worker with `bench_users` users, by EDDY_EMIT"""
    cores: dict[str, float]
    bench_users: int
    engine_seconds: dict[int, float]
    """of the engine alone per event, without lists, by the number of users in memory"""
    base_bytes: float
    """of a worker with a model and no rows"""
    bytes_per_user: float
    row_bytes: float
    """of a row in the changelog, windows of 1 to 49 events"""
    rows_per_s: dict[str, float]
    """that a worker restores, from the changelog and from a snapshot on disk"""


def read_measured(folder: Path = RESULTS) -> Measured:
    """The figures that the model needs."""

    def read(name: str) -> Any:
        return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))

    runs = {"latest": "eddy-whole-latest-int8", "off": "eddy-whole-off-float32"}
    throughput, restore = read("throughput")["throughput"], read("restore")
    points = [p for p in read("growth")["growth"] if (p["items"], p["hidden"]) == (10_000, 128)]
    largest = max(points, key=lambda point: point["users"])
    return Measured(
        {emit: 1 / throughput[run]["median"] for emit, run in runs.items()},
        {emit: max(r["cpu"] for r in throughput[run]["rounds"].values()) for emit, run in runs.items()},
        20_000,
        {point["users"]: 1 / point["off_per_s"] for point in points},
        largest["rss_model"],
        (largest["rss_end"] - largest["rss_model"]) / largest["users"],
        restore["changelog_bytes"] / restore["rows"],
        {name: restore["rows_per_second"][name] for name in ("changelog", "snapshot_from_disk")},
    )


@dataclass(frozen=True)
class Size:
    """What an installation has to carry."""

    events_per_s: float
    """at the peak"""
    users: float
    emit: str = "latest"
    checkpoint_s: float = 0.2


@dataclass(frozen=True)
class Plan:
    """What a size needs."""

    workers: int
    worker_events_per_s: float
    worker_memory: float
    worker_cores: int
    partitions: int
    rows_per_event: float
    written: dict[str, float]
    """bytes/s into Kafka at the peak, before replication, by topic"""
    brokers: int
    restore_s: dict[str, float]
    server_memory: float
    dollars: dict[str, float]
    """a month"""


def engine_seconds(measured: Measured, users: float) -> float:
    """Per event, between the measured points along the logarithm of the users."""
    points = sorted(measured.engine_seconds.items())
    at = np.log([count for count, _ in points])
    return float(np.interp(math.log(max(users, 1)), at, [seconds for _, seconds in points]))


def rows_per_event(users: float, events: float) -> float:
    """How many rows a checkpoint writes for each of its events: users that come back within it are written
    once. They are drawn by Zipf's law.
    """
    share = 1 / np.arange(1, max(int(users), 1) + 1)
    share /= share.sum()
    return float(np.sum(-np.expm1(events * np.log1p(-np.minimum(share, 1 - 1e-12)))) / events)


def plan(size: Size, measured: Measured, assumed: Assumed) -> Plan:
    """Work out what a size needs."""
    # 1. Workers: the fewest that keep up. An event costs what it cost with few users, and what the engine
    # needs longer with more of them; how many users a worker has follows from the number of workers.
    workers, rate = 0, 0.0
    while workers * rate * assumed.load < size.events_per_s:
        workers += 1
        longer = engine_seconds(measured, size.users / workers) - engine_seconds(
            measured, measured.bench_users
        )
        rate = 1 / (measured.seconds_per_event[size.emit] + max(longer, 0))
    users = size.users / workers
    cores = math.ceil(measured.cores[size.emit])
    memory = measured.base_bytes + users * measured.bytes_per_user
    # 2. What Kafka takes in.
    per_checkpoint = size.events_per_s / workers * size.checkpoint_s
    rows = rows_per_event(users, per_checkpoint)
    lists = 0.0 if size.emit == "off" else 1.0
    written = {
        "events": size.events_per_s * assumed.event_bytes,
        "user-state": size.events_per_s * rows * measured.row_bytes,
        "recommendations": size.events_per_s * lists * assumed.list_bytes,
    }
    brokers = max(3, math.ceil(sum(written.values()) * assumed.replication / assumed.broker_bytes_per_s))
    # 3. Restores: of all of a worker's rows, by itself.
    restore = {name: users / rate for name, rate in measured.rows_per_s.items()}
    # 4. What it costs a month.
    hourly = workers * (cores * assumed.core_hour + memory / GB * assumed.gb_hour)
    broker_hourly = brokers * (
        assumed.broker_cores * assumed.core_hour + assumed.broker_memory / GB * assumed.gb_hour
    )
    kept = written["events"] / assumed.peak_to_mean * assumed.retention_days * DAY_S
    kept += size.users * measured.row_bytes
    return Plan(
        workers,
        rate,
        memory,
        cores,
        workers * assumed.partitions_per_worker,
        rows,
        written,
        brokers,
        restore,
        measured.base_bytes + size.users * measured.bytes_per_user,
        {
            "workers": hourly * HOURS_A_MONTH,
            "brokers": broker_hourly * HOURS_A_MONTH,
            "disk": kept * assumed.replication / GB * assumed.disk_gb_month,
        },
    )


SIZES = (
    Size(10_000, 1e6),
    Size(100_000, 1e7),
    Size(1_000_000, 1e8),
    Size(1_000_000, 1e8, emit="off", checkpoint_s=1.0),
)


def table(sizes: tuple[Size, ...], measured: Measured, assumed: Assumed) -> str:
    """The needs of several sizes, in Markdown."""
    plans = [plan(size, measured, assumed) for size in sizes]
    rows: list[tuple[str, list[str]]] = [
        ("events/s at the peak", [f"{size.events_per_s:,.0f}" for size in sizes]),
        ("users", [f"{size.users / 1e6:,.0f} M" for size in sizes]),
        ("`EDDY_EMIT`, `EDDY_CHECKPOINT_MS`", [f"{s.emit}, {s.checkpoint_s * 1000:.0f}" for s in sizes]),
        ("workers", [f"{p.workers:,}" for p in plans]),
        ("cores and memory of each", [f"{p.worker_cores}, {p.worker_memory / GB:.1f} GB" for p in plans]),
        ("partitions", [f"{p.partitions:,}" for p in plans]),
        ("into `user-state`", [f"{p.written['user-state'] / MB:,.0f} MB/s" for p in plans]),
        (
            "into Kafka in all, before replication",
            [f"{sum(p.written.values()) / MB:,.0f} MB/s" for p in plans],
        ),
        ("brokers", [f"{p.brokers:,}" for p in plans]),
        (
            "a worker restores from its disk, from the changelog",
            [f"{p.restore_s['snapshot_from_disk']:.0f} s, {p.restore_s['changelog']:.0f} s" for p in plans],
        ),
        ("memory of each server", [f"{p.server_memory / GB:,.0f} GB" for p in plans]),
        (
            "US$ a month: workers, brokers, disk",
            [", ".join(f"{dollars:,.0f}" for dollars in p.dollars.values()) for p in plans],
        ),
    ]
    (_, first), *rest = rows
    lines = [f"| {rows[0][0]} | " + " | ".join(first) + " |", "| --- |" + " --- |" * len(sizes)]
    return "\n".join([*lines, *(f"| {name} | " + " | ".join(cells) + " |" for name, cells in rest)]) + "\n"


def arithmetic(size: Size, measured: Measured, assumed: Assumed) -> str:
    """How one size was worked out, line by line."""
    needed = plan(size, measured, assumed)
    users = size.users / needed.workers
    alone, longer = measured.seconds_per_event[size.emit], 1 / needed.worker_events_per_s
    total = sum(needed.written.values())
    return "\n".join(
        [
            f"An event costs a worker {alone * 1e6:.1f} µs with {measured.bench_users:,} users, and "
            f"{longer * 1e6:.1f} µs with {users:,.0f}: {needed.worker_events_per_s:,.0f} events/s.",
            f"Workers: {size.events_per_s:,.0f} / ({needed.worker_events_per_s:,.0f} · {assumed.load}) "
            f"= {needed.workers}.",
            f"Memory of each: {measured.base_bytes / GB:.2f} GB + {users:,.0f} users · "
            f"{measured.bytes_per_user:,.0f} B = {needed.worker_memory / GB:.1f} GB.",
            f"Partitions: {needed.workers} · {assumed.partitions_per_worker} = {needed.partitions}.",
            f"Rows: {needed.rows_per_event:.2f} per event · {size.events_per_s:,.0f}/s · "
            f"{measured.row_bytes:,.0f} B = {needed.written['user-state'] / MB:,.0f} MB/s.",
            f"Brokers: {total / MB:,.0f} MB/s · {assumed.replication} replicas / "
            f"{assumed.broker_bytes_per_s / MB:.0f} MB/s = {needed.brokers} (3 at least).",
            f"Restore: {users:,.0f} rows / {measured.rows_per_s['changelog']:,.0f} rows/s = "
            f"{needed.restore_s['changelog']:.0f} s from the changelog, / "
            f"{measured.rows_per_s['snapshot_from_disk']:,.0f} = "
            f"{needed.restore_s['snapshot_from_disk']:.0f} s from a snapshot.",
            f"Each server holds all rows: {needed.server_memory / GB:,.0f} GB.",
            "US$ a month: " + ", ".join(f"{name} {d:,.0f}" for name, d in needed.dollars.items()) + ".",
        ]
    )


def positive(text: str) -> float:
    """A number above 0. Errors: ValueError, of which argparse makes a line."""
    number = float(text)
    if not 0 < number < math.inf:
        raise ValueError
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description="How much of everything an installation needs.")
    parser.add_argument("--events", type=positive, help="per second, at the peak")
    parser.add_argument("--users", type=positive, default=1e6)
    parser.add_argument("--emit", choices=["latest", "off"], default="latest")
    parser.add_argument("--checkpoint-ms", type=positive, default=200)
    given = parser.parse_args()
    measured, assumed = read_measured(), Assumed()
    if given.events is None:
        print(table(SIZES, measured, assumed), end="")
    else:
        size = Size(given.events, given.users, given.emit, given.checkpoint_ms / 1000)
        print(arithmetic(size, measured, assumed))


if __name__ == "__main__":
    main()
