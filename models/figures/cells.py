"""The five cells side by side: gates, the path of the state (forward), and the path of the gradient
(backward).

The equations are those of eddy.models.network.cells. A red path shows where the gradient passes the fewest
squashing functions.
"""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eddy.models.figures.drawing import (
    CELL_COLOURS,
    FAINT,
    FIXED,
    GATE,
    GATE_EDGE,
    GRADIENT,
    INK,
    INPUT,
    LEARNED,
    STATE,
    Point,
    box,
    branch,
    canvas,
    figure,
    label,
    operation,
    wire,
)

_WIDTH, _HEIGHT = 104.0, 79.0
_STATE_Y, _H_BUS, _X_BUS = 50.0, 12.0, 7.0


def cells() -> Figure:
    """Draw RNN, LSTM, GRU, minGRU and echo-state network, and a legend of the colours."""
    drawing = figure(11, 13.3)
    for panel, draw in enumerate((_rnn, _lstm, _gru, _mingru, _esn, _legend), start=1):
        axes = drawing.add_subplot(3, 2, panel)
        canvas(axes, _WIDTH, _HEIGHT)
        draw(axes)
    return drawing


def _heading(axes: Axes, cell: str, name: str, equation: str, gradient: str) -> None:
    label(axes, (2, 76.5), name, ha="left", fontsize=12.5, weight="bold", color=CELL_COLOURS[cell])
    label(axes, (2, 70), equation, ha="left", fontsize=10)
    label(axes, (2, 64), gradient, ha="left", fontsize=10, color=GRADIENT)


def _gate(axes: Axes, at: Point, text: str, width: float = 9) -> None:
    box(axes, at, (width, 7), text, fill=GATE, edge=GATE_EDGE)


def _state_path(axes: Axes, name: str, y: float, times: float, plus: float, named_at: float = 98) -> None:
    """The state from one event to the next: scaled at x = `times`, added to at x = `plus`."""
    wire(axes, [(2, y), (times - 2.7, y)], STATE, width=2.4)
    label(axes, (4, y - 4.2), f"${name}$", color=STATE, fontsize=13)
    operation(axes, (times, y), "×")
    wire(axes, [(times + 2.6, y), (plus - 2.7, y)], STATE, width=2.4)
    operation(axes, (plus, y), "+")
    wire(axes, [(plus + 2.6, y), (102, y)], STATE, width=2.4)
    label(axes, (named_at, y - 4.2), f"${name}'$", color=STATE, fontsize=13)


def _buses(axes: Axes, h_from: float, gates: list[float], gate_y: float) -> None:
    """h and x as two lines along the bottom; every gate taps both."""
    wire(axes, [(8, -1), (8, _X_BUS), (gates[-1] + 1.8, _X_BUS)], INPUT, head=False)
    label(axes, (4.5, 1.5), "$x$", color=INPUT, fontsize=13)
    wire(axes, [(h_from, _H_BUS), (gates[-1] - 1.8, _H_BUS)], STATE, head=False)
    for x in gates:
        for at, bus, colour in ((x + 1.8, _X_BUS, INPUT), (x - 1.8, _H_BUS, STATE)):
            wire(axes, [(at, bus), (at, gate_y - 4)], colour)
            branch(axes, (at, bus), colour)


