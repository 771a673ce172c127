"""The benchmark: `make bench`, or `make bench QUICK=1`.

python -m tests.bench.run [--quick]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from stream.broker import broker_or_local
from stream.settings import load_settings
from tests.bench.machine import describe
from tests.bench.place import Place
from tests.bench.plan import FULL, PEERS, QUICK, Plan
from tests.bench.throughput import Measured, Rounds, measure_eddy, measure_peer

RESULTS = Path(__file__).parent / "results"


class Log:
    """Progress: one line for each thing that was measured, with the time since the start."""

    def __init__(self) -> None:
        self.started = time.monotonic()

    def __call__(self, line: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
        print(f"{minutes:2d}:{seconds:02d}  {line}", flush=True)


def throughput(place: Place, plan: Plan, log: Log) -> Rounds:
    """All programs in interleaved rounds."""
    rounds = Rounds()
    with place.installation(4, plan.backlog) as settings:
        for number in range(1, plan.rounds + 1):
            for name in PEERS:
                found = measure_peer(place, settings, name, plan.backlog, plan.warm_s, plan.seconds)
                _note(rounds, log, number, name, found)
            for run in plan.eddy:
                found = measure_eddy(place, run, plan.backlog, plan.warm_s, plan.seconds)
                _note(rounds, log, number, run.name, found)
    return rounds


def _note(rounds: Rounds, log: Log, number: int, name: str, found: Measured) -> None:
    rounds.add(name, found)
    log(f"round {number}  {name:32s} {found.rate:10,.0f} events/s")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the short form, within 8 minutes")
    plan = QUICK if parser.parse_args().quick else FULL
    log, machine = Log(), describe()
    settings = load_settings()
    with (
        tempfile.TemporaryDirectory(prefix="eddy-bench-") as folder,
        broker_or_local(settings, log) as bootstrap,
    ):
        place = Place(bootstrap, Path(folder))
        rounds = throughput(place, plan, log)
    target = RESULTS / "quick" if plan.quick else RESULTS
    target.mkdir(parents=True, exist_ok=True)
    result = {**machine, "quick": plan.quick, "runs": rounds.to_json()}
    (target / "throughput.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
