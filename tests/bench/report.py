"""The summary, the table and the plot that are made of the figures.

Every ratio is a median over rounds of ratios inside one round, or of medians of one run.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

from eddy.models.scoring.approximate_products import Precision
from tests.bench.plan import PEERS
from tests.bench.stages import allowed, rows_per_event
from tests.bench.throughput import ratio
from tests.bench.workload import Workload

HERE = Path(__file__).parent
BEGIN, END = "<!-- results: written by tests/bench/report.py -->", "<!-- end of results -->"
CHECKPOINT_S = 0.2
RECALL = 0.99
FINDINGS = {
    "fetch": 1.0, "fetch_decode": 0.431, "cell_bare": 0.282, "score_cell_float32": 0.060,
    "encode_produce": 0.229, "changelog_rows": 0.155,
}  # fmt: skip
"""Stages relative to fetch as measured before the project began, where that was measured."""

Figures = dict[str, Any]


class Origin(NamedTuple):
    """Of what a section's figures are."""

    commit: str
    day: str
    """as in 2026-11-27"""
    load: float
    """of the machine before the run"""


def origin_of(machine: Figures) -> Origin:
    """The origin of figures that were measured on this machine, as `describe` gives it."""
    return Origin(machine["commit"], machine["date"][:10], machine["load_before"][0])


def medians(figures: Figures) -> dict[str, float]:
    """Median of each stage over rounds; empty when they were not measured."""
    return {name: statistics.median(rates) for name, rates in (figures.get("stages") or {}).items()}


def _catalogue(figures: Figures, items: int, precision: str) -> Figures:
    rows = figures.get("topk") or []
    return next((row for row in rows if (row["items"], row["precision"]) == (items, precision)), {})


def reduced_precision(figures: Figures) -> Precision | None:
    """The precision that "auto", the default, takes on this machine at 10,000 items; None if that is float32,
    or if its recall@10 is below RECALL.
    """
    row = _catalogue(figures, 10_000, "auto")
    reduced = row and row["taken"] != "float32" and row["recall_at_10"] >= RECALL
    return row["taken"] if reduced else None


def _best(figures: Figures, score: str, emit: str) -> tuple[str, str] | None:
    """(run, precision) of the fastest run of this kind at 4 partitions and one worker."""
    runs = figures.get("throughput") or {}
    names = {f"eddy-{score}-{emit}-{p}": p for p in ("float32", reduced_precision(figures)) if p}
    measured = {name: p for name, p in names.items() if name in runs}
    if not measured:
        return None
    name = max(measured, key=lambda run: float(runs[run]["median"]))
    return name, measured[name]


def share(figures: Figures, score: str, cell: str) -> float | None:
    """Measured rate of emission `every` as a share of what its stages allow one after another."""
    best, stages = _best(figures, score, "every"), medians(figures)
    if best is None or not stages:
        return None
    rate = float(figures["throughput"][best[0]]["median"])
    user, _ = Workload().draw(200_000)
    per_event = rows_per_event(user, rate * CHECKPOINT_S)
    return rate / allowed(stages, score, best[1], per_event, cell)


def _ratio(figures: Figures, ours: tuple[str, str] | None, peer: str) -> float | None:
    try:
        return ratio(figures["throughput"], ours[0], peer) if ours else None
    except (KeyError, TypeError, ValueError):
        return None


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)


