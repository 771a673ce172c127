"""Memory and time of training against the length of the log.

    python -m tests.bench.training_memory --work FOLDER --events 1000000 10000000 --memory-gb 1 --processes 2

Writes synthetic logs (tests/bench/synthetic_log.py) into the folder, unless they are there, and trains on
each in processes of their own, with a small model. The network's pass is cut after some seconds, since its
memory does not grow with its steps; then the gates are fitted on the log as it is. Prints
JSON, and keeps it in results/training_memory.json with --record.

RssAnon is the memory that only this process has, and that nobody can take from it; RssFile are pages of
files, among them the columns beyond the limit, which the kernel drops when somebody else needs the room.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from eddy.models.config import ModelConfig, TrainConfig
from eddy.models.logs.column_store import bounded_store
from eddy.models.logs.events import read_events
from eddy.models.logs.log_share import LogShare
from eddy.models.rules import EventRules
from eddy.models.training.distributed import process_group
from eddy.models.training.train import train
from eddy.models.training.trainer import Progress
from tests.bench.machine import describe
from tests.bench.synthetic_log import write_synthetic_log

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results" / "training_memory.json"
MODEL = ModelConfig(hidden=16, dim=16, item_buckets=16, dropout=0.0)
TRAINING = TrainConfig(epochs=1, whole=0.0, sampled=64, threads=1, gate_events=1_000, gate_epochs=1)
SAMPLE_S = 0.05


class Sampler:
    """The largest sizes of this process in each of its phases, in MB."""

    def __init__(self) -> None:
        self.phase = "start"
        self.peaks: dict[str, dict[str, int]] = {}
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            peak = self.peaks.setdefault(self.phase, {"RssAnon": 0, "RssFile": 0})
            for line in Path("/proc/self/status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in peak:
                    peak[name] = max(peak[name], int(value.split()[0]) // 1024)
            time.sleep(SAMPLE_S)


class Enough(Exception):
    """So many steps tell how much memory a step takes."""


def measure(log: Path, memory_gb: float | None, seconds: float, folder: Path) -> dict[str, Any]:
    """Train in this process, or in the group that torchrun started it in."""
    sampler, times = Sampler(), dict[str, float]()
    first_step = events_done = 0.0

    def watch(at: Progress) -> None:
        nonlocal first_step, events_done
        first_step, sampler.phase = first_step or time.perf_counter(), "steps"
        events_done = at.done
        if time.perf_counter() - first_step > seconds:
            raise Enough

    with process_group("cpu") as group:
        begun, sampler.phase = time.perf_counter(), "read"
        store = bounded_store(memory_gb, folder)
        events = read_events(log, store=store, event_ids=False, share=LogShare(group.rank, group.size))
        times["read_s"], rows = time.perf_counter() - begun, len(events)
        begun, sampler.phase = time.perf_counter(), "first step"
        with contextlib.suppress(Enough):
            train(events, MODEL, TRAINING, EventRules(), watch, group=group)
        times["first_step_s"] = first_step - begun
        times["events_per_s"] = events_done / (time.perf_counter() - first_step)
        begun, sampler.phase = time.perf_counter(), "gates"
        # With no time for an epoch, what is left is to build the arrays again and to fit the gates.
        train(events, MODEL, replace(TRAINING, seconds=1e-9), EventRules(), group=group)
        times["gates_s"] = time.perf_counter() - begun
        return {
            "process": group.rank, "rows_read": rows,
            **{name: round(value, 1) for name, value in times.items()},
            "peak_mb": sampler.peaks,
            "peak_anon_mb": max(peak["RssAnon"] for peak in sampler.peaks.values()),
            "peak_file_mb": max(peak["RssFile"] for peak in sampler.peaks.values()),
        }  # fmt: skip


def run(
    log: Path, memory_gb: float | None, seconds: float, processes: int, work: Path
) -> list[dict[str, Any]]:
    """The figures of each process that trains on a log."""
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    command += ["tests.bench.training_memory", "--measure", str(log), "--work", str(work)]
    command += ["--seconds", str(seconds), *(["--memory-gb", str(memory_gb)] if memory_gb else [])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return sorted(told, key=lambda each: int(each["process"]))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for logs and columns")
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--memory-gb", type=float, help="the limit [default: none]")
    parser.add_argument("--processes", type=int, nargs="+", default=[1])
    parser.add_argument("--seconds", type=float, default=20, help="of the network's pass")
    parser.add_argument("--record", action="store_true", help="add to results/training_memory.json")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measured = measure(given.measure, given.memory_gb, given.seconds, given.work)
        sys.stdout.write(json.dumps(measured) + "\n")  # at once, so that two processes share no line
        return
    for count in given.events:
        log = given.work / f"log-{count}"
        if not log.exists():
            write_synthetic_log(log, count)
        for processes in given.processes:
            figures = run(log, given.memory_gb, given.seconds, processes, given.work)
            result = {"events": count, "memory_gb": given.memory_gb, "processes": figures}
            print(json.dumps(result), flush=True)
            if given.record:
                _record(result)


def _record(result: dict[str, Any]) -> None:
    """Add a run's figures to those that are kept."""
    earlier = json.loads(RESULTS.read_text())["runs"] if RESULTS.exists() else []
    RESULTS.write_text(json.dumps({"machine": describe(), "runs": [*earlier, result]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
