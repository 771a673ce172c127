"""How cost grows: events per second and memory against users, items and hidden size; one point per process.

    python -m tests.bench.growth USERS ITEMS HIDDEN SECONDS

In process: decoded events go straight into `Engine.apply` with the whole score; no broker, so that a million
users need no gigabytes of log. Every user has at least one event before anything is timed. Events per second
without answers and with an answer to every event (k = 10), and the process's memory before the model, with
it, and with all rows. Prints JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

from eddy.models.hashing import type_hash
from eddy.stream.engine.engine import Engine
from eddy.stream.records.columns import select_entries
from eddy.stream.records.decode import EventColumns
from eddy.stream.records.settings import load_settings
from eddy.stream.worker.batch_loop import MAX_BATCH_EVENTS
from tests.bench import parts
from tests.bench.versions import make_version
from tests.bench.workload import STEP_MS, Workload, user_id
from tests.support.engines import item_id

POINTS = (
    (10_000, 10_000, 128), (100_000, 10_000, 128), (1_000_000, 10_000, 128),
    (20_000, 10_000, 128), (20_000, 100_000, 128), (20_000, 1_000_000, 128),
    (20_000, 10_000, 64), (20_000, 10_000, 256),
)  # fmt: skip
"""(users, items, hidden)"""


def events(users: int, items: int, start_ms: int) -> Iterator[EventColumns]:
    """Micro-batches of one partition, without end: first every user once, then by Zipf's law."""
    size = MAX_BATCH_EVENTS
    workload, offset = Workload(users, items), 0
    user, item = np.arange(users), workload.draw(users)[1]
    for seed in range(2, 1_000_000):
        for begin in range(0, len(user), size):
            part = slice(begin, begin + size)
            n = len(user[part])
            yield EventColumns(
                partition=np.zeros(n, np.int32),
                user=[user_id(number) for number in user[part].tolist()],
                item=[item_id(number) for number in item[part].tolist()],
                type=np.full(n, type_hash("view"), np.uint64),
                value=np.full(n, np.nan, np.float16),
                time=start_ms + (offset + np.arange(n)) * STEP_MS,
                event_id=np.zeros(n, np.uint64),
                offset=offset + np.arange(n),
            )
            offset += n
        user, item = workload.draw(100_000, seed)


def smaller(batches: Iterator[EventColumns], items: int) -> Iterator[EventColumns]:
    """The same events in micro-batches that are smaller where there are more than 10,000 items, so that
    answering each event of two of them takes no more than seconds with a million items.
    """
    size = max(64, min(MAX_BATCH_EVENTS, MAX_BATCH_EVENTS * 10_000 // items))
    for batch in batches:
        for begin in range(0, len(batch), size):
            yield select_entries(batch, slice(begin, begin + size))


def timed(engine: Engine, batches: Iterator[EventColumns], seconds: float) -> float:
    """Events applied per second, over at least two micro-batches after one that is not timed: with a million
    items the things that are made only once take seconds.
    """
    apply(engine, next(batches))
    spent, done, turns = 0.0, 0, 0
    while spent < seconds or turns < 2:
        batch = next(batches)
        started = time.perf_counter()
        done += apply(engine, batch)
        spent += time.perf_counter() - started
        turns += 1
    return done / spent


def apply(engine: Engine, batch: EventColumns) -> int:
    """Apply a micro-batch and wait for its lists and ranks; returns how many events were applied."""
    outcome = engine.apply([batch])
    for lists in outcome.lists:
        lists.topk()
    engine.prequential.finish_ranks()
    return outcome.applied


def point(users: int, items: int, hidden: int, seconds: float) -> dict[str, float]:
    """One point's figures."""
    process = psutil.Process()
    bare = process.memory_info().rss
    settings = load_settings(partitions=1)
    with tempfile.TemporaryDirectory(prefix="eddy-bench-") as folder:
        version = make_version(Path(folder), "whole", items, hidden)
    engine = parts.engine(version, settings, "off", "auto")
    model = process.memory_info().rss
    batches = events(users, items, time.time_ns() // 1_000_000 - 3_600_000)
    filled = 0
    while filled < users:
        filled += engine.apply([next(batches)]).applied
    parts.sample(engine, settings.prequential_sample, settings.prequential_time)
    rows = process.memory_info().rss
    off = timed(engine, batches, seconds)
    every = parts.engine_with(engine, emit="every")
    return {
        "users": users,
        "items": items,
        "hidden": hidden,
        "off_per_s": round(off, 1),
        "every_per_s": round(timed(every, smaller(batches, items), seconds), 1),
        "rss_bare": bare,
        "rss_model": model,
        "rss_rows": rows,
        "bytes_per_user": round((rows - model) / users, 1),
        "rss_end": process.memory_info().rss,
    }


if __name__ == "__main__":
    print(json.dumps(point(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))))
