"""Restoring rows: from the changelog beside a bare consumer of the same bytes, and from a local snapshot.

    python -m tests.bench.restore [ROWS]        (default 1,000,000; H = 128, windows of 1 to 49 entries)

One process, one partition, restored as a worker does it, fencing its former owner and reading the
changelog's tail included. After writing, two rounds of bare consumer, changelog, snapshot, and the bare
consumer once more; medians count. `cpu_seconds` are this process's own: on a machine that has other things
to do (see `load_average`) they tell more than the clock. The broker's log and the snapshot are in the page
cache, as after the restart of a process; `snapshot_from_disk` was read after the system was told to drop
the file from it.
"""

import asyncio
import json
import logging
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
from aiokafka import TopicPartition

from eddy.models.hashing import item_hash, item_hashes, type_hash
from eddy.models.registry import Version
from eddy.stream.engine.engine import Engine
from eddy.stream.kafka.clients import admin_client
from eddy.stream.kafka.producers import new_producer, send_all
from eddy.stream.kafka.reader import Records, read_to_end
from eddy.stream.kafka.topics import ensure_topics
from eddy.stream.local_kafka.broker import broker_or_local
from eddy.stream.records.settings import Settings, load_settings
from eddy.stream.state.item_statistics import StatisticsReader
from eddy.stream.state.rows import NO_TIME, WINDOW, Rows, encode_rows
from eddy.stream.state.snapshots import snapshot_path, write_snapshot
from eddy.stream.worker.metrics import WorkerMetrics
from eddy.stream.worker.partition_task import PartitionTask
from eddy.stream.worker.restore import Restorer
from tests.support.engines import TOPIC_ID, new_engine, random_version

HIDDEN = 128
ITEMS = 10_000
_BLOCK = 10_000


def random_rows(start: int, n: int, version: Version) -> Rows:
    """n users from number `start` on, as if encoded by a version; every second one has an anchor."""
    rng = np.random.default_rng(start)
    length = rng.integers(1, WINDOW, n).astype(np.uint8)
    filled = np.arange(WINDOW) < length[:, None]
    hashes = item_hashes([f"item-{i}" for i in range(ITEMS)])
    anchored = np.arange(n) % 2 == 0
    return Rows(
        user=[b"user-%d" % i for i in range(start, start + n)],
        epoch=np.ones(n, np.uint32),
        version=np.full(n, item_hash(version.id), np.uint64),
        topic_id=TOPIC_ID,
        partition=np.zeros(n, np.int32),
        offset=rng.integers(0, 10**9, n),
        applied=length.astype(np.uint32),
        digest=rng.integers(0, 2**63, n).astype(np.uint64),
        anchor_time=np.where(anchored, 10**12, NO_TIME),
        hidden=rng.standard_normal((n, HIDDEN), np.float32),
        anchor=rng.standard_normal((n, HIDDEN), np.float32) * anchored[:, None],
        length=length,
        item=np.where(filled, hashes[rng.integers(0, ITEMS, (n, WINDOW))], np.uint64(0)),
        time=np.where(filled, 10**12 + np.sort(rng.integers(0, 10**9, (n, WINDOW)), axis=1), 0),
        type=np.where(filled, np.uint64(type_hash("view")), np.uint64(0)),
        value=np.where(filled, np.float16(1), np.float16("nan")),
        event_id=np.zeros((n, WINDOW), np.uint64),
        older=np.zeros((n, 0), np.uint64),
    )


async def write(settings: Settings, rows: int, version: Version) -> int:
    """Fill the changelog; returns the bytes of its values."""
    producer = new_producer(settings)
    await producer.start()
    written = 0
    for start in range(0, rows, _BLOCK):
        part = random_rows(start, min(_BLOCK, rows - start), version)
        values = encode_rows(part)
        written += sum(map(len, values))
        await asyncio.gather(
            *await send_all(producer, settings.topics.user_state, 0, zip(part.user, values, strict=True))
        )
    await producer.stop()
    return written


class Seconds(NamedTuple):
    """The time that something took, in s, and the time that this process computed meanwhile, all threads
    together.
    """

    wall: float
    cpu: float