def summary(machine: Figures, figures: Figures, origins: Mapping[str, Origin]) -> Figures:
    """The figures that have targets, null where they were not measured, and others that explain them."""
    cell, whole = _best(figures, "cell", "every"), _best(figures, "whole", "every")
    off, stages = _best(figures, "whole", "off"), medians(figures)
    half = [row for row in figures.get("freshness") or [] if row["load"] == 0.5]
    fresh = next((row for row in half if "whole" in row["run"]), half[0] if half else {})
    large = _catalogue(figures, 100_000, "auto")
    off_rate = float(figures["throughput"][off[0]]["median"]) if off else None
    return {
        "ratio_faust": _rounded(_ratio(figures, cell, "faust_textbook")),
        "ratio_quix": _rounded(_ratio(figures, cell, "quix_stateful")),
        "ratio_handwritten": _rounded(_ratio(figures, cell, "handwritten")),
        "share_of_allowed": _rounded(share(figures, "cell", "cell_cell")),
        "off_share_of_decode": _rounded(off_rate / stages["fetch_decode"] if off_rate and stages else None),
        "p50_ms": fresh.get("p50_ms"),
        "p99_ms": fresh.get("p99_ms"),
        "topk100k_ratio": large.get("ratio"),
        "topk100k_recall": large.get("recall_at_20"),
        "memory_growth": (figures.get("memory") or {}).get("growth"),
        "quick": machine["quick"],
        "commits": {section: origin.commit for section, origin in origins.items()},
        "explained_by": {
            "every": cell,
            "off": off,
            "freshness": fresh,
            "freshness_of_peers": [row for row in half if row["run"] in PEERS],
            "memory_events": (figures.get("memory") or {}).get("events"),
            "share_of_allowed_with_bare_cell": _rounded(share(figures, "cell", "cell_bare")),
            "whole_score": {
                "every": whole,
                "ratio_faust": _rounded(_ratio(figures, whole, "faust_textbook")),
                "ratio_quix": _rounded(_ratio(figures, whole, "quix_stateful")),
                "ratio_handwritten": _rounded(_ratio(figures, whole, "handwritten")),
                "share_of_allowed": _rounded(share(figures, "whole", "cell_whole")),
            },
            "load_before": machine["load_before"],
        },
    }


def table(figures: Figures, result: Figures) -> str:
    """All figures as Markdown."""
    parts = [_targets(result)]
    runs = figures.get("throughput") or {}
    if runs:
        rows = [
            [name, f"{run['median']:,.0f}", _times(figures, name), _cores(run), str(len(run["rounds"]))]
            for name, run in runs.items()
        ]
        parts.append(_markdown(["program", "events/s", "× handwritten", "cores", "rounds"], rows))
    stages = medians(figures)
    if stages:
        rows = [
            [name, f"{rate:,.0f}", f"{rate / stages['fetch']:.3f}", f"{FINDINGS.get(name, '')}"]
            for name, rate in stages.items()
        ]
        parts.append(_markdown(["stage alone", "per s", "÷ fetch", "÷ fetch, before the project"], rows))
    for name, columns in (
        (
            "freshness",
            ("run", "load", "rate", "p50_ms", "p99_ms", "p999_ms", "answers", "missing", "idle_cores"),
        ),
        (
            "topk",
            (
                "items",
                "precision",
                "taken",
                "project_per_s",
                "plain_per_s",
                "ratio",
                "recall_at_10",
                "recall_at_20",
            ),
        ),
        (
            "growth",
            ("users", "items", "hidden", "off_per_s", "every_per_s", "bytes_per_user", "rss_rows", "rss_end"),
        ),
    ):
        if figures.get(name):
            rows = [[_cell(row.get(column, "")) for column in columns] for row in figures[name]]
            parts.append(_markdown(list(columns), rows))
    parts += _membership(figures.get("membership") or {})
    memory = figures.get("memory")
    if memory:
        parts.append(
            f"Memory over {memory['events']:,} events: {memory['growth']:+.1%}, "
            f"{memory['rss_end'] / 1e6:,.0f} MB at the end.\n"
        )
    return "\n".join(parts)


def _membership(figures: Figures) -> list[str]:
    """The tables of the section "membership", goals beside them in their headings."""
    parts = []
    if figures.get("rebalances"):
        header = ["a worker …", "rows", "moved / had to", "gap s, stay (≤ 1)", "move (≤ 3)"]
        header += ["delay s, stay", "move", "p99 ms, stay", "move", "late answers for s", "load"]
        rows = []
        for row in figures["rebalances"]:
            stay, move = row["stay"], row.get("move", {})
            pairs = [of.get(name) for name in ("gap_s", "delay_s", "p99_ms") for of in (stay, move)]
            moved = f"{row['moved']} / {row['had_to_move']}" if "moved" in row else ""
            ends = [row.get("late_for_s"), row.get("load_average")]
            rows.append(
                [row["change"], f"{row['rows']:,}", moved]
                + ["" if value is None else _cell(value) for value in (*pairs, *ends)]
            )
        parts.append(_markdown(header, rows))
    if figures.get("swaps"):
        header = ["rows", "items", "hidden", "events/s", "gap ms, calm", "swap (≤ 300)", "p99 ms"]
        header += ["encoded", "rows/s", "bare cell, rows/s", "share (≥ .5)", "load"]
        names = ["rows", "items", "hidden", "rate", "calm_gap_ms", "gap_ms", "p99_ms", "encoded_rows"]
        names += ["rows_per_s", "bare_rows_per_s", "share_of_bare", "load_average"]
        parts.append(_markdown(header, [[_cell(row[name]) for name in names] for row in figures["swaps"]]))
    many = figures.get("partitions")
    if many:
        parts.append(
            f"{many['partitions']} empty partitions on one worker: ready after {many['ready_s']} s "
            f"(goal 10), {many['sockets']} sockets, {many['rss'] / 1e6:,.0f} MB; "
            f"with a second worker both ready after {_cell(many['shared_s'])} s.\n"
        )
    return parts


