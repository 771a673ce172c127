"""Top-k over large catalogues: the project's path beside a plain float32 product and `torch.topk`, and how
much of the exact list it finds.

    python -m tests.bench.topk ITEMS ROUNDS [PRECISION]

Same queries, same number of torch threads, interleaved rounds; the plain way is given the best of three tile
sizes. Recall is against the exact float32 list, at 10 and at 20. Prints JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eddy.models.scoring.approximate_products import Precision
from eddy.stream.records.settings import load_settings
from tests.bench import parts
from tests.bench.versions import make_version

K = 20
TILES = (16, 64, 256)


def plain(query: Tensor, columns: Tensor, tile: int) -> Tensor:
    """[n, K] indices by product and torch.topk, `tile` rows at a time."""
    return torch.cat([torch.topk(rows @ columns, K).indices for rows in torch.split(query, tile)])


def recall(approximate: np.ndarray[tuple[int, int], np.dtype[np.int64]], exact: Tensor, k: int) -> float:
    """Mean share of the exact first k that are among the found first k."""
    truth = exact[:, :k].numpy()
    hits = [len(np.intersect1d(a[:k], b)) for a, b in zip(approximate, truth, strict=True)]
    return float(np.mean(hits)) / k


@torch.inference_mode()
def measure(items: int, rounds: int, precision: Precision) -> dict[str, object]:
    queries = max(64, min(4096, 100_000_000 // items // 2))
    settings = load_settings()
    with tempfile.TemporaryDirectory(prefix="eddy-bench-") as folder:
        version = make_version(Path(folder), "cell", items)
    scorer = parts.scorer(version, settings, precision)
    query, window = parts.queries(version, queries)
    columns = scorer.matrix.T.contiguous()
    exact = torch.topk(query.vector @ columns, K).indices
    speeds: dict[str, list[float]] = {}
    index = np.zeros((0, K), np.int64)
    parts.best(scorer, query, window, K)  # what is made once is not timed
    for _ in range(rounds):
        started = time.perf_counter()
        index = parts.best(scorer, query, window, K)
        speeds.setdefault("project", []).append(queries / (time.perf_counter() - started))
        for tile in TILES:
            started = time.perf_counter()
            plain(query.vector, columns, tile)
            speeds.setdefault(f"plain-{tile}", []).append(queries / (time.perf_counter() - started))
    best = max(
        (name for name in speeds if name != "project"), key=lambda name: statistics.median(speeds[name])
    )
    pairs = zip(speeds["project"], speeds[best], strict=True)
    return {
        "items": items,
        "queries": queries,
        "precision": precision,
        "taken": scorer.precision,
        "threads": torch.get_num_threads(),
        "project_per_s": round(statistics.median(speeds["project"]), 1),
        "plain_per_s": round(statistics.median(speeds[best]), 1),
        "plain": best,
        "ratio": round(statistics.median(ours / theirs for ours, theirs in pairs), 3),
        "recall_at_10": round(recall(parts.best(scorer, query, window, 10), exact, 10), 5),
        "recall_at_20": round(recall(index, exact, 20), 5),
    }


if __name__ == "__main__":
    precision: Any = sys.argv[3] if len(sys.argv) > 3 else "auto"
    print(json.dumps(measure(int(sys.argv[1]), int(sys.argv[2]), precision)))
