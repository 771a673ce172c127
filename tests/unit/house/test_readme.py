"""README.md: its tables of cells and settings say what the code has and what was measured, and the files,
settings and metrics that it names exist.
"""

import json
import re
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from eddy.models.config import CELLS, ModelConfig
from eddy.models.network.cells import make_cell
from eddy.serving.metrics import ServerMetrics
from eddy.stream.records.settings import Settings, load_settings
from eddy.stream.worker.metrics import WorkerMetrics

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]
SETTINGS = {f"EDDY_{name.upper()}": field for name, field in Settings.model_fields.items()}
OF_TESTS = {"EDDY_CHROMIUM", "EDDY_SCREENSHOTS"}
IN_WORDS = {
    "EDDY_CACHE_DIR": "the user's cache folder",
    "EDDY_EARLIEST_EVENT": "1990-01-01",
    "EDDY_REGISTRY": "./registry",
    "EDDY_EVENT_LOG": "./event-log",
}
"""Defaults that the table gives in other words than the code."""
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


def test_it_names_all_settings_and_no_other_variable() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"EDDY_[A-Z0-9_]*[A-Z0-9]\b(?!\*)", text)) - OF_TESTS == set(SETTINGS)


def test_the_table_of_settings_has_the_defaults_of_the_code() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text.partition("\n### Settings\n")[2].partition("\n## ")[0]
    shown: dict[str, str] = {}
    for names, defaults in re.findall(r"^\| (`EDDY_[^|]*) \| ([^|]*) \|", table, re.MULTILINE):
        settings, values = re.findall(r"`(\w+)`", names), defaults.split(", ")
        shown |= dict(zip(settings, values * len(settings) if len(values) == 1 else values, strict=True))
    assert len(shown) > 40
    assert shown == {name: IN_WORDS.get(name, _shown(SETTINGS[name].default)) for name in shown}
    assert str(Settings.model_fields["registry"].default) == "registry"
    assert str(Settings.model_fields["event_log"].default) == "event-log"
    assert (
        load_settings(earliest_event="1990-01-01").earliest_event == SETTINGS["EDDY_EARLIEST_EVENT"].default
    )


def _shown(default: object) -> str:
    if default is None or default == "":
        return "none"
    return str(default).lower() if isinstance(default, bool) else str(default)


def test_the_metrics_that_it_names_are_exported_under_these_names() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    exported = (
        generate_latest(WorkerMetrics().registry) + generate_latest(ServerMetrics().registry)
    ).decode()
    named = set(re.findall(r"`(eddy_[a-z_]+)", text))
    assert len(named) > 10
    assert named - set(re.findall(r"^# TYPE (\w+)", exported, re.MULTILINE)) == set()