def _rnn(axes: Axes) -> None:
    _heading(
        axes, "rnn", "RNN (Elman)", "$h' = \\tanh(Wx + Uh + b)$",
        "every step back: times $U^{\\top}$, times $1-h'^2$: vanishes or explodes",
    )  # fmt: skip
    y = 42.0
    wire(axes, [(2, y), (20.8, y)], STATE, width=2.4)
    label(axes, (5, y + 4), "$h$", color=STATE, fontsize=13)
    box(axes, (27, y), (12, 9), "$U$", fontsize=13)
    wire(axes, [(33.2, y), (46.3, y)], STATE, width=2.4)
    operation(axes, (49, y), "+")
    wire(axes, [(49, -1), (49, 9.3)], INPUT)
    label(axes, (45.5, 2), "$x$", color=INPUT, fontsize=13)
    box(axes, (49, 14), (12, 9), "$W$", fontsize=13)
    wire(axes, [(49, 18.7), (49, y - 2.7)], INPUT)
    wire(axes, [(51.6, y), (64.8, y)], STATE, width=2.4)
    box(axes, (70, y), (10, 8), "tanh", fill=GATE, edge=GATE_EDGE)
    wire(axes, [(75.2, y), (102, y)], STATE, width=2.4)
    label(axes, (98, y + 4), "$h'$", color=STATE, fontsize=13)
    _gradient(axes, [(100, y + 9), (4, y + 9)])
    for x, text in ((70, "$1-h'^2$"), (27, "$U^{\\top}$")):
        axes.plot([x, x], [y + 4.8, y + 9], color=GRADIENT, linewidth=1, zorder=1)
        label(axes, (x, y + 12.5), text, color=GRADIENT, fontsize=10)


def _gradient(axes: Axes, points: list[Point]) -> None:
    wire(axes, points, GRADIENT, width=2.6, dashed=True)


def _lstm(axes: Axes) -> None:
    _heading(
        axes, "lstm", "LSTM", "$c' = f \\odot c + i \\odot g, \\quad h' = o \\odot \\tanh(c')$",
        "along $c$: times $f$ only; what $f$ keeps, the gradient keeps",
    )  # fmt: skip
    y, gate_y = _STATE_Y, 23.0
    _buses(axes, 2, [24, 43, 58, 76], gate_y)
    label(axes, (4, _H_BUS + 4), "$h$", color=STATE, fontsize=13)
    _state_path(axes, "c", y, times=24, plus=50.5)
    for x, text, width in ((24, "$f$: σ", 9), (43, "$i$: σ", 9), (58, "$g$: tanh", 14), (76, "$o$: σ", 9)):
        _gate(axes, (x, gate_y), text, width)
    wire(axes, [(24, 26.7), (24, y - 2.7)], INK)
    wire(axes, [(43, 26.7), (43, 37), (47.8, 37)], INK)
    wire(axes, [(58, 26.7), (58, 37), (53.2, 37)], INK)
    operation(axes, (50.5, 37), "×")
    wire(axes, [(50.5, 39.6), (50.5, y - 2.7)], INK)
    wire(axes, [(90, y), (90, 44)], STATE)
    branch(axes, (90, y))
    _gate(axes, (90, 40.5), "tanh", 10)
    wire(axes, [(90, 37.2), (90, 25.7)], STATE)
    wire(axes, [(80.6, gate_y), (87.3, gate_y)], INK)
    operation(axes, (90, gate_y), "×")
    wire(axes, [(92.6, gate_y), (102, gate_y)], STATE, width=2.4)
    label(axes, (98.5, gate_y + 4), "$h'$", color=STATE, fontsize=13)
    _gradient(axes, [(100, y + 5), (4, y + 5)])


