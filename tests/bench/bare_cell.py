"""The bare cell on the windows that the rows of `crowd` have.

    python -m tests.bench.bare_cell VERSION_FOLDER ROWS

Prints rows per second: the cell of the version, inputs made ready and packed before, 4,096 rows at a time,
on one thread, as a worker's engine has it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from eddy.models.registry import Version, load
from eddy.models.tensors import Inputs
from eddy.stream.kernels.waves import pack
from tests.bench.window_rows import LEAST_EVENTS, MOST_EVENTS

ROWS_AT_ONCE = 4096
ROUNDS = 3


@torch.inference_mode()
def rows_per_second(version: Version, rows: int) -> float:
    """The best of some rounds."""
    # 1. Windows as packed inputs.
    torch.set_num_threads(1)
    rng, recommender = np.random.default_rng(0), version.recommender.eval()
    batches = []
    for start in range(0, rows, ROWS_AT_ONCE):
        length = rng.integers(LEAST_EVENTS, MOST_EVENTS + 1, min(ROWS_AT_ONCE, rows - start))
        waves = pack(np.cumsum(length) - length, length)
        n = len(waves.event)
        inputs = Inputs(
            item=torch.from_numpy(rng.integers(0, recommender.items, n)),
            type=torch.zeros(n, dtype=torch.int64),
            negative=torch.zeros(n, dtype=torch.bool),
            gap_ms=torch.full((n,), 60_000.0),
        )
        state = torch.zeros(len(length), recommender.state_size)
        batches.append((inputs, torch.from_numpy(waves.batch_sizes), state))
    # 2. The cell.
    recommender.packed(*batches[0])
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for batch in batches:
            recommender.packed(*batch)
        seconds.append(time.perf_counter() - started)
    return rows / min(seconds)


if __name__ == "__main__":
    print(json.dumps(rows_per_second(load(Path(sys.argv[1])), int(sys.argv[2]))))
