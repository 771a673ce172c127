"""Rebuilds the accuracy table of MovieLens-1M, leave-one-out, in README.md beside this file.

    python -m tests.reproduce.run [--events FILE] [--only NAME] [--again]

FILE (or $EDDY_DATA) is a Parquet file of MovieLens-1M as the SASRec papers use it: user_id, item_id and
`position` in the user's sequence; see README.md. Every run's outcome is kept in results/ and not repeated;
a run that was killed goes on from its last epoch. `--only` takes one run, `--again` replaces its outcome.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from eddy.models.errors import EddyError
from eddy.models.evaluation.evaluate import judge
from eddy.models.evaluation.protocols import Trial, make_trial
from eddy.models.logs.events import read_events
from eddy.models.network.recommender import Recommender
from eddy.models.rules import EVERY_EVENT
from eddy.models.tensors import SPARSE_GATES
from eddy.models.training.gate_fitting import SCORE_PARTS
from eddy.models.training.train import train
from eddy.models.training.trainer import Progress
from tests.reproduce.report import write_table
from tests.reproduce.runs import RUNS, Run

HERE = Path(__file__).parent


def outcome_of(name: str, folder: Path) -> Path:
    """Where a run's outcome is kept."""
    return folder / "results" / f"{name.replace(', ', '-').replace(' ', '-')}.json"


def perform(name: str, run: Run, found: Trial, checkpoint: Path, alone: bool = False) -> dict[str, Any]:
    """Train and judge; resumes training that was killed. `alone`: judge the network without gates, too."""
    commit = _commit()
    began, shown = time.process_time(), 0.0

    def progress(at: Progress) -> None:
        nonlocal shown
        if time.monotonic() - shown > 20:
            shown = time.monotonic()
            share = f"{at.done / max(at.total, 1):4.0%}"
            print(
                f"{name}: {at.phase}, epoch {at.epoch} of {at.epochs}, {share}, loss {at.loss:.4f}",
                flush=True,
            )

    trained = train(found.training_part, run.config, run.settings, EVERY_EVENT, progress, checkpoint)
    curve = trained.metrics["curve"]
    judged = judge(found, trained, EVERY_EVENT)
    outcome = {
        "name": name,
        "commit": commit,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()} {platform.system()}, {os.cpu_count()} CPUs",
        "config": asdict(run.config),
        "training": asdict(run.settings) | {"seconds": None},
        "seed": run.settings.seed,
        "parameters": sum(weight.numel() for weight in trained.recommender.parameters()),
        "state_bytes": 4 * trained.recommender.state_size,
        "epochs": len(curve),
        "best_epoch": trained.metrics["best_epoch"],
        "network_cpu_s": curve[-1]["cpu_s"],  # all of it, resumed or not
        "process_cpu_s": time.process_time()
        - began,  # of the last process: with gates, last pass and ranking
        "curve": curve,
        "gates": trained.metrics.get("gates"),
        "judged": judged.events,
        "test": judged.reported,
        "validation": judged.tuning,
    }
    if alone:
        network = replace(trained, recommender=network_alone(trained.recommender))
        outcome["test_of_network_alone"] = judge(found, network, EVERY_EVENT).reported
    return outcome


def keep(kept: Path, again: bool, make: Callable[[Path], dict[str, Any]]) -> None:
    """Make an outcome and keep it, unless it is there and not wanted `again`; `make` is given the file from
    which a training that was killed goes on.
    """
    if kept.exists() and not again:
        return
    checkpoint = Path(tempfile.gettempdir()) / "eddy-reproduce" / f"{kept.stem}.pt"
    try:
        outcome = make(checkpoint)
    except EddyError as error:
        sys.exit(str(error))
    kept.parent.mkdir(exist_ok=True, parents=True)
    kept.write_text(json.dumps(outcome, indent=1) + "\n", encoding="utf-8")
    checkpoint.unlink(missing_ok=True)


def network_alone(recommender: Recommender) -> Recommender:
    """A copy whose score is user vector · item vector + bias: no pointer, no transitions, no gates."""
    copy = deepcopy(recommender)
    untouched = Recommender(copy.config, copy.items, copy.types).state_dict()
    copy.load_state_dict(
        {name: untouched[name] if name.startswith(SCORE_PARTS) else weight
         for name, weight in recommender.state_dict().items()}
    )  # fmt: skip
    with torch.no_grad():
        copy.gate_state.bias[-SPARSE_GATES:-2] = -100.0
    return copy.eval()


def _commit() -> str:
    """Of the code that runs; "-dirty" when the working tree differs from it in more than outcomes."""

    def git(*arguments: str) -> str:
        command = ("git", *arguments)
        return subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()

    changed = git("diff", "--name-only", "HEAD", "--", ":/", ":(exclude)results", ":(exclude)README.md")
    return git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")


def main(arguments: Sequence[str] | None = None, folder: Path = HERE) -> None:
    """The command line; README.md and results/ are those of `folder`."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.reproduce.run", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--events", type=Path, default=os.environ.get("EDDY_DATA"), metavar="FILE")
    parser.add_argument("--only", choices=RUNS)
    parser.add_argument("--again", action="store_true")
    given = parser.parse_args(arguments)
    for name in [given.only] if given.only else RUNS:

        def make(checkpoint: Path, name: str = name) -> dict[str, Any]:
            if given.events is None:
                raise EddyError(
                    f"{name}: not run yet, and no events to run it on; use --events FILE or set EDDY_DATA"
                )
            found = make_trial(read_events(given.events), "leave-one-out")
            return perform(name, RUNS[name], found, checkpoint, alone=True)

        keep(outcome_of(name, folder), given.again, make)
    write_table(folder / "README.md", [outcome_of(each, folder) for each in RUNS])
    print((folder / "README.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
