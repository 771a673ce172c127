"""The recurrent network folded and unrolled through time: where state and gradient flow."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eddy.models.figures.drawing import (
    FAINT,
    GRADIENT,
    INK,
    INPUT,
    LEARNED,
    STATE,
    box,
    canvas,
    figure,
    label,
    operation,
    wire,
)

_STEPS = (49.0, 71.0, 93.0, 115.0)
_NAMES = ("t-3", "t-2", "t-1", "t")
_CELL_Y, _INPUT_Y, _SCORE_Y = 36.0, 14.0, 56.0
_CELL = (12.0, 11.0)
_CUT = 60.0
_HEADING = {"fontsize": 12.5, "weight": "bold", "ha": "left"}


def unrolled() -> Figure:
    """Draw one user's events through one cell, which has the same weights at every step."""
    drawing = figure(11, 6.35)
    axes = drawing.add_subplot()
    canvas(axes, 130, 75)
    _folded(axes)
    for number, (x, name) in enumerate(zip(_STEPS, _NAMES, strict=True)):
        _step(axes, x, name, last=number == len(_STEPS) - 1)
    _states(axes)
    _gradient(axes)
    _legend(axes)
    return drawing


def _folded(axes: Axes) -> None:
    x = 14.0
    label(axes, (2, 72.5), "Folded: what the stream runs", **_HEADING)
    box(axes, (x, _CELL_Y), _CELL, "cell", fontsize=13)
    box(axes, (x, _INPUT_Y), (17, 8), "event  $x_t$", fill="#e2f4ee", edge=INPUT)
    box(axes, (x, _SCORE_Y), (19, 8), "what next?", fill="white", edge=INK)
    wire(axes, [(x, 18), (x, 30.3)], INPUT)
    wire(axes, [(x, 41.6), (x, 51.8)], STATE)
    wire(axes, [(x + 6, 38), (x + 12, 38), (x + 12, 25), (x - 11, 25), (x - 11, 34), (x - 6.2, 34)], STATE)
    label(axes, (x + 14.3, 33), "$h$", color=STATE, fontsize=13)
    label(
        axes,
        (x, 4),
        "$h' = f(x,\\, h)$: one step per event,\nhowever long the history is",
        color=FAINT,
        fontsize=10,
    )
    label(axes, (33, _CELL_Y), "=", fontsize=24, color=FAINT)


def _step(axes: Axes, x: float, name: str, last: bool) -> None:
    box(axes, (x, _CELL_Y), _CELL, "cell", fontsize=13, fill=LEARNED)
    box(axes, (x, _INPUT_Y), (13, 8), f"$x_{{{name}}}$", fill="#e2f4ee", edge=INPUT, fontsize=13)
    wire(axes, [(x, 18), (x, 30.3)], INPUT)
    box(
        axes,
        (x, _SCORE_Y),
        (16, 8),
        f"score $\\rightarrow \\mathcal{{L}}_{{{name}}}$",
        fill="white",
        edge=INK,
    )
    wire(axes, [(x - 2, 41.6), (x - 2, 51.8)], STATE)
    if last:
        label(axes, (x, 4), "item + type + time gap\n+ “negative”", color=FAINT, fontsize=10)


def _states(axes: Axes) -> None:
    y = _CELL_Y + 2
    wire(axes, [(38, y), (_STEPS[0] - 6.2, y)], STATE)
    for before, after, name in zip(_STEPS, _STEPS[1:], _NAMES, strict=False):
        wire(axes, [(before + 6, y), (after - 6.2, y)], STATE, width=2.4)
        label(
            axes,
            ((before + after) / 2 + (2.6 if before == _STEPS[0] else 0), y + 3),
            f"$h_{{{name}}}$",
            color=STATE,
            fontsize=12,
        )
    wire(axes, [(_STEPS[-1] + 6, y), (128, y)], STATE, width=2.4)
    label(axes, (125, y + 3), "$h_t$", color=STATE, fontsize=12)


def _gradient(axes: Axes) -> None:
    """The gradient from the loss at t back to the window's start, thinner with every step."""
    y, widths = _CELL_Y - 2.6, (3.2, 2.3, 1.5)
    x = _STEPS[-1]
    wire(axes, [(x + 3, 51.8), (x + 3, 42)], GRADIENT, width=3.6, dashed=True)
    for after, before, width in zip(_STEPS[::-1], _STEPS[-2::-1], widths, strict=False):
        stop = before + 6.4 if before != _STEPS[0] else _CUT + 1.2
        wire(axes, [(after - 6, y), (stop, y)], GRADIENT, width=width, dashed=True)
    axes.plot([_CUT, _CUT], [21, 63.5], color=FAINT, linewidth=1.2, linestyle=(0, (2, 2)), zorder=1)
    operation(axes, (_CUT, y), "×", radius=1.7, edge=GRADIENT)
    label(
        axes,
        (_CUT, 66.3),
        "window boundary: the state crosses it,\nthe gradient does not",
        color=FAINT,
        fontsize=10,
    )
    label(axes, (42, 72.5), "Unrolled: what training sees, with the same weights at every step", **_HEADING)


def _legend(axes: Axes) -> None:
    y = 3.6
    wire(axes, [(44, y + 1.8), (51, y + 1.8)], STATE, width=2.4)
    label(axes, (52.5, y + 1.8), "state, forward in time", ha="left", fontsize=10)
    wire(axes, [(51, y - 1.8), (44, y - 1.8)], GRADIENT, width=2.4, dashed=True)
    label(
        axes, (52.5, y - 1.8),
        "gradient of $\\mathcal{L}_t$, backward: times $\\partial h'/\\partial h$ at every step",
        ha="left", fontsize=10,
    )  # fmt: skip