def _gru(axes: Axes) -> None:
    _heading(
        axes, "gru", "GRU", "$h' = (1-z) \\odot n + z \\odot h, \\quad n = \\tanh(Wx + r \\odot Uh + b)$",
        "along $h$: times $z$; where $z \\approx 1$ the past passes untouched",
    )  # fmt: skip
    y, gate_y, middle = _STATE_Y, 23.0, 37.0
    _buses(axes, 20, [28, 71], gate_y)
    _state_path(axes, "h", y, times=60, plus=87)
    wire(axes, [(13, y), (13, _H_BUS), (20, _H_BUS)], STATE, head=False)
    branch(axes, (13, y))
    wire(axes, [(13, middle), (25.3, middle)], STATE)
    branch(axes, (13, middle))
    label(axes, (19, middle + 3.2), "$Uh$", color=STATE, fontsize=10)
    _gate(axes, (28, gate_y), "$r$: σ")
    wire(axes, [(28, 26.7), (28, middle - 2.7)], INK)
    operation(axes, (28, middle), "×")
    wire(axes, [(30.6, middle), (39.8, middle)], STATE)
    wire(axes, [(47, _X_BUS), (47, middle - 3.8)], INPUT)
    branch(axes, (47, _X_BUS), INPUT)
    _gate(axes, (47, middle), "$n$: tanh", 14)
    _gate(axes, (71, gate_y), "$z$: σ")
    wire(axes, [(54.2, middle), (68.3, middle)], INK)
    wire(axes, [(71, 29.8), (60, 29.8), (60, y - 2.7)], INK)
    wire(axes, [(71, 26.7), (71, middle - 2.7)], INK)
    branch(axes, (71, 29.8), INK)
    operation(axes, (71, middle), "×")
    label(axes, (76.3, 31.3), "$1-z$", fontsize=10)
    label(axes, (57.5, 43.5), "$z$", fontsize=10)
    wire(axes, [(73.6, middle), (87, middle), (87, y - 2.7)], INK)
    _gradient(axes, [(100, y + 5), (4, y + 5)])


def _mingru(axes: Axes) -> None:
    _heading(
        axes, "mingru", "minGRU, in a residual block",
        "$h' = (1-\\sigma(z)) \\odot h + \\sigma(z) \\odot c, \\quad z, c, g = W\\,\\mathrm{LN}(x) + b$",
        "along $h$: times $1-\\sigma(z)$; no gate looks at $h$",
    )  # fmt: skip
    y, gate_y, middle, normed, x_bus = _STATE_Y, 24.0, 37.0, 13.5, 4.0
    wire(axes, [(6, -1), (6, x_bus), (79.3, x_bus)], INPUT)
    label(axes, (2.5, 1), "$x$", color=INPUT, fontsize=13)
    wire(axes, [(15, x_bus), (15, normed - 3.2)], INPUT)
    branch(axes, (15, x_bus), INPUT)
    box(axes, (15, normed), (9, 6), "LN", fontsize=10)
    wire(axes, [(19.7, normed), (66, normed), (66, gate_y - 4)], INPUT)
    for x in (30, 50):
        wire(axes, [(x, normed), (x, gate_y - 4)], INPUT)
        branch(axes, (x, normed), INPUT)
    _gate(axes, (30, gate_y), "$z$: σ")
    box(axes, (50, gate_y), (9, 7), "$c$")
    _gate(axes, (66, gate_y), "$g$: silu", 12)
    _state_path(axes, "h", y, times=30, plus=50)
    wire(axes, [(30, gate_y + 3.7), (30, y - 2.7)], INK)
    branch(axes, (30, middle), INK)
    label(axes, (22.5, 43.5), "$1-\\sigma(z)$", fontsize=10)
    wire(axes, [(30, middle), (47.3, middle)], INK)
    label(axes, (39, middle + 3.4), "$\\sigma(z)$", fontsize=10)
    wire(axes, [(50, gate_y + 3.7), (50, middle - 2.7)], INK)
    operation(axes, (50, middle), "×")
    wire(axes, [(50, middle + 2.6), (50, y - 2.7)], INK)
    wire(axes, [(66, gate_y + 3.7), (66, middle), (79.3, middle)], INK)
    wire(axes, [(82, y), (82, middle + 2.7)], STATE)
    branch(axes, (82, y))
    operation(axes, (82, middle), "×")
    wire(axes, [(82, middle - 2.6), (82, 23.2)], STATE)
    box(axes, (82, 19), (9, 8), "$M$", fontsize=13)
    wire(axes, [(82, 14.8), (82, x_bus + 2.7)], STATE)
    operation(axes, (82, x_bus), "+")
    wire(axes, [(84.6, x_bus), (102, x_bus)], INPUT)
    label(axes, (98, x_bus + 4), "$x'$", color=INPUT, fontsize=13)
    _gradient(axes, [(100, y + 5), (4, y + 5)])


