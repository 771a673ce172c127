"""What refreshing is worth: a stream is replayed, and now and then a refresh may replace the live version.

    python -m tests.reproduce.refreshes --stream FILE.parquet [--every-days 14] [--first-days 56]

All is as in `eddy refresh` but for Kafka: what is trained on, what is judged on, the gate, the last pass.
Each period is then ranked prequentially by the version that is live, by the first one, and by decayed
popularity. A period is kept in results/refreshes/; a run that was killed goes on after the last.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from eddy.models.config import DAY_MS
from eddy.models.evaluation.baselines import decayed_popularity
from eddy.models.evaluation.evaluate import DEFAULT_BATCH
from eddy.models.evaluation.judgement import LEAST_TARGETS, Window, decide, judge_candidate, window_trial
from eddy.models.evaluation.metrics import metrics
from eddy.models.evaluation.ranks import recommender_ranks
from eddy.models.logs.events import Events, read_events
from eddy.models.registry import Version, load, publish
from eddy.models.rules import EVERY_EVENT
from eddy.models.training.train import extend
from eddy.refresh.options import RefreshOptions, recipe_of
from eddy.refresh.windows import JUDGED_OF_NEW, NotYet, before, times_to_judge, until, window_at
from tests.reproduce.run import HERE

RESULTS = HERE / "results" / "refreshes"
REPORTED = ("recall@20", "mrr@20")
SERIES = {
    "refreshed": "refreshed", "first": "first version, never refreshed", "popularity": "decayed popularity",
}  # fmt: skip
STYLES = (("#0072b2", "-"), ("#d55e00", "--"), ("#666666", ":"))
"""Colours that the colour-blind tell apart (Okabe & Ito), and dashes that print in grey."""


@dataclass(frozen=True)
class Study:
    """One stream, and how it is refreshed."""

    events: Events
    every_ms: int
    options: RefreshOptions
    registry: Path


def run(study: Study, first_ms: int, periods: list[dict[str, Any]], keep: Any) -> None:
    """Go through the periods that are still to come; `keep` is called after each."""
    events, registry = study.events, study.registry
    start = int(events.timestamp[0]) + first_ms
    if not periods:
        recipe = recipe_of(study.options, None)
        trained = recipe.train(until(events, start), EVERY_EVENT, None)
        publish(registry, trained, {"training": recipe.training.to_dict()})
    ids = sorted(path.name for path in registry.glob("v*"))
    first = load(registry / ids[0])
    live = load(registry / periods[-1]["live"]) if periods else first
    number = len(periods)
    while start + number * study.every_ms < int(events.timestamp[-1]):
        begin = start + number * study.every_ms
        decision: dict[str, Any] = {}
        if number:
            live, decision = refreshed(study, until(events, begin), live)
        part = until(events, begin + study.every_ms)
        row = int(np.searchsorted(part.timestamp, begin, side="right"))
        if len(part) - row >= LEAST_TARGETS:
            periods.append(
                {"begin_ms": begin, "events": len(part) - row, "live": live.id, "decision": decision}
                | ranked(part, row, live, first)
            )
            keep(periods)
            print(line(periods[-1]), flush=True)
        number += 1


def refreshed(study: Study, events: Events, live: Version) -> tuple[Version, dict[str, Any]]:
    """The version that is live after a refresh, and the refresh's decision."""
    recipe = recipe_of(study.options, live)
    try:
        times = times_to_judge(events, [live], JUDGED_OF_NEW, EVERY_EVENT, "all")
    except NotYet as reason:
        return live, {"passed": False, "reason": str(reason)}
    window = window_at(events, times)
    trained = recipe.train(before(events, window.start), EVERY_EVENT, live)
    with TemporaryDirectory() as folder:
        candidate = publish(Path(folder), trained, {"training": recipe.training.to_dict()})
        judgement = judge_candidate(events, window, candidate, live, EVERY_EVENT, "all")
        verdict = decide(judgement, study.options.gate)
        decision = {"passed": verdict.passed, "reason": verdict.reason, "judgement": judgement.to_dict()}
        if not verdict.passed:
            return live, decision
        extended = extend(candidate, events, recipe.training)
    return publish(study.registry, extended, candidate.lineage), decision


