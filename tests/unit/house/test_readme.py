"""README.md: its table of cells says what the code has and what was measured, and its files exist."""

import json
import re
from pathlib import Path

import pytest

from eddy.models.config import CELLS, ModelConfig
from eddy.models.network.cells import make_cell

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]
NAMES = {"rnn": "RNN", "gru": "GRU", "lstm": "LSTM", "mingru": "minGRU", "esn": "echo state"}


@pytest.mark.parametrize("cell", CELLS)
def test_the_table_of_cells_is_up_to_date(cell: str) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"^\| {NAMES[cell]} .*$", text, re.MULTILINE)
    assert found is not None
    _, _, _, parameters, state, _, accuracy, _ = (part.strip() for part in found[0].split("|"))
    made = make_cell(ModelConfig(cell=cell))
    assert int(parameters.split()[0].replace(",", "")) == sum(p.numel() for p in made.parameters())
    assert int(state.removesuffix(" B").replace(",", "")) == 4 * made.state_size
    measured = json.loads((ROOT / f"tests/reproduce/results/{cell}.json").read_text())["test"]["unseen"]
    shown = [f"{measured[metric]:.3f}".removeprefix("0") for metric in ("hr@10", "ndcg@10")]
    assert accuracy == ", ".join(shown)


def test_every_file_that_it_names_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    names = re.findall(r"[`(]((?:[\w-]+/)+[\w.-]+\.(?:py|md|svg|parquet))[`)]", text)
    assert len(names) > 20
    assert [name for name in names if not any((ROOT / top / name).exists() for top in ("", "tests"))] == []
