"""Small logs, and trainings of seconds on them."""

import numpy as np
import torch

from eddy.models.config import ModelConfig, TrainConfig
from eddy.models.logs.events import Events
from eddy.models.trained import Trained

SMALL = ModelConfig(hidden=16, dim=16, dropout=0.0, item_buckets=4, recent_window=10, transition_lags=3)
FAST = TrainConfig(epochs=2, batch=4, bptt_steps=8, gate_epochs=1, threads=1)


def log(user: np.ndarray, item: np.ndarray, value: np.ndarray | None = None, clock: bool = True) -> Events:
    """A log whose events are a minute apart."""
    n = len(user)
    return Events(
        user=user.astype(np.int32), item=item.astype(np.int32),
        timestamp=np.arange(n) * 60_000 + 1_370_000_000_000 if clock else np.zeros(n, np.int64),
        type=np.zeros(n, np.int16), value=np.full(n, np.nan, np.float32) if value is None else value,
        users=[f"u{i}" for i in range(user.max() + 1)], items=[f"i{i}" for i in range(item.max() + 1)],
        types=["rating"], clock=clock,
    )  # fmt: skip


def random_log(seed: int = 1, n: int = 400, users: int = 23, items: int = 31) -> Events:
    rng = np.random.default_rng(seed)
    return log(
        rng.zipf(1.5, n) % users, rng.integers(items, size=n), rng.integers(1, 11, n).astype(np.float32)
    )


def same(a: Trained, b: Trained) -> bool:
    pairs = zip(a.recommender.state_dict().values(), b.recommender.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)
