"""`eddy figures`: the diagrams of the cells, and what was measured on cells that are trained for it."""

from collections.abc import Callable
from pathlib import Path

from eddy.models.config import ModelConfig, TrainConfig
from eddy.models.evaluation.compare import Comparison, compare
from eddy.models.evaluation.diagnostics import TOP, memory, trajectory, typical_user, with_gains
from eddy.models.figures.cells import cells
from eddy.models.figures.drawing import save, style
from eddy.models.figures.measured import comparison, gradients, hidden_state
from eddy.models.figures.measured import memory as memory_figure
from eddy.models.figures.unrolled import unrolled
from eddy.models.logs.events import Events, Items
from eddy.models.rules import EVERY_EVENT, EventRules
from eddy.models.training.gradients import gradient_reach
from eddy.models.training.trainer import ProgressCallback

ALTERED = (
    ("U × 0.5, vanishes", 0.5, 1.0),
    ("as trained", 1.0, 1.0),
    ("U × 1.5, W × 0.01, explodes", 1.5, 0.01),
)
"""Recurrent and input gains at which the simple RNN's gradients vanish and explode."""

_EVENTS_SHOWN = 36


def draw_diagrams(folder: Path) -> list[Path]:
    """What needs no training: the network unrolled through time, and the cells. Returns the files, SVG
    and PNG.
    """
    with style():
        return [*save(unrolled(), folder, "unrolled"), *save(cells(), folder, "cells")]


def draw_measured(
    folder: Path,
    events: Events,
    items: Items,
    config: ModelConfig,
    settings: TrainConfig,
    rules: EventRules = EVERY_EVENT,
    user: str | None = None,
    progress: Callable[[str], ProgressCallback] | None = None,
) -> tuple[Comparison, list[Path]]:
    """Train every cell on the log (minutes each), measure and draw: gradients, memory, comparison, hidden
    state.

    The hidden state is that of `user`, or of one with about 36 events, in the GRU.
    """
    found = compare(events, "prequential", config, settings, rules, progress=progress)
    by_cell = {row.cell: row.trained.recommender for row in found.rows}
    reach = {row.cell: row.reach for row in found.rows}
    altered = [
        (name, gradient_reach(with_gains(by_cell["rnn"], recurrent, inputs), found.windows))
        for name, recurrent, inputs in ALTERED
    ]
    remembered = {cell: memory(recommender, found.windows) for cell, recommender in by_cell.items()}
    vocabulary = next(row.trained.vocabulary for row in found.rows if row.cell == "gru")
    path = trajectory(by_cell["gru"], vocabulary, events, rules, user or typical_user(events, _EVENTS_SHOWN))
    with style():
        drawn = {
            "gradients": gradients(reach, altered, settings.clip),
            "memory": memory_figure(remembered, TOP),
            "state": hidden_state(path, items.title),
            "comparison": comparison(found.rows, found.best_baseline(), found.mode),
        }
        return found, [file for name, made in drawn.items() for file in save(made, folder, name)]
