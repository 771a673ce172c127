"""Figures of what was measured on trained recommenders: gradients, memory, a user's hidden state."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from numpy.typing import NDArray

from eddy.models.evaluation.compare import LAGS, CellRow
from eddy.models.evaluation.diagnostics import Trajectory
from eddy.models.figures.drawing import CELL_COLOURS, CELL_NAMES, FAINT, GRADIENT, figure
from eddy.models.training.gradients import GradientReach

_FAR_BELOW = 1e-7
_LEAST_CHANGE = 5e-4


def gradients(
    trained: Mapping[str, GradientReach], altered: Sequence[tuple[str, GradientReach]], clip: float
) -> Figure:
    """Left: how fast the gradient fades in each trained cell. Right: one cell with other weights, so that it
    vanishes or explodes, and what clipping to a norm does to it.
    """
    drawn = figure(11, 4.7)
    left, right = drawn.subplots(1, 2, sharey=True)
    for cell, reach in trained.items():
        lag, colour = np.arange(len(reach.norm)), CELL_COLOURS[cell]
        low, middle, high = reach.norm.T
        left.fill_between(lag, low, high, color=colour, alpha=0.12, linewidth=0)
        left.plot(lag, middle, color=colour, linewidth=2.2)
        left.text(lag[-1] + 0.8, middle[-1], CELL_NAMES[cell], color=colour, va="center", weight="bold")
    left.set(
        title="As trained: median and middle 80 % of users",
        xlabel="lag k: events before the target",
        xlim=(0, len(lag) * 1.27),
        ylabel="$\\|\\partial \\mathcal{L}_t\\, /\\, \\partial h_{t-k}\\|$",
        yscale="log",
        ylim=(_FAR_BELOW, 1e3),
    )
    shades = mpl.colormaps["plasma"](np.linspace(0.1, 0.75, len(altered)))
    for (name, reach), shade in zip(altered, shades, strict=True):
        factor = reach.clipped(clip)
        right.plot(lag, reach.mean, color=shade, linewidth=1.6, linestyle=(0, (4, 2)))
        right.plot(
            lag, reach.mean * factor, color=shade, linewidth=2.2, label=f"{name}: norm {reach.total:.2g}"
        )
    right.set(
        title=f"RNN, solid: clipped to norm {clip:g}, dashed: not", xlabel="lag k: events before the target",
        xlim=(0, None),
    )  # fmt: skip
    right.legend(frameon=False, fontsize=10, loc="upper left")
    for axes in (left, right):
        axes.title.set_fontsize(11.5)
        axes.yaxis.set_minor_formatter(NullFormatter())
    return drawn


def memory(trained: Mapping[str, NDArray[np.float64]], top: int) -> Figure:
    """How much of the top list still changes when an event k events back is exchanged for another."""
    drawn = figure(11, 4.2)
    axes = drawn.add_subplot()
    for cell, changed in trained.items():
        axes.plot(
            np.arange(len(changed)), changed, color=CELL_COLOURS[cell], linewidth=2.2, label=CELL_NAMES[cell]
        )
    axes.set(
        title=f"Memory: share of the top {top} that changes when one event is exchanged for another",
        xlabel="how many events ago it was",
        xlim=(0, None),
        yscale="log",
        ylim=(_LEAST_CHANGE, 0.3),
    )
    axes.title.set_fontsize(11.5)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.legend(frameon=False, ncols=len(trained), loc="upper right")
    return drawn


def hidden_state(path: Trajectory, titles: Mapping[str, str], named: int = 12) -> Figure:
    """A user's hidden state as a heat map over events; the titles that moved it most are named."""
    drawn = figure(11, 7.2)
    above, map_axes = drawn.subplots(2, 1, sharex=True, height_ratios=(1, 3.2))
    steps = np.arange(len(path.items))
    moved = np.argsort(-path.move)[:named]
    colours = np.where(np.isin(steps, moved), GRADIENT, "#c3cbd3")
    above.bar(steps, path.move, color=colours, width=0.72)
    above.set(ylabel="$\\|h' - h\\|$")
    above.grid(axis="x", visible=False)
    first, last = (datetime.fromtimestamp(path.timestamp[at] / 1000, UTC) for at in (0, -1))
    above.set_title(
        f"Hidden state of user {path.user}, {first:%-d %b %Y} to {last:%-d %b %Y}: {len(steps)} events,"
        f" the {len(moved)} that moved it most in red", fontsize=11.5,
    )  # fmt: skip
    deviation = path.hidden - path.hidden.mean(axis=0)
    shown = deviation[:, _by_likeness(deviation)].T
    limit = float(np.quantile(np.abs(shown), 0.99))
    image = map_axes.imshow(
        shown, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest"
    )
    map_axes.grid(visible=False)
    map_axes.set(ylabel=f"{path.hidden.shape[1]} hidden units")
    map_axes.set_yticks([])
    map_axes.set_xticks(
        steps, [_short(titles.get(item, item)) for item in path.items], rotation=58, ha="right"
    )
    for step, tick in zip(steps, map_axes.get_xticklabels(), strict=True):
        tick.set(fontsize=8.5, rotation_mode="anchor", color=GRADIENT if step in moved else FAINT)
    drawn.colorbar(image, ax=map_axes, pad=0.01, fraction=0.025, label="$h$ minus its mean over these events")
    return drawn


