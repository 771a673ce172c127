"""Figures: every file is written, drawn the same every time, and no text lies on another."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from typer.testing import CliRunner

from eddy import __main__ as eddy
from eddy.models.config import ModelConfig, TrainConfig
from eddy.models.errors import EddyError
from eddy.models.evaluation.compare import compare
from eddy.models.figures.cells import cells
from eddy.models.figures.diagrams import draw_diagrams, measured_figures
from eddy.models.figures.drawing import style
from eddy.models.figures.unrolled import unrolled
from eddy.models.registry import publish
from tests.unit.evaluation.test_evaluate import QUICK, SMALL, stream, untrained

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


@pytest.mark.parametrize("cell", ["gru", "mingru"])
def test_a_version_is_measured_on_a_log(tmp_path: Path, cell: str) -> None:
    version = publish(tmp_path / "registry", untrained(LONG, replace(SMALL, cell=cell)), {})
    drawn = measured_figures(version, LONG, {"i0": "A Title"})
    assert list(drawn) == ["gradients", "memory", "state"]
    assert len(drawn["gradients"].axes) == (1 if cell == "mingru" else 2)
    assert "A Title" in {text.get_text() for text in drawn["state"].findobj(Text)}
    assert overlaps(drawn["gradients"]) == overlaps(drawn["memory"]) == []


def test_of_users_with_many_events_the_latest_are_shown(tmp_path: Path) -> None:
    """The names of thousands would take minutes to draw, and nobody could read them."""
    busy = stream(events=900, users=2)
    version = publish(tmp_path / "registry", untrained(busy), {})
    drawn = measured_figures(version, busy, {})["state"]
    assert ": 72 events" in " ".join(text.get_text() for text in drawn.findobj(Text))


def test_names_with_dollars_are_no_formulas_and_a_single_unit_has_a_picture(tmp_path: Path) -> None:
    version = publish(tmp_path / "registry", untrained(LONG, replace(SMALL, hidden=1)), {})
    users = [f"{name} $5 & ^$" for name in LONG.users]
    titles = {item: f"{item} 50% off $9 & $5_" for item in LONG.items}
    drawn = measured_figures(version, replace(LONG, users=users), titles)["state"]
    drawn.canvas.draw()
    texts = " ".join(text.get_text() for text in drawn.findobj(Text))
    assert "$5 & ^$" in texts
    assert "50% off $9 & $5_" in texts


def test_the_command_draws_a_version_and_wants_both_its_registry_and_events(tmp_path: Path) -> None:
    publish(tmp_path / "registry", untrained(LONG), {"training": {"clip": 0.5}})
    log = tmp_path / "events.parquet"
    items = [LONG.items[item] for item in LONG.item]
    columns = {"user_id": LONG.user, "item_id": items, "timestamp": LONG.timestamp}
    pq.write_table(pa.table(columns), log)
    command = ["figures", str(tmp_path / "pictures"), "--registry", str(tmp_path / "registry")]
    ended = CliRunner().invoke(eddy.app, [*command, "--events", str(log), "--time-unit", "ms"])
    assert ended.exit_code == 0, ended.exception
    files = [Path(line) for line in ended.output.split()]
    assert {file.stem for file in files} == {"unrolled", "cells", "gradients", "memory", "state"}
    assert all(file.stat().st_size > 1000 for file in files)
    refused = CliRunner().invoke(eddy.app, command)
    assert isinstance(refused.exception, EddyError)
    assert "both --registry and --events" in str(refused.exception)


def test_the_comparison_has_a_line_for_each_cell_and_the_bar_they_are_held_against() -> None:
    comparison = compare(LONG, "prequential", *SETTINGS, cells=("rnn", "gru"))
    lines = comparison.table().splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["rnn", "gru"]
    assert lines[4].startswith("best baseline")
    assert comparison.rows[1].state_bytes == 4 * SMALL.hidden
    assert comparison.rows[1].cell_parameters == 3 * comparison.rows[0].cell_parameters
    assert all(row.step_events_per_s > 0 and row.training_events_per_s > 0 for row in comparison.rows)
