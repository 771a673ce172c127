"""What a GPU adds, and how much of it is used: the same engine on the CPU and on the GPU, in one run.

    python -m tests.bench.gpu [--seconds S] [--kafka] [--out FILE]

In process: decoded events straight into `Engine.apply`, a worker's micro-batch at a time, as
`tests.bench.growth` does; the GRU's step alone; scores with exact top-k beside a plain product and
`torch.topk`; training. Shares are of what the device itself reaches in a large product (FLOP/s) and in a
large copy (bytes/s), measured first. `--kafka` adds whole workers over a backlog, on a broker of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eddy.models.config import DAY_MS, ModelConfig, TrainConfig
from eddy.models.errors import EddyError
from eddy.models.logs.events import Events
from eddy.models.registry import load
from eddy.models.rules import EVERY_EVENT
from eddy.models.scoring.approximate_products import Precision
from eddy.models.training.train import train
from eddy.stream.engine.engine import Engine
from eddy.stream.local_kafka.broker import broker_or_local
from eddy.stream.records.decode import EventColumns
from eddy.stream.records.settings import load_settings
from tests.bench import growth, parts
from tests.bench.machine import describe
from tests.bench.testbed import Testbed
from tests.bench.throughput import EddyRun, Emit, measure_eddy, measure_peer
from tests.bench.versions import Score, make_version

K = 20
COMPARED: tuple[tuple[Score, Precision], ...] = (("cell", "float32"), ("whole", "float32"), ("whole", "auto"))
PRECISIONS: tuple[Precision, ...] = ("float32", "auto")
HIDDEN = 128
USERS = 20_000
EMISSIONS: tuple[Emit, ...] = ("every", "latest", "off")
CATALOGUES = ((10_000, 4_096), (100_000, 1_024), (1_000_000, 128))
"""(items, users scored at a time)"""


TRAINED = {
    "cuda": (
        ("gru", 64, "float32"), ("gru", 512, "float32"), ("gru", 512, "bfloat16"), ("mingru", 512, "float32"),
    ),
    "cpu": (("gru", 64, "float32"), ("mingru", 64, "float32")),
}  # fmt: skip
"""(cell, users side by side, precision)"""


def say(line: str) -> None:
    print(line, flush=True)


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median time of one call, everything on the device done."""
    work()
    took = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        took.append(time.perf_counter() - started)
    return statistics.median(took)


@torch.inference_mode()
def limits() -> dict[str, float]:
    """What the device reaches: FLOP/s in large products, bytes/s in a large copy (read and written)."""
    figures = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        a, b = (torch.randn(8192, 8192, device="cuda", dtype=dtype) for _ in range(2))
        figures[f"flops_{name}"] = 2 * 8192**3 / seconds(lambda a=a, b=b: a @ b, 5)  # type: ignore[misc]
    source = torch.randn(1 << 28, device="cuda")
    target = torch.empty_like(source)
    figures["bytes_per_s"] = 2 * source.nbytes / seconds(lambda: target.copy_(source), 5)
    return figures


@torch.inference_mode()
def step(limit: dict[str, float], rows: int) -> dict[str, float]:
    """The GRU's step on so many rows, as `torch.gru_cell` does it: x and h are read, h is written; with the
    gates' products between, which take the same path twice.
    """
    cell = torch.nn.GRUCell(HIDDEN, HIDDEN, device="cuda")
    x, h = (torch.randn(rows, HIDDEN, device="cuda") for _ in range(2))
    took = seconds(lambda: cell(x, h), 20)
    return {
        "rows": rows,
        "per_s": rows / took,
        "flops_share": rows * 12 * HIDDEN * HIDDEN / took / limit["flops_float32"],
        "bytes_share": rows * 4 * HIDDEN * (3 + 12) / took / limit["bytes_per_s"],
    }


@torch.inference_mode()
def scoring(folder: Path, limit: dict[str, float], items: int, users: int) -> list[dict[str, Any]]:
    """Whole score and exact top-k of rows as the engine has them, on the device; a plain product beside."""
    figures = []
    exact: list[set[int]] = []
    for precision in PRECISIONS:
        engine, _ = filled(folder, "whole", items, precision, "cuda")
        slots = parts.some_rows(engine, users, 1)
        view, now = engine.newest.ranker.latest(engine.newest.slab, slots), engine.clock.now(engine.wall())
        engine.update_statistics(engine.newest.ranker, now, engine.wall())
        nobody = np.zeros(len(slots), np.bool_)

        def lists(engine: Engine = engine, view: Any = view, now: int = now, nobody: Any = nobody) -> Any:
            return engine.newest.ranker.start_topk(view, now, K, nobody)()

        took = seconds(lists, 7)
        vector = engine.newest.ranker.query(view, now).vector
        rows = engine.newest.ranker.scorer.matrix.T.contiguous()
        plain = seconds(lambda vector=vector, rows=rows: torch.topk(vector @ rows, K), 7)  # type: ignore[misc]
        listed = [set(row) for row in lists().item.tolist()]
        exact = exact or listed
        n = len(slots)
        figures.append(
            {
                "items": items, "users": n, "per_s": n / took,
                "precision": engine.newest.ranker.scorer.precision,
                "plain_per_s": n / plain, "recall_at_20": recall(listed, exact),
                "flops_share": 2 * n * items * rows.shape[0] / took / limit["flops_float32"],
                "bytes_share": 4 * n * items / took / limit["bytes_per_s"],
            }
        )  # fmt: skip
        say(json.dumps(figures[-1]))
    return figures


