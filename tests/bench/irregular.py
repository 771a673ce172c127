"""The cost that a user with late events puts on the others of its partition: half of every micro-batch is
that user's.

    python -m tests.bench.irregular

In process: decoded events go straight into `Engine.apply`. Events per second where that user's events are in
order, where one of them is late, and where about half of them are; without answers, and with an answer to
every event. Prints JSON.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.bench.versions import make_version
from tests.support.engines import Happening, batch, item_id, new_engine

START, EVENTS, ITEMS, USERS = 1_370_000_000_000, 1000, 10_000, 5_000
BATCHES = 6
"""The first of them is not timed: it compiles, and makes the rows."""


def happenings(late: str, rng: np.random.Generator, first: int) -> list[Happening]:
    """One micro-batch from event `first` on: every other event is the busy user's."""
    begin = START + first * 100
    events: list[Happening] = []
    for i in range(EVENTS):
        time_ms = begin + i
        if late == "one" and i == EVENTS // 2:
            time_ms = begin
        elif late == "half":
            time_ms = begin + int(rng.integers(0, EVENTS))
        item, other = rng.integers(0, ITEMS, 2).tolist()
        events.append(Happening("busy", item_id(item), time_ms, event_id=f"busy-{first + i}"))
        events.append(Happening(f"user-{rng.integers(USERS)}", item_id(other), begin + i))
    return events


def measured() -> dict[str, dict[str, float]]:
    """Events per second by emission and by which events are late."""
    rates: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="eddy-bench-") as folder:
        version = make_version(Path(folder), "whole", ITEMS, 128)
    for emit in ("off", "every"):
        for late in ("none", "one", "half"):
            engine, rng, spent = new_engine(version, emit=emit, k=10), np.random.default_rng(1), 0.0
            for number in range(BATCHES):
                first = number * 2 * EVENTS
                events = batch(happenings(late, rng, first), range(first, first + 2 * EVENTS))
                began = time.perf_counter()
                for lists in engine.apply([events]).lists:
                    lists.topk()
                spent += (time.perf_counter() - began) * (number > 0)
            rates.setdefault(emit, {})[late] = round((BATCHES - 1) * 2 * EVENTS / spent, 1)
    return rates


if __name__ == "__main__":
    print(json.dumps(measured()))
