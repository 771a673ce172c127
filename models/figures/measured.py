"""Figures of what was measured on trained recommenders: gradients, memory, a user's hidden state."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from numpy.typing import NDArray

from eddy.models.evaluation.diagnostics import TOP, Trajectory
from eddy.models.figures.drawing import CELL_COLOURS, CELL_NAMES, FAINT, GRADIENT, figure
from eddy.models.training.gradients import GradientReach

_FAR_BELOW = 1e-7
"""Lower end of the gradients' axis."""

_LEAST_CHANGE = 5e-4
"""Lower end of the memory's axis: a hundredth of one item of a list of 20."""


def gradients_figure(
    cell: str, reach: GradientReach, altered: Sequence[tuple[str, GradientReach]], clip: float
) -> Figure:
    """Left: how fast the gradient fades in the trained cell. Right: the same cell with other weights, so that
    the gradient vanishes or explodes, and what clipping to the norm `clip` does to it; absent where nothing
    is altered.
    """
    drawing = figure(11, 4.7)
    panels = drawing.subplots(1, 2 if altered else 1, sharey=True, squeeze=False)[0]
    lag, colour = np.arange(len(reach.norm)), CELL_COLOURS[cell]
    low, median, high = reach.norm.T
    panels[0].fill_between(lag, low, high, color=colour, alpha=0.12, linewidth=0)
    panels[0].plot(lag, median, color=colour, linewidth=2.2)
    panels[0].set(
        title=f"{CELL_NAMES[cell]} as trained: median and middle 80 % of users",
        ylabel="$\\|\\partial \\mathcal{L}_t\\, /\\, \\partial h_{t-k}\\|$",
        yscale="log",
        ylim=(_FAR_BELOW, 1e3),
    )
    if altered:
        shades = mpl.colormaps["plasma"](np.linspace(0.1, 0.75, len(altered)))
        for (name, other), shade in zip(altered, shades, strict=True):
            panels[1].plot(lag, other.mean, color=shade, linewidth=1.6, linestyle=(0, (4, 2)))
            clipped, text = other.mean * other.clipped(clip), f"{name}: norm {other.total:.2g}"
            panels[1].plot(lag, clipped, color=shade, linewidth=2.2, label=text)
        panels[1].set(title=f"{CELL_NAMES[cell]}, solid: clipped to norm {clip:g}, dashed: not")
        panels[1].legend(frameon=False, fontsize=10, loc="upper left")
    for axes in panels:
        axes.set(xlabel="lag k: events before the target", xlim=(0, None))
        axes.title.set_fontsize(11.5)
        axes.yaxis.set_minor_formatter(NullFormatter())
    return drawing


def memory_figure(cell: str, changed: NDArray[np.float64]) -> Figure:
    """How much of the top of the ranking changes when an event k events back is exchanged for another."""
    drawing = figure(11, 4.2)
    axes = drawing.add_subplot()
    axes.plot(np.arange(len(changed)), changed, color=CELL_COLOURS[cell], linewidth=2.2)
    axes.set(
        title=f"{CELL_NAMES[cell]}: share of the top {TOP} that changes when one event is exchanged",
        xlabel="how many events ago it was",
        xlim=(0, None),
        yscale="log",
        ylim=(_LEAST_CHANGE, 1),
    )
    axes.title.set_fontsize(11.5)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    return drawing


def hidden_state_figure(path: Trajectory, titles: Mapping[str, str], named: int = 12) -> Figure:
    """A user's hidden state as a heat map over events, and how far each moved it; the `named` events that
    moved it most are red.
    """
    drawing = figure(11, 7.2)
    above, map_axes = drawing.subplots(2, 1, sharex=True, height_ratios=(1, 3.2))
    steps = np.arange(len(path.items))
    moved = np.argsort(-path.move)[:named]
    colours = np.where(np.isin(steps, moved), GRADIENT, "#c3cbd3")
    above.bar(steps, path.move, color=colours, width=0.72)
    above.set(ylabel="$\\|h' - h\\|$")
    above.grid(axis="x", visible=False)
    first, last = (datetime.fromtimestamp(path.timestamp[end] / 1000, UTC) for end in (0, -1))
    above.set_title(
        f"Hidden state of user {path.user}, {first:%-d %b %Y} to {last:%-d %b %Y}: {len(steps)} events,"
        f" the {len(moved)} that moved it most in red", fontsize=11.5, parse_math=False,
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
        steps, [_short(titles.get(item, item)) for item in path.items], rotation=58, ha="right",
        parse_math=False,  # a price is no formula
    )  # fmt: skip
    for step, tick in zip(steps, map_axes.get_xticklabels(), strict=True):
        tick.set(fontsize=8.5, rotation_mode="anchor", color=GRADIENT if step in moved else FAINT)
    drawing.colorbar(
        image, ax=map_axes, pad=0.01, fraction=0.025, label="$h$ minus its mean over these events"
    )
    return drawing


def _by_likeness(deviation: NDArray[np.float32]) -> NDArray[np.int64]:
    """An order of the units by their angle between the two main directions, so that units that move together
    stand together.
    """
    _, _, directions = np.linalg.svd(deviation, full_matrices=False)
    second = directions[1] if len(directions) > 1 else np.zeros_like(directions[0])  # one event, or one unit
    return np.argsort(np.arctan2(second, directions[0]))


def _short(title: str, most: int = 30) -> str:
    return title if len(title) <= most else title[: most - 1].rstrip() + "…"
