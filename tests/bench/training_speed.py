"""Time to an accuracy, beside the official GRU4Rec code (Hidasi & Karatzoglou, github.com/hidasib).

    python -m tests.bench.training_speed --official CHECKOUT --python PYTHON --events FILE [--json FILE]

MovieLens-1M, leave-one-out, NDCG@10 in mode "unseen" over all items, one thread each. CHECKOUT is a copy of
GRU4Rec_PyTorch_Official, whose licence allows research only: it is run from outside, nothing of it is here.
PYTHON is an interpreter with torch, numpy and pandas. The two take turns of a few seconds, one stopped while
the other runs, so that both meet the same machine; wall time is that of a side's own turns, its evaluation
left out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eddy.models.evaluation.evaluate import judge
from eddy.models.evaluation.protocols import make_trial
from eddy.models.logs.events import read_events
from eddy.models.rules import EVERY_EVENT
from eddy.models.training.train import train
from tests.reproduce.runs import RUNS

ROOT = Path(__file__).parents[2]
PEER = Path(__file__).parent / "peers" / "gru4rec.py"
TURN_S = 10.0
AIM = 0.1676
"""The NDCG@10 that the official code reached within 25 minutes on another machine; see
tests/reproduce/README.md.
"""


@dataclass
class Side:
    """One of the two programs: how long its turns took together, and what it reported when."""

    name: str
    process: subprocess.Popen[bytes]
    wall: float = 0.0
    judging: float = 0.0
    since: float = 0.0
    said: list[dict[str, Any]] = field(default_factory=list)

    def turn(self, seconds: float) -> None:
        """Let it run, and note its reports: "trained" before it evaluates itself, "ndcg" afterwards."""
        assert self.process.stdout is not None
        os.killpg(self.process.pid, signal.SIGCONT)
        began = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while (left := seconds - (time.monotonic() - began)) > 0 and self.running:
                if not selector.select(left):
                    break
                line = self.process.stdout.readline()
                if not line:
                    self.process.wait()
                elif line.startswith(b"{"):
                    self._note(json.loads(line), self.wall + time.monotonic() - began)
        if self.running:
            os.killpg(self.process.pid, signal.SIGSTOP)
        self.wall += time.monotonic() - began

    def _note(self, said: dict[str, Any], at: float) -> None:
        if "ready" in said:  # what came before was reading data and importing
            self.judging = at
        elif "trained" in said:
            said["wall_s"] = at - self.judging
            self.since = at
        else:
            self.judging += at - self.since
            said = self.said.pop() | said
        if "ready" not in said:
            self.said.append(said)
            if "ndcg" in said:
                print(self.name, said, flush=True)

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.poll() is None

    def reached(self, aim: float) -> dict[str, Any] | None:
        """Its first report of an accuracy that reaches the aim."""
        return next((said for said in self.said if said.get("ndcg", 0.0) >= aim), None)


def interleaved(sides: list[Side], aim: float) -> None:
    """Let them take turns until each has reached the aim or ended."""
    waiting = list(sides)
    try:
        while waiting:
            for side in waiting:
                side.turn(TURN_S)
                if side.process.returncode:
                    sys.exit(f"{side.name} failed; see above")
            waiting = [side for side in waiting if side.running and not side.reached(aim)]
    finally:
        for side in sides:
            if side.running:
                os.killpg(side.process.pid, signal.SIGKILL)
            side.process.wait()


def train_here(events: Path, name: str) -> None:
    """Eddy's side: trains one run of tests.reproduce, the network alone, and says what it reached."""
    split, run = make_trial(read_events(events), "leave-one-out"), RUNS[name]
    say(ready=True)
    began = time.process_time()
    trained = train(split.training_part, run.config, replace(run.settings, gate_epochs=0), EVERY_EVENT)
    cpu = time.process_time() - began
    passes = len(trained.metrics["curve"]) + 1  # the last one over what was held out too
    say(trained=passes, cpu_s=cpu, events_per_cpu_s=passes * len(split.training_part) / cpu)
    say(ndcg=judge(split, trained, EVERY_EVENT).reported["unseen"]["ndcg@10"])


def say(**values: Any) -> None:
    """Write a line to the parent process."""
    print(json.dumps(values), flush=True)


def export(events: Path, file: Path) -> None:
    """The same split for the other side: training rows and, of every judged user, all rows in order."""
    split = make_trial(read_events(events), "leave-one-out")
    part, judged = split.training_part, split.judged[~split.tuning]
    np.savez(
        file, train_user=part.user, train_item=part.item, user=split.events.user, item=split.events.item,
        test=judged,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.training_speed", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--events", type=Path, required=True)
    parser.add_argument("--official", type=Path, help="a checkout of GRU4Rec_PyTorch_Official")
    parser.add_argument("--python", default=sys.executable, help="an interpreter with torch and pandas")
    parser.add_argument("--run", choices=RUNS, default="best, 3 epochs")
    parser.add_argument("--aim", type=float, default=AIM)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        train_here(options.events, options.run)
        return
    if options.official is None or not (options.official / "gru4rec_pytorch.py").exists():
        sys.exit("--official must be a checkout of github.com/hidasib/GRU4Rec_PyTorch_Official")
    with tempfile.TemporaryDirectory() as folder:
        split = Path(folder) / "split.npz"
        export(options.events, split)
        command = [sys.executable, "-m", "tests.bench.training_speed", "--here", "--run", options.run]
        sides = [
            start(
                "GRU4Rec", [options.python, str(PEER), str(options.official), str(split)], options.official
            ),
            start("Eddy", [*command, "--events", str(options.events.resolve())], ROOT),
        ]
        interleaved(sides, options.aim)
    report = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, torch {torch.__version__}",
        "aim": options.aim, "run": options.run,
        "sides": {side.name: {"reached": side.reached(options.aim), "said": side.said} for side in sides},
    }  # fmt: skip
    text = json.dumps(report, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


def start(name: str, command: list[str], folder: Path) -> Side:
    """A program with one thread, stopped until its turn comes."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    process = subprocess.Popen(
        command, cwd=folder, env={**os.environ, **threads}, stdout=subprocess.PIPE, bufsize=0,
        start_new_session=True,
    )  # fmt: skip
    os.killpg(process.pid, signal.SIGSTOP)
    return Side(name, process)


if __name__ == "__main__":
    main()
