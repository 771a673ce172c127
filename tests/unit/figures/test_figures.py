"""Figures: every file is written, drawn the same every time, and no text lies on another."""

import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from eddy.models.config import CELLS, ModelConfig, TrainConfig
from eddy.models.evaluation.compare import compare
from eddy.models.figures.cells import cells
from eddy.models.figures.diagrams import draw_diagrams, draw_measured
from eddy.models.figures.drawing import style
from eddy.models.figures.unrolled import unrolled
from eddy.models.logs.events import Items
from tests.unit.evaluation.test_evaluate import QUICK, SMALL, stream

LONG = stream(events=900, users=12)
SETTINGS: tuple[ModelConfig, TrainConfig] = (SMALL, replace(QUICK, epochs=1))


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    figure.canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    boxes = [(text.get_text(), text.get_window_extent().shrunk(0.9, 0.8)) for text in texts]
    return [(a, b) for (a, at), (b, other) in combinations(boxes, 2) if at.overlaps(other)]


@pytest.mark.parametrize("draw", [unrolled, cells])
def test_in_the_diagrams_no_text_lies_on_another(draw: object) -> None:
    assert callable(draw)
    with style():
        assert overlaps(draw()) == []


def test_diagrams_are_written_and_drawn_the_same_every_time(tmp_path: Path) -> None:
    first, second = (draw_diagrams(tmp_path / name) for name in ("one", "two"))
    assert {path.name for path in first} == {"unrolled.svg", "unrolled.png", "cells.svg", "cells.png"}
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_measured_figures_come_with_the_comparison_that_they_show(tmp_path: Path) -> None:
    found, files = draw_measured(tmp_path, LONG, Items({"i0": "A Title"}, {}), *SETTINGS)
    assert {path.stem for path in files} == {"gradients", "memory", "state", "comparison"}
    assert all(path.stat().st_size > 1000 for path in files)
    assert {row.cell for row in found.rows} == set(CELLS)
    assert "A Title" in (tmp_path / "state.svg").read_text() or re.search(
        "<use", (tmp_path / "state.svg").read_text()
    )


def test_the_comparison_has_a_line_for_each_cell_and_the_bar_they_are_held_against() -> None:
    found = compare(LONG, "prequential", *SETTINGS, cells=("rnn", "gru"))
    lines = found.table().splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["rnn", "gru"]
    assert lines[4].startswith("best baseline")
    assert found.rows[1].state_bytes == 4 * SMALL.hidden
    assert found.rows[1].cell_parameters == 3 * found.rows[0].cell_parameters
    assert all(row.step_events_per_s > 0 and row.training_events_per_s > 0 for row in found.rows)