def ranked(events: Events, row: int, live: Version, first: Version) -> dict[str, Any]:
    """Metrics of both versions and of decayed popularity on the events from this row on."""
    window = Window(max(0, row - (len(events) - row)), row)
    trial = window_trial(events, window, EVERY_EVENT)
    rows: dict[str, Any] = {}
    of_version = {version.id: version for version in (live, first)}
    ranks = {
        id_: recommender_ranks(
            trial, version.recommender, version.vocabulary, version.rules, DEFAULT_BATCH
        ).all
        for id_, version in of_version.items()
    }
    popularity = decayed_popularity(window_trial(events, window, EVERY_EVENT, tuning=True))
    for name, of_name in (
        ("refreshed", ranks[live.id]), ("first", ranks[first.id]), ("popularity", popularity.ranks["all"]),
    ):  # fmt: skip
        rows[name] = {metric: metrics(of_name)[metric] for metric in REPORTED}
    return rows


def line(period: dict[str, Any]) -> str:
    figures = ", ".join(
        f"{name} {period[name]['recall@20']:.4f} {period[name]['mrr@20']:.4f}"
        for name in ("refreshed", "first", "popularity")
    )
    return (
        f"{period['begin_ms']} {period['events']:,} events: {figures}; {period['decision'].get('reason', '')}"
    )


def table(periods: Sequence[dict[str, Any]]) -> str:
    """Markdown: means over the events of all periods after the first refresh."""
    later = periods[1:]
    events = np.array([period["events"] for period in later])
    went_live = sum(bool(period["decision"].get("passed")) for period in later)
    lines = [
        f"{len(later)} refreshes, {went_live} went live; {events.sum():,} events",
        "",
        "| | " + " | ".join(REPORTED) + " |",
        "| --- |" + " --- |" * len(REPORTED),
    ]
    for name, label in SERIES.items():
        values = [[period[name][metric] for period in later] for metric in REPORTED]
        means = " | ".join(f"{np.average(of_metric, weights=events):.4f}" for of_metric in values)
        lines.append(f"| {label} | {means} |")
    return "\n".join(lines)


def draw(periods: Sequence[dict[str, Any]], picture: Path) -> None:
    """The metrics over event time, as an SVG."""
    from eddy.models.figures.drawing import figure, style

    when = [datetime.fromtimestamp(period["begin_ms"] / 1000, UTC) for period in periods]
    passed = [(at, p) for at, p in zip(when, periods, strict=True) if p["decision"].get("passed")]
    with style():
        drawing = figure(10, 3.6)
        for axes, metric in zip(drawing.subplots(1, len(REPORTED)), REPORTED, strict=True):
            for (name, label), (colour, dashes) in zip(SERIES.items(), STYLES, strict=True):
                axes.plot(when, [p[name][metric] for p in periods], dashes, color=colour, label=label)
            axes.plot(
                [at for at, _ in passed], [p["refreshed"][metric] for _, p in passed], "o",
                color=STYLES[0][0], markersize=5, label="a new version went live",
            )  # fmt: skip
            axes.set_title({"recall@20": "Recall@20", "mrr@20": "MRR@20"}[metric])
            axes.set_ylim(bottom=0)
            axes.tick_params(axis="x", rotation=30)
        drawing.axes[0].legend(fontsize="small")
        drawing.savefig(picture, metadata={"Date": None})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--stream", type=Path, required=True)
    parser.add_argument("--every-days", type=float, default=14)
    parser.add_argument("--first-days", type=float, default=56)
    parser.add_argument("--set", dest="assignments", action="append", default=[])
    parser.add_argument("--from-scratch", action="store_true")
    parser.add_argument("--name", help="of the outcome's file [default: the stream's]")
    parser.add_argument("--picture", type=Path, help="Draw the outcome as SVG.")
    chosen = parser.parse_args(arguments)
    name = chosen.name or chosen.stream.stem
    file, registry = RESULTS / f"{name}.json", RESULTS / f".{name}"
    registry.mkdir(parents=True, exist_ok=True)
    options = RefreshOptions(assignments=tuple(chosen.assignments), from_scratch=chosen.from_scratch)
    study = Study(read_events(chosen.stream), round(chosen.every_days * DAY_MS), options, registry)
    periods: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    run(
        study, round(chosen.first_days * DAY_MS), periods,
        lambda done: file.write_text(json.dumps(done, indent=1)),
    )  # fmt: skip
    print(table(periods))
    if chosen.picture:
        draw(periods, chosen.picture)


if __name__ == "__main__":
    main()
