"""Lists in bulk (`eddy recommend`) beside scoring alone: the same rows, version, threads and numbers of users
at a time, in interleaved rounds.

    python -m tests.bench.bulk USERS ITEMS ROUNDS

`scoring` copies rows and makes their lists as catalogue indices; `file` is all that the command does once the
topics are read: find the rows, make the lists, and write the Parquet file. Prints JSON.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from eddy.serving.bulk import run
from eddy.serving.lists.questions import Question
from eddy.serving.view import MaterialisedView
from eddy.stream.records.clock import wall_ms
from eddy.stream.records.settings import load_settings
from eddy.stream.state.rows import encode_rows
from tests.bench.machine import describe
from tests.bench.versions import make_version
from tests.bench.window_rows import EPOCH, first_rows, window_rows
from tests.bench.workload import user_id
from tests.support.views import put_version

WANTED = Question("", k=20)
_BLOCK = 10_000


class ReadService:
    """A service that has read the topics."""

    def __init__(self, view: MaterialisedView) -> None:
        self.view = view

    async def start(self) -> None:
        """Nothing is to be read."""

    async def stop(self) -> None:
        """Nothing was begun."""

    def not_ready(self) -> list[str]:
        """It is ready."""
        return []

    async def on_thread(self, work: Callable[[], Any]) -> Any:
        """Do work as the service does it: on another thread than the loop's."""
        return await asyncio.to_thread(work)


def filled_view(folder: Path, users: int, items: int, threads: int) -> MaterialisedView:
    """A view with a row of each user, in a version with the whole score."""
    version = make_version(folder, "whole", items)
    view = MaterialisedView(wall_ms, threads)
    put_version(view, version, EPOCH)
    block = window_rows(min(users, _BLOCK), version, bytes(16), wall_ms() - 1000, items)
    for first in range(0, users, _BLOCK):
        n = min(_BLOCK, users - first)
        rows = replace(first_rows(block, n), user=[user_id(first + i).encode() for i in range(n)])
        view.take_rows(0, dict(zip(rows.user, encode_rows(rows), strict=True)))
    return view


def measure(users: int, items: int, rounds: int) -> dict[str, Any]:
    """Lists per second of the two, and their ratio in the median of the rounds."""
    settings = load_settings()
    torch.set_num_threads(1)
    rates: dict[str, list[float]] = {"scoring": [], "file": []}
    with tempfile.TemporaryDirectory(prefix="eddy-bench-") as folder:
        view = filled_view(Path(folder) / "registry", users, items, settings.threads)
        (at,) = view.slabs
        slots = np.arange(users)

        def scoring() -> None:
            now, slab, ranker = view.now(), view.slabs[at], view.rankers[at]
            ranker.update_statistics(now, view.wall())
            for first in range(0, users, run.AT_ONCE):
                some = slots[first : first + run.AT_ONCE]
                rows = ranker.latest(slab, some)
                ranker.start_topk(rows, now, WANTED.k, np.zeros(len(some), np.bool_))()

        def file() -> None:
            made = asyncio.run(run.make_lists(settings, None, WANTED, Path(folder) / "lists.parquet", None))
            assert made == users

        with (
            patch.object(run, "Service", lambda *_, **__: ReadService(view)),
            patch.object(run, "prepare_topics", lambda *_: None),
        ):
            for number in range(rounds + 1):
                for name, work in (("scoring", scoring), ("file", file)):
                    began = time.perf_counter()
                    work()
                    if number:  # what is made once is not timed
                        rates[name].append(users / (time.perf_counter() - began))
    pairs = zip(rates["file"], rates["scoring"], strict=True)
    return {
        "users": users,
        "items": items,
        "k": WANTED.k,
        "threads": settings.threads,
        "scoring_per_s": round(statistics.median(rates["scoring"])),
        "file_per_s": round(statistics.median(rates["file"])),
        "share": round(statistics.median(mine / alone for mine, alone in pairs), 3),
        "machine": describe(),
    }


if __name__ == "__main__":
    print(json.dumps(measure(*map(int, sys.argv[1:4])), indent=1))
