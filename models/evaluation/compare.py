"""All cells compared on one log: accuracy, size, speed of training and of stepping, reach of the gradient."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from eddy.models.config import CELLS, ModelConfig, TrainConfig
from eddy.models.evaluation.baselines import Baseline, baselines
from eddy.models.evaluation.diagnostics import latest_windows
from eddy.models.evaluation.evaluate import ModelMetrics, judge
from eddy.models.evaluation.metrics import Metrics
from eddy.models.evaluation.protocols import Mode, Protocol, make_trial, require_mode, require_reported
from eddy.models.logs.events import Events
from eddy.models.network.recommender import Recommender
from eddy.models.rules import EVERY_EVENT, EventRules
from eddy.models.tensors import Inputs
from eddy.models.trained import Trained
from eddy.models.training.gradients import GradientReach, gradient_reach
from eddy.models.training.train import train, vocabulary_of
from eddy.models.training.trainer import ProgressCallback

STEP_USERS = 2048
"""Users of a step whose speed is measured."""


@dataclass(frozen=True)
class CellRow:
    """One trained cell."""

    cell: str
    trained: Trained
    judged: ModelMetrics
    reach: GradientReach
    mode: Mode
    step_events_per_s: float

    @property
    def metrics(self) -> Metrics:
        """The reported metrics in the comparison's mode."""
        return self.judged.reported[self.mode]

    @property
    def gradient_horizon(self) -> int:
        """Events until the gradient has fallen to a hundredth; the windows' length when it never does."""
        return self.reach.horizon()

    @property
    def state_bytes(self) -> int:
        """Bytes of a user's state, float32."""
        return 4 * self.trained.recommender.state_size

    @property
    def cell_parameters(self) -> int:
        """Learned numbers of the cell itself: items, types and the score have the same with every cell."""
        return sum(weight.numel() for weight in self.trained.recommender.cell.parameters())

    @property
    def training_events_per_s(self) -> float:
        """Events per second of training, the median over epochs."""
        return float(np.median([point["events_per_s"] for point in self.trained.metrics["curve"]]))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "cell": self.cell,
            "mode": self.mode,
            "metrics": self.judged.reported,
            "gradient_horizon": self.gradient_horizon,
            "state_bytes": self.state_bytes,
            "cell_parameters": self.cell_parameters,
            "training_events_per_s": self.training_events_per_s,
            "step_events_per_s": self.step_events_per_s,
        }


@dataclass(frozen=True)
class Comparison:
    """All cells on the same events, and the baselines on these."""

    protocol: Protocol
    mode: Mode
    rows: list[CellRow]
    baselines: list[Baseline]

    def best_baseline(self, metric: str = "mrr@20") -> tuple[str, float]:
        """Name and value of the baseline that is highest in a metric."""
        best = max(self.baselines, key=lambda baseline: baseline.metrics[self.mode][metric])
        return best.name, best.metrics[self.mode][metric]

    def table(self, metrics: Sequence[str] = ("mrr@20", "recall@20", "hr@10", "ndcg@10")) -> str:
        """Plain text with a line for each cell, and the best baseline."""
        columns = [*metrics, "horizon", "bytes/user", "cell weights", "train ev/s", "step ev/s"]
        lines = [
            f"{self.protocol}, mode {self.mode}",
            " ".join(["cell", *(f"{name:>12}" for name in columns)]),
        ]
        for row in self.rows:
            numbers = (row.training_events_per_s, row.step_events_per_s)
            whole = (row.gradient_horizon, row.state_bytes, row.cell_parameters, *map(round, numbers))
            cells = [f"{row.metrics[name]:12.4f}" for name in metrics] + [f"{value:12,}" for value in whole]
            lines.append(" ".join([f"{row.cell:4}", *cells]))
        name, value = self.best_baseline()
        return "\n".join([*lines, f"best baseline: {name}, mrr@20 {value:.4f}"])


def compare(
    events: Events,
    protocol: Protocol,
    config: ModelConfig,
    settings: TrainConfig,
    rules: EventRules = EVERY_EVENT,
    mode: Mode = "all",
    cells: Sequence[str] = CELLS,
    progress: Callable[[str], ProgressCallback] | None = None,
) -> Comparison:
    """Train each cell with the same settings on the protocol's training part, and judge it: minutes per cell.

    progress: makes, from a cell's name, the callback that follows its training.

    Errors: EddyError, before anything is trained, for settings that one of the cells cannot have, and for
    events that cannot be judged or have no window to measure gradients on; and those of `train`.
    """
    require_mode(mode)
    trial = make_trial(events, protocol, rules)
    require_reported(trial, mode)
    config_of = {cell: replace(config, cell=cell) for cell in cells}
    training_part = trial.training_part
    vocabulary, _ = vocabulary_of(training_part, config, rules)
    measured = latest_windows(events, vocabulary, rules)
    rows = []
    for cell in cells:
        trained = train(training_part, config_of[cell], settings, rules, progress(cell) if progress else None)
        rows.append(
            CellRow(
                cell=cell,
                trained=trained,
                judged=judge(trial, trained, rules),
                reach=gradient_reach(trained.recommender, measured),
                mode=mode,
                step_events_per_s=step_speed(trained.recommender),
            )
        )
    return Comparison(protocol, mode, rows, baselines(trial))


@torch.inference_mode()
def step_speed(recommender: Recommender, seconds: float = 1.0) -> float:
    """Events per second of the cell's step alone, STEP_USERS users at a time, as the stream steps waves."""
    inputs = Inputs(
        torch.randint(recommender.items, (STEP_USERS,)),
        torch.zeros(STEP_USERS, dtype=torch.int64),
        torch.zeros(STEP_USERS, dtype=torch.bool),
        torch.full((STEP_USERS,), 60_000),
    )
    state = recommender.step(inputs, recommender.initial(STEP_USERS))
    began, steps = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - began) < seconds:
        state = recommender.step(inputs, state)
        steps += 1
    return steps * STEP_USERS / elapsed
