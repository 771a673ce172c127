"""Synthetic event logs of any length, in the layout of an exported one: a folder per day and partition.

    day=2024-01-01/bucket=0003/part-00000000.parquet

Users come in sessions of five events, half a minute apart. How active they are, and how popular the items, is
drawn by Zipf's law. Each bucket is in the order of arrival, in which events are up to some seconds late.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

BEGIN_MS, DAY_MS = 1_704_067_200_000, 86_400_000
SESSION, GAP_MS, LATE_MS = 5, 30_000, 5_000
EVENTS_PER_USER = 25
PART_ROWS = 200_000


def write_synthetic_log(
    folder: Path, events: int, items: int = 20_000, buckets: int = 4, days: int = 50, seed: int = 1
) -> None:
    """Write a log of `events` events of events / EVENTS_PER_USER users, which takes memory for a day only."""
    users = max(1, events // EVENTS_PER_USER)
    rng = np.random.default_rng(seed)
    user_names = pa.array([f"user-{number:09d}" for number in range(users)])
    item_names = pa.array([f"item-{number:07d}" for number in range(items)])
    until = np.linspace(0, events, days + 1).astype(np.int64)
    for day, size in enumerate(np.diff(until).tolist()):
        sessions = -(-size // SESSION)
        user = _zipf(rng, users, sessions).repeat(SESSION)[:size]
        item = _zipf(rng, items, size)
        begin = BEGIN_MS + day * DAY_MS + rng.integers(0, DAY_MS - SESSION * GAP_MS, sessions)
        time = (begin[:, None] + np.arange(SESSION) * GAP_MS).reshape(-1)[:size]
        arrival = np.argsort(time + rng.integers(0, LATE_MS, size), kind="stable")
        user, item, time = user[arrival], item[arrival], time[arrival]
        name = datetime.fromtimestamp((BEGIN_MS + day * DAY_MS) / 1000, UTC).date().isoformat()
        for bucket in range(buckets):
            rows = np.flatnonzero(user % buckets == bucket)
            target = folder / f"day={name}" / f"bucket={bucket:04d}"
            target.mkdir(parents=True, exist_ok=True)
            for part, start in enumerate(range(0, len(rows), PART_ROWS)):
                picked = rows[start : start + PART_ROWS]
                table = pa.table(
                    {
                        "user_id": user_names.take(pa.array(user[picked])),
                        "item_id": item_names.take(pa.array(item[picked])),
                        "timestamp": pa.array(time[picked], pa.timestamp("ms", "UTC")),
                        "event_type": pa.array(np.full(len(picked), "view")),
                        "value": pa.nulls(len(picked), pa.float32()),
                        "event_id": pa.nulls(len(picked), pa.string()),
                        "partition": np.full(len(picked), bucket, np.int32),
                        "offset": picked,
                    }
                )
                pq.write_table(table, target / f"part-{part:08d}.parquet")


def _zipf(rng: np.random.Generator, choices: int, n: int) -> np.ndarray:
    """n numbers below `choices`, number i about as often as 1 / (i + 10): the inverse of the distribution."""
    top = np.log((choices + 10) / 10)
    drawn: np.ndarray = 10 * (np.exp(rng.random(n) * top) - 1)
    return np.minimum(drawn.astype(np.int64), choices - 1)