def recall(approximate: list[set[int]], exact: list[set[int]]) -> float:
    return float(np.mean([len(a & b) / K for a, b in zip(approximate, exact, strict=True)]))


def filled(
    folder: Path, score: Score, items: int, precision: Precision, device: str
) -> tuple[Engine, Iterator[EventColumns]]:
    """An engine in which every user had some events, and what comes next."""
    settings = load_settings(partitions=1, device=device)
    made = make_version(folder, score, items, HIDDEN)
    engine = parts.engine(load(folder / made.id), settings, "off", precision)
    batches = growth.events(USERS, min(items, 10_000), time.time_ns() // 1_000_000 - 3_600_000)
    done = 0
    while done < 2 * USERS:
        done += engine.apply([next(batches)]).applied
    parts.sample(engine, settings.prequential_sample, settings.prequential_time)
    return engine, batches


def in_process(folder: Path, device: str, spent_s: float) -> dict[str, float]:
    """Events/s that the engine applies, answers made, without Kafka."""
    rates = {}
    for score, precision in COMPARED:
        engine, batches = filled(folder, score, 10_000, precision, device)
        for emit in EMISSIONS:
            engine = parts.engine_with(engine, emit)
            for _ in range(2):
                growth.apply(engine, next(batches))
            name = f"{score}-{emit}-{precision}"
            rates[name] = growth.timed(engine, batches, spent_s)
            say(f"{device:5s} {name:24s} {rates[name]:12,.0f} events/s")
    return rates


def training(device: str, items: int = 10_000) -> list[dict[str, Any]]:
    """Events/s of an epoch, full softmax; FLOPs counted are the softmax's and the GRU's products, three times
    each (forward, and backward for both sides).
    """
    rng = np.random.default_rng(1)
    n = 1_600_000 if device == "cuda" else 40_000
    user, item = rng.integers(n // 100, size=n), rng.zipf(1.2, n) % items
    events = Events(
        user=user.astype(np.int32), item=item.astype(np.int32),
        timestamp=np.arange(n) * 60_000 + 1_370_000_000_000, type=np.zeros(n, np.int16),
        value=np.full(n, np.nan, np.float32), users=[f"u{i}" for i in range(n // 100)],
        items=[f"i{i}" for i in range(items)], types=["view"],
    )  # fmt: skip
    figures = []
    for cell, batch, precision in TRAINED[device]:
        settings = TrainConfig(
            epochs=2,
            batch=batch,
            validation=0,
            whole=0,
            sampled=0,
            device=device,
            precision=precision,
        )
        model = ModelConfig(cell=cell, hidden=HIDDEN, half_lives_ms=(DAY_MS,))
        curve = train(events, model, settings, EVERY_EVENT).metrics["curve"]
        rate = max(point["events_per_s"] for point in curve)
        figures.append({"cell": cell, "batch": batch, "precision": precision, "per_s": rate})
        if cell == "gru":
            figures[-1]["flops"] = rate * 3 * 2 * HIDDEN * (len(np.unique(events.item)) + 6 * HIDDEN)
        say(f"{device:5s} {json.dumps(figures[-1])}")
    return figures


@contextmanager
def broker(folder: Path) -> Iterator[Testbed]:
    with broker_or_local(load_settings(), say) as bootstrap:
        yield Testbed(bootstrap, folder)


def whole_programs(folder: Path, window_s: float, backlog: int = 400_000) -> dict[str, float]:
    """Workers over a backlog, events/s, on either device; and the hand-written loop, on the CPU."""
    rates: dict[str, float] = {}
    with broker(folder) as testbed:
        with testbed.installation(4, backlog) as settings:
            rates["handwritten"] = measure_peer(testbed, settings, "handwritten", backlog, 1, window_s).rate
            say(f"handwritten {rates['handwritten']:,.0f} events/s")
        for emit in EMISSIONS:
            for device in ("cuda", "cpu"):
                run = EddyRun("whole", emit, "auto", device=device)
                try:
                    rates[run.name] = measure_eddy(testbed, run, backlog, 1, window_s).rate
                except (EddyError, ValueError) as error:
                    say(f"{run.name}: {error}")
                    continue
                say(f"{run.name:36s} {rates[run.name]:12,.0f} events/s")
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gpu")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--kafka", action="store_true", help="also whole workers over a backlog")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gpu.json")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("bench: no GPU here that torch can use")
    figures: dict[str, Any] = {**describe(), "gpu": torch.cuda.get_device_name()}

    def note(name: str, value: Any) -> None:
        figures[name] = value
        options.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory(prefix="eddy-bench-") as name:
        folder = Path(name)
        limit = limits()
        say(json.dumps(limit))
        note("limits", limit)
        note("step", [step(limit, rows) for rows in (4_096, 65_536, 1 << 20)])
        say(json.dumps(figures["step"]))
        note("scoring", [figure for point in CATALOGUES for figure in scoring(folder, limit, *point)])
        note("engine", {device: in_process(folder, device, options.seconds) for device in ("cuda", "cpu")})
        if options.kafka:
            note("workers", whole_programs(folder, options.seconds))
        note("training", {device: training(device) for device in ("cuda", "cpu")})
    if options.kafka and len(figures["workers"]) < 1 + 2 * len(EMISSIONS):
        sys.exit("bench: not all workers could be measured; the lines above say why")


if __name__ == "__main__":
    main()