def _legend(axes: Axes) -> None:
    label(axes, (2, 76.5), "What is drawn", ha="left", fontsize=12.5, weight="bold")
    lines = (
        (STATE, 2.4, "state, from one event to the next"),
        (INPUT, 1.8, "input of the event: item, type, time gap"),
        (INK, 1.8, "values of this event"),
    )
    y = 66.0
    for colour, width, text in lines:
        wire(axes, [(4, y), (20, y)], colour, width=width)
        label(axes, (26, y), text, ha="left", fontsize=10)
        y -= 9
    _gradient(axes, [(20, y), (4, y)])
    label(axes, (26, y), "gradient, where the past is squashed least", ha="left", fontsize=10)
    for fill, edge, text in (
        (GATE, GATE_EDGE, "gate or squashing function"),
        (LEARNED, STATE, "learned weights"),
        (FIXED, FAINT, "drawn once, never learned"),
    ):
        y -= 9
        box(axes, (12, y), (14, 6), "", fill=fill, edge=edge)
        label(axes, (26, y), text, ha="left", fontsize=10)


def _esn(axes: Axes) -> None:
    _heading(
        axes, "esn", "Echo-state network", "$h' = (1-a)\\,h + a\\,\\tanh(Wx + Uh + b), \\quad W, U, b$ fixed",
        "no gradient through time: only the readout is learned",
    )  # fmt: skip
    y, middle = _STATE_Y, 24.0
    _state_path(axes, "h", y, times=44, plus=80, named_at=87)
    label(axes, (44, y - 5.5), "$1-a$", fontsize=10)
    wire(axes, [(12, y), (12, middle), (16.3, middle)], STATE)
    branch(axes, (12, y))
    _reservoir(axes, (27, middle))
    wire(axes, [(37.6, middle), (45.3, middle)], STATE)
    operation(axes, (48, middle), "+")
    wire(axes, [(48, -1), (48, 3.3)], INPUT)
    label(axes, (44.5, 0.8), "$x$", color=INPUT, fontsize=13)
    box(axes, (48, 8), (11, 8), "$W$", fill=FIXED, edge=FAINT, fontsize=13)
    wire(axes, [(48, 12.3), (48, middle - 2.7)], INPUT)
    wire(axes, [(50.6, middle), (57.8, middle)], STATE)
    box(axes, (63, middle), (10, 7), "tanh", fill=FIXED, edge=FAINT)
    wire(axes, [(68.2, middle), (77.3, middle)], STATE)
    operation(axes, (80, middle), "×")
    label(axes, (80, middle - 5.5), "$a$", fontsize=11)
    wire(axes, [(80, middle + 2.7), (80, y - 2.7)], STATE)
    box(axes, (95, 38), (14, 8), "readout", fill=LEARNED, fontsize=10)
    wire(axes, [(95, y), (95, 42.3)], STATE)
    branch(axes, (95, y))
    _gradient(axes, [(95, 25), (95, 33.7)])
    label(axes, (95, 22), "loss", color=GRADIENT, fontsize=10)


def _reservoir(axes: Axes, centre: Point) -> None:
    """A sparse random network, drawn once and never learned."""
    box(axes, centre, (21, 20), "", fill=FIXED, edge=FAINT)
    x, y = centre
    nodes = [(-6.5, 4.5), (0.5, 6.3), (6.8, 3.2), (-7, -2.6), (-0.5, -0.4), (6, -4), (0.2, -6.6)]
    for start, end in ((0, 1), (1, 2), (2, 4), (4, 3), (3, 0), (4, 6), (6, 5), (5, 2), (0, 4)):
        (x0, y0), (x1, y1) = nodes[start], nodes[end]
        axes.plot([x + x0, x + x1], [y + y0, y + y1], color=FAINT, linewidth=1, zorder=5)
    axes.scatter([x + n[0] for n in nodes], [y + n[1] for n in nodes], s=26, color=STATE, zorder=6)
    label(axes, (x, y - 13), "reservoir $U$", fontsize=10, color=FAINT)