class Watch:
    """A stop watch, which runs from the moment it is made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> Seconds:
        return Seconds(time.perf_counter() - self._wall, time.process_time() - self._cpu)


async def bare(settings: Settings) -> Seconds:
    """Read all values and do nothing with them."""

    async def take(_: TopicPartition, records: Records) -> None:
        for record in records:
            record.value  # noqa: B018

    watch = Watch()
    await read_to_end(settings, settings.topics.user_state, [0], take)
    return watch.read()


async def take_over(restorer: Restorer) -> PartitionTask:
    """Restore partition 0 as a worker does that follows nothing."""
    tasks: list[PartitionTask] = []

    async def begin(number: int, end: int) -> None:
        tasks.append(await restorer.begin_task(number, 1, producer, end))

    producer = await restorer.fence(0)
    try:
        await restorer.read([0], begin)
    except BaseException:
        await producer.stop()
        raise
    return tasks[0]


async def restored(settings: Settings, engine: Engine) -> tuple[Seconds, PartitionTask]:
    """Restore the partition as a worker does; returns how long it took, and the task that then owns it."""
    with ThreadPoolExecutor(1) as thread:

        async def run(work: Callable[[], Any]) -> Any:
            return await asyncio.get_running_loop().run_in_executor(thread, work)

        counts = StatisticsReader(engine.statistics, engine.names.catalogue)
        restorer = Restorer(settings, TOPIC_ID, engine, counts, WorkerMetrics(), run)
        watch = Watch()
        owned = await take_over(restorer)
        seconds = watch.read()
        await owned.producer.stop()
    return seconds, owned


def restore(settings: Settings, version: Version, rows: int, write: bool = False) -> Seconds:
    """Restore all rows; `write`: leave a snapshot of them afterwards."""
    engine = new_engine(version)
    seconds, owned = asyncio.run(restored(settings, engine))
    assert len(engine.rows) == rows
    assert engine.newest.slab.hidden[:rows].any(dim=1).all()
    if write:
        write_snapshot(path_of(settings), owned.snapshot(engine, TOPIC_ID))
    return seconds


def path_of(settings: Settings) -> Path:
    return snapshot_path(settings.cache_dir, settings.group, TOPIC_ID, 0)


def drop_from_page_cache(path: Path) -> None:
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


def measure(settings: Settings, version: Version, rows: int) -> dict[str, list[Seconds]]:
    """Measure each way of reading, interleaved."""
    seconds: dict[str, list[Seconds]] = {
        "bare": [],
        "changelog": [],
        "snapshot": [],
        "snapshot_from_disk": [],
    }
    path = path_of(settings)
    for _ in range(2):
        seconds["bare"].append(asyncio.run(bare(settings)))
        path.unlink(missing_ok=True)
        seconds["changelog"].append(restore(settings, version, rows, write=True))
        seconds["snapshot"].append(restore(settings, version, rows))
    drop_from_page_cache(path)
    seconds["snapshot_from_disk"].append(restore(settings, version, rows))
    seconds["bare"].append(asyncio.run(bare(settings)))
    return seconds


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.machine()
    )


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    with tempfile.TemporaryDirectory() as folder, broker_or_local(load_settings()) as address:
        version = random_version(Path(folder) / "registry", hidden=HIDDEN, items=ITEMS)
        name = f"bench-restore-{time.time_ns()}"
        settings = load_settings(bootstrap_servers=address, partitions=1, topic_prefix=f"{name}.", group=name)
        with admin_client(settings) as admin:
            ensure_topics(admin, settings)
        written = asyncio.run(write(settings, rows, version))
        before = resident_bytes()
        load_before = os.getloadavg()
        path = path_of(settings)
        try:
            seconds = measure(settings, version, rows)
            size = path.stat().st_size
        finally:
            shutil.rmtree(path.parent, ignore_errors=True)
    wall = {name: [round(duration.wall, 2) for duration in taken] for name, taken in seconds.items()}
    cpu = {name: [round(duration.cpu, 2) for duration in taken] for name, taken in seconds.items()}
    middle = {name: statistics.median(values) for name, values in wall.items()}
    busy = {name: statistics.median(values) for name, values in cpu.items()}
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    result = {
        "rows": rows,
        "changelog_bytes": written,
        "snapshot_bytes": size,
        "seconds": wall,
        "cpu_seconds": cpu,
        "rows_per_second": {name: round(rows / value) for name, value in middle.items()},
        "changelog_share_of_bare": round(middle["bare"] / middle["changelog"], 3),
        "snapshot_times_faster": round(middle["changelog"] / middle["snapshot"], 2),
        "snapshot_from_disk_times_faster": round(middle["changelog"] / middle["snapshot_from_disk"], 2),
        "changelog_share_of_bare_by_cpu": round(busy["bare"] / busy["changelog"], 3),
        "snapshot_times_faster_by_cpu": round(busy["changelog"] / busy["snapshot"], 2),
        "load_average": [round(load, 1) for load in load_before],
        "resident_bytes_before": before,
        "resident_bytes_at_most": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "commit": commit.stdout.strip(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {processor()}",
    }
    print(json.dumps(result, indent=1))
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "restore.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
