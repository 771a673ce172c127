"""Restoring rows: from the changelog beside a bare consumer of the same bytes, and from a local snapshot.

    python -m tests.bench.restore [ROWS]        (default 1,000,000; H = 128, windows of 1 to 49 entries)

One process, one partition, one run each in this order: write, bare consumer, changelog, snapshot, bare
consumer again.
"""

import asyncio
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from aiokafka import TopicPartition

from models.hashing import item_hashes
from stream.broker import broker_or_local
from stream.clients import admin_client
from stream.engine import Engine
from stream.producers import new_producer, send_all
from stream.reader import Records, read_to_end
from stream.rows import NO_TIME, WINDOW, Rows, decode_rows, encode_rows
from stream.settings import Settings, load_settings
from stream.snapshots import Snapshot, blocks, read_snapshot, write_snapshot
from stream.topics import ensure_topics
from tests.engines import TOPIC_ID, new_engine, random_version

HIDDEN = 128
ITEMS = 10_000
_BLOCK = 10_000
_AGE_MS = 86_400_000


def random_rows(start: int, n: int) -> Rows:
    """n users from number `start` on; every second one has an anchor."""
    rng = np.random.default_rng(start)
    length = rng.integers(1, WINDOW, n).astype(np.uint8)
    filled = np.arange(WINDOW) < length[:, None]
    hashes = item_hashes([f"item-{i}" for i in range(ITEMS)])
    anchored = np.arange(n) % 2 == 0
    return Rows(
        user=[b"user-%d" % i for i in range(start, start + n)],
        epoch=np.ones(n, np.uint32),
        version=np.ones(n, np.uint64),
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
        type=np.where(filled, np.uint16(7), np.uint16(0)),
        value=np.where(filled, np.float16(1), np.float16("nan")),
        event_id=np.zeros((n, WINDOW), np.uint64),
    )


async def write(settings: Settings, rows: int) -> int:
    """Fill the changelog; returns the bytes of its values."""
    producer = new_producer(settings)
    await producer.start()
    written = 0
    for start in range(0, rows, _BLOCK):
        part = random_rows(start, min(_BLOCK, rows - start))
        values = encode_rows(part)
        written += sum(map(len, values))
        await asyncio.gather(
            *await send_all(producer, settings.topics.user_state, 0, zip(part.user, values, strict=True))
        )
    await producer.stop()
    return written


async def bare(settings: Settings) -> float:
    """Seconds to read all values and do nothing with them."""

    async def take(_: TopicPartition, records: Records) -> None:
        for record in records:
            record.value  # noqa: B018

    started = time.perf_counter()
    await read_to_end(settings, settings.topics.user_state, [0], take)
    return time.perf_counter() - started


async def from_changelog(settings: Settings, engine: Engine) -> float:
    """Seconds until all rows are in memory, as a worker does it."""

    def load(records: Records) -> None:
        newest = {record.key: record.value for record in records}
        for rows in decode_rows(list(newest), list(newest.values())):
            engine.load(rows)

    async def take(_: TopicPartition, records: Records) -> None:
        await asyncio.get_running_loop().run_in_executor(None, load, records)

    started = time.perf_counter()
    await read_to_end(settings, settings.topics.user_state, [0], take)
    return time.perf_counter() - started


def from_snapshot(path: Path, engine: Engine) -> float:
    started = time.perf_counter()
    snapshot = read_snapshot(path, TOPIC_ID, _AGE_MS)
    assert snapshot is not None
    for rows in blocks(snapshot.rows):
        engine.load(rows)
    return time.perf_counter() - started


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder, broker_or_local(load_settings()) as address:
        version = random_version(Path(folder) / "registry", hidden=HIDDEN, items=ITEMS)
        settings = load_settings(
            bootstrap_servers=address, partitions=1, topic_prefix=f"restore-{time.time_ns()}."
        )
        with admin_client(settings) as admin:
            ensure_topics(admin, settings)
        written = asyncio.run(write(settings, rows))
        seconds = {"bare": asyncio.run(bare(settings))}
        engine = new_engine(version)
        seconds["changelog"] = asyncio.run(from_changelog(settings, engine))
        assert len(engine.slab) == rows
        path = settings.cache_dir / "bench-restore.safetensors"
        slots = engine.slab.of_partition(0)
        stored = engine.slab.export(slots, engine.names.catalogue, TOPIC_ID, engine.versions)
        write_snapshot(path, Snapshot(0, stored))
        del engine, stored
        again = new_engine(version)
        seconds["snapshot"] = from_snapshot(path, again)
        assert len(again.slab) == rows
        size = path.stat().st_size
        path.unlink()
        seconds["bare_again"] = asyncio.run(bare(settings))
    reading = min(seconds["bare"], seconds["bare_again"])
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    result = {
        "rows": rows,
        "changelog_bytes": written,
        "snapshot_bytes": size,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "changelog_share_of_bare": round(reading / seconds["changelog"], 3),
        "snapshot_times_faster": round(seconds["changelog"] / seconds["snapshot"], 2),
        "commit": commit.stdout.strip(),
        "machine": platform.processor() or platform.machine(),
    }
    print(json.dumps(result, indent=1))
    place = Path(__file__).parent / "results"
    place.mkdir(exist_ok=True)
    (place / "restore.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
