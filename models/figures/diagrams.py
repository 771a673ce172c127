"""`eddy figures`: the diagrams of the cells, and figures of what is measured on a trained version."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from eddy.models.config import TrainConfig
from eddy.models.evaluation.diagnostics import (
    has_recurrent_weights,
    latest_windows,
    memory,
    trajectory,
    typical_user,
    with_gains,
)
from eddy.models.figures.cells import cells
from eddy.models.figures.drawing import save_figure, style
from eddy.models.figures.measured import gradients_figure, hidden_state_figure, memory_figure
from eddy.models.figures.unrolled import unrolled
from eddy.models.logs.events import Events
from eddy.models.registry import Version
from eddy.models.training.gradients import gradient_reach

UNALTERED = (1.0, 1.0)
GAINS = (("U × 0.5", (0.5, 1.0)), ("as trained", UNALTERED), ("U × 1.5, W × 0.01", (1.5, 0.01)))
"""Recurrent and input gains of the altered cells: in a simple RNN with the first gradients vanish, with the
last they explode.
"""

_EVENTS_SHOWN = 36
"""Columns of the hidden state's heat map, about: as many as the names under it leave room for. Of users who
all have many more, twice as many are shown, the latest: the names of thousands take minutes to draw.
"""


def draw_diagrams(folder: Path) -> list[Path]:
    """Draw what needs no training: the network unrolled through time, and the cells.

    Returns the files, an SVG and a PNG of each figure.
    """
    with style():
        return [*save_figure(unrolled(), folder, "unrolled"), *save_figure(cells(), folder, "cells")]


def draw_measured(folder: Path, version: Version, events: Events, titles: Mapping[str, str]) -> list[Path]:
    """Draw `measured_figures`. Returns the files, an SVG and a PNG of each figure."""
    with style():
        drawn = measured_figures(version, events, titles)
        return [file for name, figure in drawn.items() for file in save_figure(figure, folder, name)]


def measured_figures(version: Version, events: Events, titles: Mapping[str, str]) -> dict[str, Figure]:
    """Measure a version on a log: how far gradients reach, how long an event matters, and how the hidden
    state of a user with about 36 events moves.

    titles: names of items by id, where they are known.
    Errors: EddyError when no user of the log has an event before a target.
    """
    recommender, vocabulary, rules = version.recommender, version.vocabulary, version.rules
    cell = recommender.config.cell
    windows = latest_windows(events, vocabulary, rules)
    reach = gradient_reach(recommender, windows)
    altered = [
        (name, reach if gains == UNALTERED else gradient_reach(with_gains(recommender, *gains), windows))
        for name, gains in (GAINS if has_recurrent_weights(recommender) else ())
    ]
    clip = version.lineage.get("training", {}).get("clip", TrainConfig.clip)
    user = typical_user(events, rules, _EVENTS_SHOWN)
    path = trajectory(recommender, vocabulary, events, rules, user).latest(2 * _EVENTS_SHOWN)
    return {
        "gradients": gradients_figure(cell, reach, altered, clip),
        "memory": memory_figure(cell, memory(recommender, windows)),
        "state": hidden_state_figure(path, titles),
    }
