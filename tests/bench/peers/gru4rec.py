"""The official GRU4Rec code at work, for tests.bench.training_speed: python gru4rec.py CHECKOUT SPLIT

Trains with the checkout's own `fit`, and after every epoch ranks each user's last item among all that are new
to the user. Needs torch, numpy and pandas, nothing of Eddy. Settings: cross entropy, 256 units, batch 128,
mixed from the checkout's published parameter files, not tuned on these events.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

EPOCHS = 12
SETTINGS: dict[str, Any] = {
    "layers": [256], "batch_size": 128, "dropout_p_hidden": 0.2, "learning_rate": 0.07, "n_sample": 2048,
    "sample_alpha": 0.5, "logq": 1.0, "constrained_embedding": True, "loss": "cross-entropy",
}  # fmt: skip


def say(**values: Any) -> None:
    """A line to the parent."""
    print(json.dumps(values), flush=True)


def main(checkout: Path, split: Path) -> None:
    """See the module."""
    sys.path.insert(0, str(checkout))
    pandas: Any = importlib.import_module("pandas")
    official: Any = importlib.import_module("gru4rec_pytorch")
    torch.set_num_threads(1)
    torch.manual_seed(1)
    rows = np.load(split)
    order = np.argsort(rows["train_user"], kind="stable")
    log = pandas.DataFrame(
        {"SessionId": rows["train_user"][order], "ItemId": rows["train_item"][order], "Time": order}
    )
    model = official.GRU4Rec(n_epochs=EPOCHS, device=torch.device("cpu"), **SETTINGS)
    say(ready=True)
    began = time.process_time()
    epoch = 0

    def hear(text: str) -> None:
        nonlocal began, epoch
        if not str(text).startswith("Epoch"):
            return
        epoch += 1
        used = time.process_time() - began
        say(trained=epoch, cpu_s=used, events_per_cpu_s=epoch * len(log) / used)
        paused = time.process_time()
        say(ndcg=ndcg_at_10(model, rows))
        began += time.process_time() - paused

    official.print = hear  # fit has no callback, but a line for every epoch
    model.fit(log, compatibility_mode=False)  # its numpy initialisation is for numpy 1


@torch.no_grad()
def ndcg_at_10(model: Any, rows: Any) -> float:
    """Mean of 1 / log2(1 + rank) where the rank of a user's last item, among what is new to the user, is at
    most 10; ties count against it.
    """
    index = model.data_iterator.itemidmap
    number = np.full(int(rows["item"].max()) + 1, -1)
    number[index.index.to_numpy()] = index.to_numpy()
    users, items = rows["user"], number[rows["item"]]
    order = np.argsort(users, kind="stable")
    start = np.searchsorted(users[order], np.arange(users.max() + 2))
    network = model.model.eval()
    total = 0.0
    tested = rows["test"]
    for chunk in np.split(tested, range(512, len(tested), 512)):
        own = [items[order[start[user] : start[user + 1]]] for user in users[chunk]]
        length = np.array([len(sequence) - 1 for sequence in own])
        hidden = torch.zeros(len(own), model.layers[-1])
        for step in range(length.max()):
            running = np.flatnonzero((length > step) & np.array([s[min(step, len(s) - 1)] >= 0 for s in own]))
            at = torch.from_numpy(np.array([own[user][step] for user in running], np.int64))
            state = [hidden[running]]
            network.hidden_step(network.Wy(at), state, training=False)
            hidden[running] = state[0]
        scores = (hidden @ network.Wy.weight.T + network.By.weight.T).numpy()
        for row, sequence in enumerate(own):
            target = sequence[-1]
            if target < 0:
                continue
            score = scores[row, target]
            scores[row, sequence[:-1][sequence[:-1] >= 0]] = -np.inf
            scores[row, target] = -np.inf
            rank = 1 + int((scores[row] >= score).sum())
            total += 1 / np.log2(1 + rank) if rank <= 10 else 0.0
    network.train()
    return total / len(tested)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
