"""Markdown tables of outcomes, between two marks in a file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
METRICS = ("hr@10", "ndcg@10", "mrr@10", "recall@20")

MEASURED = {
    "popularity": ((0.0369, 0.0180, 0.0124, 0.0680), (0.0162, 0.0079, 0.0055, 0.0402)),
    "Markov, last 20 items": ((0.2661, 0.1534, 0.1190, 0.3593), (0.2248, 0.1284, 0.0990, 0.3149)),
    "GRU4Rec, official code, cross entropy": (
        (0.2841, 0.1676, 0.1319, 0.3829), (0.2485, 0.1438, 0.1117, 0.3379),
    ),
    "GRU-128, plain truncated BPTT": ((0.3144, 0.1809, 0.1402, 0.4272), (0.2454, 0.1365, 0.1033, 0.3543)),
}  # fmt: skip
"""References measured on the same file by other programs: mode unseen, mode all."""

PUBLISHED = {
    "SASRec+ (Klenitskiy & Vasilev 2023)": (0.3159, 0.1857),
    "Mamba4Rec (re-run by others)": (0.3005, 0.1697),
    "HSTU": (0.3097, 0.1720),
    "HSTU-large": (0.3294, 0.1893),
    "HSTU-large + mixture of logits": (0.3412, 0.1979),
}
"""Mode unseen: HR@10, NDCG@10."""


def table(outcomes: Sequence[Path]) -> str:
    """Markdown: a line for each outcome, whether there yet or not, then the references."""
    names = ("HR@10", "NDCG@10", "MRR@10", "R@20")
    head = [
        "model",
        *(f"{name} unseen" for name in names),
        *(f"{name} all" for name in names),
        "network alone: HR@10, NDCG@10 unseen",
        "CPU min",
        "commit",
    ]
    lines = [line(head), line(["---"] * len(head))]
    for path in outcomes:
        if path.exists():
            lines.append(_outcome(json.loads(path.read_text(encoding="utf-8"))))
        else:
            lines.append(line([f"{path.stem}: not run yet", *[""] * (len(head) - 1)]))
    for name, modes in MEASURED.items():
        lines.append(line([f"*{name}*", *(f"{value:.4f}" for mode in modes for value in mode), *[""] * 3]))
    for name, values in PUBLISHED.items():
        lines.append(line([f"*{name}*", *(f"{value:.4f}" for value in values), *[""] * (len(head) - 3)]))
    return "\n".join(lines)


def _outcome(found: dict[str, Any]) -> str:
    values = [f"{found['test'][mode][metric]:.4f}" for mode in ("unseen", "all") for metric in METRICS]
    alone = found.get("test_of_network_alone", {}).get("unseen")
    values.append(f"{alone['hr@10']:.4f}, {alone['ndcg@10']:.4f}" if alone else "")
    return line([f"**{found['name']}**", *values, f"{found['network_cpu_s'] / 60:.0f}", found["commit"]])


def line(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def write_table(file: Path, outcomes: Sequence[Path]) -> None:
    """Put the table between the marks of `file`."""
    replace_between(file, "table", table(outcomes))


def replace_between(file: Path, name: str, text: str) -> None:
    """Put `text` between the two marks of this name in `file`."""
    begin, end = BEGIN.replace("table", name), END.replace("table", name)
    before, rest = file.read_text(encoding="utf-8").split(begin)
    after = rest.split(end)[1]
    file.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
