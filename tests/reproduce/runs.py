"""The runs of the accuracy table: MovieLens-1M, leave-one-out. All share PLAIN and TRAINING but for what is
named.
"""

from dataclasses import dataclass, replace

from eddy.models.config import ModelConfig, TrainConfig

PLAIN = ModelConfig(
    hidden=128,
    dim=128,
    dropout=0.2,
    item_buckets=8,
    time_gaps=False,
    half_lives_ms=(),
    transition_lags=20,
    successors=64,
)
"""The log has no clock: neither time gaps nor moving popularity mean anything."""

TRAINING = TrainConfig(
    epochs=6, bptt_steps=64, batch=16, learning_rate=3e-3, sampled=768, unseen=True, average=0.999,
    item_dropout=0.0, whole=0.1, threads=1, patience=2,
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One training and what it is judged by."""

    config: ModelConfig
    settings: TrainConfig


def _best(seed: int = 1, epochs: int = 16) -> Run:
    settings = replace(TRAINING, epochs=epochs, learning_rate=4e-3, seed=seed)
    return Run(replace(PLAIN, cell="mingru", layers=2), settings)


RUNS = {
    **{cell: Run(replace(PLAIN, cell=cell), TRAINING) for cell in ("rnn", "lstm", "gru", "esn", "mingru")},
    **{f"best, {epochs} epochs": _best(epochs=epochs) for epochs in (3, 10)},
    **{f"best, seed {seed}": _best(seed) for seed in (1, 2, 3)},
}
