"""Rebuilds the tables of live streams in README.md beside this file: prequential, one configuration for all.

    python -m tests.reproduce.streams --data FOLDER [--only NAME] [--again]

FOLDER (or $EDDY_STREAMS) holds a Parquet file for each of STREAMS, with user_id, item_id and timestamp; see
README.md.
Every run's outcome is kept in results/streams/ and not repeated; a run that was killed goes on from its last
epoch. `--only` takes one run, `--again` replaces its outcome.
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eddy.models.config import ModelConfig, TrainConfig
from eddy.models.errors import EddyError
from eddy.models.evaluation.baselines import baselines
from eddy.models.evaluation.protocols import MODES, Trial, make_trial
from eddy.models.logs.events import read_events
from tests.reproduce.report import line, replace_between
from tests.reproduce.run import HERE, keep, perform
from tests.reproduce.runs import Run

STREAMS = (
    "ml-100k", "yoochoose-100k-sample", "trivago-sample", "movietweetings", "foursquare-nyc-stan",
    "ml-1m-pos",
)  # fmt: skip
UNTUNED = ("diginetica",)
"""Run once the defaults stood, never looked at before."""

SEEDS = (1, 2, 3)
JUDGE = "mrr@20"

ABLATED = ("yoochoose-100k-sample", "movietweetings", "foursquare-nyc-stan")
"""Won by transitions, by fresh popularity, by repetition."""

_ALONE = ModelConfig(time_gaps=False, half_lives_ms=(), pointer=False, transition_lags=0)
_FULL = ModelConfig()
PARTS = {
    "cell alone": _ALONE,
    "+ time gaps": replace(_ALONE, time_gaps=True),
    "+ moving popularity": replace(_FULL, pointer=False, transition_lags=0),
    "+ pointer": replace(_FULL, transition_lags=0),
    "+ transitions": _FULL,
}


@dataclass(frozen=True)
class StreamRun:
    """A stream, and what is trained on its first 80 %; None = the rules that count."""

    stream: str
    run: Run | None


def _seed(stream: str, seed: int) -> str:
    return f"{stream}, seed {seed}"


def _runs() -> dict[str, StreamRun]:
    """What is most asked for comes first: the rules and one seed, what each part adds, more seeds."""
    training = TrainConfig(threads=1)
    found: dict[str, StreamRun] = {}
    for seed in SEEDS:
        for stream in (*STREAMS, *UNTUNED):
            found.setdefault(f"{stream}, rules", StreamRun(stream, None))
            found[_seed(stream, seed)] = StreamRun(stream, Run(_FULL, replace(training, seed=seed)))
        if seed == SEEDS[0]:
            for stream in ABLATED:
                for part, config in list(PARTS.items())[:-1]:  # the last is the whole: its seed 1
                    found[f"{stream}, {part}"] = StreamRun(stream, Run(config, training))
    return found


RUNS = _runs()


def outcome_of(name: str, folder: Path) -> Path:
    """Where a run's outcome is kept."""
    return (
        folder / "results" / "streams" / f"{name.replace(', ', '-').replace('+ ', '').replace(' ', '-')}.json"
    )


def rules_of(found: Trial) -> dict[str, Any]:
    """Every baseline's metrics and settings, as tuned for each mode."""
    return {each.name: {"test": each.metrics, "settings": each.settings} for each in baselines(found)}


def tables(folder: Path) -> str:
    """Markdown: Eddy beside the best rule on every stream, then what each part of the score adds."""
    known = {
        name: json.loads(outcome_of(name, folder).read_text(encoding="utf-8"))
        for name in RUNS
        if outcome_of(name, folder).exists()
    }
    head = ["stream", "best rule", "its MRR@20", "Eddy, mean", "Eddy, each seed", "over the rule"]
    head += ["unseen: best rule", "unseen: Eddy, mean", "CPU min a run"]
    lines = [line(head), line(["---"] * len(head))]
    lines += [_stream(stream, known, len(head)) for stream in (*STREAMS, *UNTUNED)]
    ablation = ["stream", *PARTS]
    lines += ["", line(ablation), line(["---"] * len(ablation))]
    for stream in ABLATED:
        names = [f"{stream}, {part}" for part in list(PARTS)[:-1]] + [_seed(stream, SEEDS[0])]
        lines.append(line([stream, *(_mrr(known[name]) if name in known else "" for name in names)]))
    return "\n".join(lines)


def _mrr(outcome: dict[str, Any], mode: str = "all") -> str:
    return f"{outcome['test'][mode][JUDGE]:.4f}"


def _stream(stream: str, known: dict[str, Any], columns: int) -> str:
    rules = known.get(f"{stream}, rules")
    seeds = [known[_seed(stream, seed)] for seed in SEEDS if _seed(stream, seed) in known]
    if rules is None or not seeds:
        return line([f"{stream}: not run yet", *[""] * (columns - 1)])
    best = {mode: max(rules, key=lambda name: rules[name]["test"][mode][JUDGE]) for mode in MODES}
    of_rule = {mode: rules[best[mode]]["test"][mode][JUDGE] for mode in MODES}
    of_eddy = {mode: sum(each["test"][mode][JUDGE] for each in seeds) / len(seeds) for mode in MODES}
    return line(
        [
            stream, best["all"].replace("_", " "), f"{of_rule['all']:.4f}", f"**{of_eddy['all']:.4f}**",
            ", ".join(_mrr(each) for each in seeds), f"{of_eddy['all'] / of_rule['all'] - 1:+.1%}",
            f"{of_rule['unseen']:.4f}", f"{of_eddy['unseen']:.4f}",
            f"{sum(each['process_cpu_s'] for each in seeds) / len(seeds) / 60:.0f}",
        ]
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None, folder: Path = HERE) -> None:
    """The command line; README.md and results/ are those of `folder`."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.reproduce.streams", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("EDDY_STREAMS"), metavar="FOLDER")
    parser.add_argument("--only", choices=RUNS)
    parser.add_argument("--again", action="store_true")
    given = parser.parse_args(arguments)
    for name in [given.only] if given.only else RUNS:

        def make(checkpoint: Path, name: str = name) -> dict[str, Any]:
            if given.data is None:
                raise EddyError(
                    f"{name}: not run yet, and no streams to run it on; use --data FOLDER or set EDDY_STREAMS"
                )
            wanted = RUNS[name]
            found = make_trial(read_events(Path(given.data) / f"{wanted.stream}.parquet"), "prequential")
            return perform(name, wanted.run, found, checkpoint) if wanted.run else rules_of(found)

        keep(outcome_of(name, folder), given.again, make)
    replace_between(folder / "README.md", "streams", tables(folder))
    print(tables(folder))


if __name__ == "__main__":
    main()