def _targets(result: Figures) -> str:
    wanted = {
        "ratio_faust": "≥ 25", "ratio_quix": "≥ 12", "ratio_handwritten": "≥ 1, aim 1.5",
        "share_of_allowed": "≥ .70", "off_share_of_decode": "≥ .30", "p50_ms": "≤ 20", "p99_ms": "≤ 80",
        "topk100k_ratio": "≥ 2.5", "topk100k_recall": "≥ .99", "memory_growth": "≤ .10",
    }  # fmt: skip
    rows = [[name, _cell(result[name]), target] for name, target in wanted.items()]
    return _markdown(["figure", "measured", "target"], rows)


def _times(figures: Figures, name: str) -> str:
    value = _ratio(figures, (name, ""), "handwritten")
    return "" if value is None else f"{value:.2f}"


def _cores(run: Figures) -> str:
    return f"{statistics.median(measured['cpu'] for measured in run['rounds'].values()):.2f}"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else "not measured" if value is None else str(value)


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def plot(figures: Figures, file: Path) -> None:
    """Throughput with the range of its rounds, and the stages, both on logarithmic axes."""
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "eddy"
    from matplotlib import pyplot

    runs, stages = figures.get("throughput") or {}, medians(figures)
    height = 1.2 + 0.28 * max(len(runs), len(stages))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, height), layout="constrained")
    names = sorted(runs, key=lambda name: float(runs[name]["median"]))
    values = [runs[name]["median"] for name in names]
    rates = [[measured["rate"] for measured in runs[name]["rounds"].values()] for name in names]
    spread = [
        [max(value - min(seen), 0) for value, seen in zip(values, rates, strict=True)],
        [max(max(seen) - value, 0) for value, seen in zip(values, rates, strict=True)],
    ]
    colours = ["#2a6f97" if name.startswith("eddy") else "#b5651d" for name in names]
    left.barh(names, values, xerr=spread, color=colours, ecolor="#555555", capsize=2)
    left.set(xscale="log", xlabel="events/s, whole programs (median and range of rounds)")
    names = sorted(stages, key=lambda name: stages[name])
    right.barh(names, [stages[name] for name in names], color="#7a9e7e")
    right.set(xscale="log", xlabel="per second, each stage alone")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.bar_label(axes.containers[-1], fmt=lambda value: f"{value:,.0f}", padding=14, fontsize=8)
        axes.set_xlim(right=axes.get_xlim()[1] * 3)
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)


def describe_origins(origins: Mapping[str, Origin]) -> str:
    """Which sections were measured when, those of one run together."""
    runs: dict[Origin, list[str]] = {}
    for section, origin in origins.items():
        runs.setdefault(origin, []).append(section)
    return "; ".join(
        f"{', '.join(sections)}: commit {origin.commit}, {origin.day}, load before the run {origin.load}"
        for origin, sections in runs.items()
    )


def write_readme(machine: Figures, figures: Figures, origins: Mapping[str, Origin], result: Figures) -> None:
    """Replace the text between the markers in README.md, and the plot."""
    plot(figures, HERE / "results" / "throughput.svg")
    form = "The short form (QUICK=1)" if machine["quick"] else "The full form"
    flags = ", ".join(machine["flags"])
    head = (
        f"{form}; {machine['cpu']}, {machine['cores']} cores ({flags}); torch "
        f"{machine['packages']['torch']}. Of {describe_origins(origins)}."
        "\n\n![Throughput and stages](results/throughput.svg)\n"
    )
    readme = HERE / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    body = f"{BEGIN}\n\n{head}\n{table(figures, result)}\n{END}"
    readme.write_text(before + body + after, encoding="utf-8")