def _by_likeness(deviation: NDArray[np.float32]) -> NDArray[np.int64]:
    """Units by their angle between the two main directions: what moves together stands together."""
    _, _, directions = np.linalg.svd(deviation, full_matrices=False)
    return np.argsort(np.arctan2(directions[1], directions[0]))


def _short(title: str, most: int = 30) -> str:
    return title if len(title) <= most else title[: most - 1].rstrip() + "…"


def comparison(
    rows: Sequence[CellRow], baseline: tuple[str, float], mode: str, metric: str = "mrr@20"
) -> Figure:
    """Accuracy (beside the best baseline) and cost of the cells as small bar charts."""
    drawn = figure(11, 4.8)
    accuracy = f"{metric.upper()}, mode {mode}"
    horizons = [f"{'≥ ' if row.gradient_horizon == LAGS else ''}{row.gradient_horizon}" for row in rows]
    panels: list[tuple[str, list[float], list[str]]] = [
        _numbered(accuracy, [row.metrics[metric] for row in rows], "{:.4f}"),
        ("gradient horizon, events", [float(row.gradient_horizon) for row in rows], horizons),
        _numbered("bytes of state per user", [row.state_bytes for row in rows], "{:,.0f}"),
        _numbered("learned parameters of the cell", [row.cell_parameters for row in rows], "{:,.0f}"),
        _numbered("training, events/s", [row.training_events_per_s for row in rows], "{:,.0f}"),
        _numbered("stepping, events/s", [row.step_events_per_s for row in rows], "{:,.0f}"),
    ]
    names, colours = [CELL_NAMES[row.cell] for row in rows], [CELL_COLOURS[row.cell] for row in rows]
    rule, value = baseline
    for axes, (title, values, texts) in zip(drawn.subplots(2, 3).flat, panels, strict=True):
        if title == accuracy:
            wrapped = rule.replace("_", "\n", 1).replace("_", " ")
            _bars(axes, [*names, wrapped], [*values, value], [*texts, f"{value:.4f}"], [*colours, FAINT])
        else:
            _bars(axes, names, values, texts, colours)
        axes.set_title(title, fontsize=11, loc="left")
    return drawn


def _numbered(title: str, values: Sequence[float], form: str) -> tuple[str, list[float], list[str]]:
    return title, [float(value) for value in values], [form.format(value) for value in values]


def _bars(
    axes: Axes, names: Sequence[str], values: Sequence[float], texts: Sequence[str], colours: Sequence[str]
) -> None:
    places = np.arange(len(names))[::-1]
    most = max(*values, 1e-9)
    axes.barh(places, values, color=colours, height=0.66)
    for place, value, text in zip(places, values, texts, strict=True):
        axes.text(value + most * 0.02, place, text, va="center", fontsize=10)
    axes.set(xlim=(0, most * 1.35), yticks=places, yticklabels=names, xticks=[])
    axes.tick_params(axis="y", length=0, labelsize=10)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
