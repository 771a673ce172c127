"""What all figures share: colours, and the parts that diagrams are drawn from (boxes, operations, wires)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, PathPatch
from matplotlib.path import Path as Outline

INK = "#22303c"
FAINT = "#7b8794"
STATE = "#1f5fbf"
INPUT = "#14826b"
GRADIENT = "#d1495b"
GATE = "#fff3cd"
GATE_EDGE = "#b8860b"
LEARNED = "#e3edfb"
FIXED = "#e9ecef"
CELL_COLOURS = {"rnn": "#8d6a9f", "lstm": "#14826b", "gru": "#1f5fbf", "esn": "#d98324", "mingru": "#b5403a"}
CELL_NAMES = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU", "esn": "Echo-state", "mingru": "minGRU"}

_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "mathtext.fontset": "dejavusans",
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e8ec",
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "eddy",  # the same picture gives the same bytes
}

Point = tuple[float, float]


@contextmanager
def style() -> Iterator[None]:
    """Inside, all figures are drawn in the same style."""
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]
        yield


def figure(width: float, height: float) -> Figure:
    """An empty figure of this size, in inches; it needs no display."""
    drawing = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(drawing)
    return drawing


def save_figure(drawing: Figure, folder: Path, name: str) -> list[Path]:
    """Write name.svg and name.png into a folder, which is made if missing; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.svg", folder / f"{name}.png"]
    drawing.savefig(paths[0], metadata={"Date": None})
    drawing.savefig(paths[1], dpi=160)
    return paths


def canvas(axes: Axes, width: float, height: float) -> None:
    """Make axes a drawing area of the given size, with equal units and no frame."""
    axes.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axes.axis("off")


def box(
    axes: Axes, at: Point, size: Point, text: str, fill: str = LEARNED, edge: str = STATE, **font: Any
) -> None:
    """A rounded box centred at a point."""
    (x, y), (w, h) = at, size
    shape = FancyBboxPatch(
        (x - w / 2, y - h / 2), w, h, boxstyle=f"round,pad=0,rounding_size={min(w, h) * 0.22}",
        facecolor=fill, edgecolor=edge, linewidth=1.3, zorder=4,
    )  # fmt: skip
    axes.add_patch(shape)
    label(axes, at, text, **{"zorder": 5, **font})


def operation(axes: Axes, at: Point, text: str, radius: float = 2.4, edge: str = INK) -> None:
    """A pointwise operation: a small circle."""
    axes.add_patch(Circle(at, radius, facecolor="white", edgecolor=edge, linewidth=1.3, zorder=4))
    label(axes, at, text, zorder=5, fontsize=11)


def branch(axes: Axes, at: Point, colour: str = STATE) -> None:
    """A dot where a wire leaves another."""
    axes.add_patch(Circle(at, 0.85, facecolor=colour, linewidth=0, zorder=3))


def label(axes: Axes, at: Point, text: str, **font: Any) -> None:
    """Text centred at a point."""
    axes.text(*at, text, **{"ha": "center", "va": "center", "zorder": 6, **font})


def wire(
    axes: Axes, points: Sequence[Point], colour: str = STATE, head: bool = True, width: float = 1.8,
    dashed: bool = False, bend: float = 1.6,
) -> None:  # fmt: skip
    """A line through points with rounded bends, edged in white, so that crossings look like bridges."""
    outline = _rounded(points, bend)
    dash = (0, (4, 2.2)) if dashed else "solid"
    axes.add_patch(PathPatch(outline, fill=False, edgecolor="white", linewidth=width + 3.2, zorder=2))
    axes.add_patch(
        PathPatch(
            outline, fill=False, edgecolor=colour, linewidth=width, linestyle=dash, zorder=2, capstyle="butt"
        )
    )
    if head:
        tail = _towards(points[-1], points[-2], 1.0)
        arrow = FancyArrowPatch(
            tail, points[-1], arrowstyle="-|>", mutation_scale=6 + 3.2 * width, color=colour, linewidth=0,
            shrinkA=0, shrinkB=0, zorder=3,
        )  # fmt: skip
        axes.add_patch(arrow)


def _rounded(points: Sequence[Point], bend: float) -> Outline:
    corners, codes = [points[0]], [Outline.MOVETO]
    for before, at, after in zip(points, points[1:], points[2:], strict=False):
        corners += [_towards(at, before, bend), at, _towards(at, after, bend)]
        codes += [Outline.LINETO, Outline.CURVE3, Outline.CURVE3]
    return Outline([*corners, points[-1]], [*codes, Outline.LINETO])


def _towards(start: Point, end: Point, distance: float) -> Point:
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = max((dx * dx + dy * dy) ** 0.5, 1e-9)
    share = min(distance / length, 0.5)
    return start[0] + dx * share, start[1] + dy * share
