"""`make reproduce`: what was run is kept and not repeated, and the table says what was not run."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eddy.models.config import CELLS, ModelConfig
from tests.reproduce import run, streams
from tests.reproduce.report import BEGIN, END
from tests.reproduce.runs import PLAIN, RUNS, TRAINING, Run

pytestmark = pytest.mark.unit

TINY = Run(
    replace(PLAIN, hidden=8, dim=8, recent_window=10, transition_lags=3, successors=4),
    replace(TRAINING, epochs=1, gate_epochs=1),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "README.md").write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    return tmp_path


@pytest.fixture
def events(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    item = np.concatenate([rng.permutation(30)[:8] for _ in range(20)])
    columns = {"user_id": np.repeat(np.arange(20), 8), "item_id": item, "position": np.tile(np.arange(8), 20)}
    file = tmp_path / "events.parquet"
    pq.write_table(pa.table(columns), file)
    return file


def test_every_cell_and_three_seeds_of_the_best_are_run() -> None:
    assert set(CELLS) <= set(RUNS)
    assert [RUNS[f"best, seed {seed}"].settings.seed for seed in (1, 2, 3)] == [1, 2, 3]


def test_every_stream_has_its_rules_and_three_seeds_of_one_configuration() -> None:
    for stream in streams.STREAMS:
        seeds = [streams.RUNS[f"{stream}, seed {seed}"].run for seed in (1, 2, 3)]
        assert [run.settings.seed for run in seeds if run] == [1, 2, 3]
        assert {run.config for run in seeds if run} == {ModelConfig()}
        assert streams.RUNS[f"{stream}, rules"].run is None


def test_a_streams_line_sets_eddy_beside_the_best_rule(
    tmp_path: Path, events: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = pq.read_table(events).rename_columns(["user_id", "item_id", "timestamp"])
    pq.write_table(log, tmp_path / "small.parquet")
    monkeypatch.setattr(streams, "STREAMS", ("small", "absent"))
    monkeypatch.setattr(streams, "ABLATED", ())
    wanted = {"small, rules": None, "small, seed 1": TINY}
    monkeypatch.setattr(
        streams, "RUNS", {name: streams.StreamRun("small", run) for name, run in wanted.items()}
    )
    (tmp_path / "README.md").write_text("<!-- streams: begin -->\n<!-- streams: end -->\n")
    streams.main(["--data", str(tmp_path)], tmp_path)
    lines = (tmp_path / "README.md").read_text().splitlines()
    assert any(line.startswith("| small | ") and "%" in line for line in lines)
    assert any(line.startswith("| absent: not run yet |") for line in lines)
    streams.main([], tmp_path)  # needs no events


def test_an_outcome_is_kept_and_not_run_again(
    folder: Path, events: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "RUNS", {"one": TINY, "two": TINY})
    run.main(["--events", str(events), "--only", "one"], folder)
    table = (folder / "README.md").read_text()
    assert table.startswith("before\n")
    assert table.endswith("\nafter\n")
    assert "| **one** | 0." in table
    assert "two: not run yet" in table
    run.main(["--only", "one"], folder)  # needs no events
    with pytest.raises(SystemExit, match="two: not run yet, and no events"):
        run.main([], folder)
    assert (folder / "README.md").read_text() == table
