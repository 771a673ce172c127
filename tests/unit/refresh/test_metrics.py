"""The file that a refresh leaves for Prometheus."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from eddy.cli.refresh import run_refresh
from eddy.models.decisions import Decision
from eddy.models.errors import EddyError
from eddy.refresh.endings import Outcome
from eddy.refresh.metrics import write_metrics, write_no_decision
from eddy.refresh.options import RefreshOptions
from eddy.refresh.windows import NotYet
from eddy.stream.records.settings import load_settings

pytestmark = pytest.mark.unit

JUDGEMENT = {
    "metrics": {"candidate": {"mrr@20": 0.3}, "live": {"mrr@20": 0.25}},
    "gains": {"live": {"mean": 0.05, "low": 0.01, "high": 0.09}},
}


def outcome(judgement: dict[str, Any]) -> Outcome:
    decision = Decision("went live", "v000002-1a2b3c4d", "v000001-1a2b3c4d", 2, "better", {}, "")
    return Outcome(decision, {"train": 12.5}, judgement)


def values(file: Path) -> dict[tuple[str, frozenset[str]], float]:
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(file.read_text())
        for sample in family.samples
    }


def test_it_tells_the_decision_the_steps_and_the_gate_s_figures(tmp_path: Path) -> None:
    file = tmp_path / "eddy.prom"
    write_metrics(file, outcome(JUDGEMENT))
    told = values(file)

    def of(name: str, *labels: str) -> float:
        return told[f"eddy_refresh_{name}", frozenset(labels)]

    assert of("decision", "went live") == 1
    assert of("decision", "refused") == 0
    assert of("step_seconds", "train") == 12.5
    assert of("judged", "live", "mrr@20") == 0.25
    assert of("gain", "live", "low") == 0.01
    assert of("end_timestamp_seconds") > 1.7e9


def test_a_decision_without_a_judgement_is_told_too(tmp_path: Path) -> None:
    file = tmp_path / "eddy.prom"
    write_metrics(file, outcome({}))
    assert values(file)["eddy_refresh_decision", frozenset(["went live"])] == 1


def test_too_little_that_is_new_is_a_success_and_leaves_what_is_told_of_the_last_decision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "eddy.prom"
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    write_metrics(file, outcome(JUDGEMENT))
    decided = values(file)
    monkeypatch.setattr(time, "time", lambda: 2000.0)
    write_no_decision(file, failed=False)
    success = "eddy_refresh_success_timestamp_seconds", frozenset[str]()
    assert decided[success] == 1000.0
    assert values(file) == decided | {success: 2000.0}


def test_a_failure_is_told_beside_the_last_success_until_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "eddy.prom"
    failed, success = ("eddy_refresh_failed", frozenset[str]()), "eddy_refresh_success_timestamp_seconds"
    write_no_decision(file, failed=True)
    assert values(file) == {failed: 1}
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    write_metrics(file, outcome(JUDGEMENT))
    decided = values(file)
    assert decided[failed] == 0
    write_no_decision(file, failed=True)
    assert values(file) == decided | {failed: 1}
    assert values(file)[success, frozenset()] == 1000.0
    write_no_decision(file, failed=False)
    assert values(file)[failed] == 0


@pytest.mark.parametrize("damaged", [b"\xff\xfe", b"eddy_refresh_judged{of= 3", b"\x00"])
def test_a_damaged_file_is_begun_anew(tmp_path: Path, damaged: bytes) -> None:
    file = tmp_path / "eddy.prom"
    file.write_bytes(damaged)
    write_no_decision(file, failed=True)
    assert values(file) == {("eddy_refresh_failed", frozenset()): 1}


@pytest.mark.parametrize(("ends_with", "is_failed"), [(NotYet("3 events"), 0), (EddyError("no room"), 1)])
def test_a_refresh_without_a_decision_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends_with: EddyError, is_failed: int
) -> None:
    def end(*_: object) -> None:
        raise ends_with

    monkeypatch.setattr("eddy.cli.refresh.refresh", end)
    file = tmp_path / "eddy.prom"
    with suppress(EddyError):
        run_refresh(load_settings(), RefreshOptions(), None, False, file)
    assert values(file)["eddy_refresh_failed", frozenset()] == is_failed


def test_a_refresh_is_no_work_for_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(EddyError, match="train under torchrun with `eddy train`"):
        run_refresh(load_settings(), RefreshOptions(), None, False, None)


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(EddyError, match="cannot be written"):
        write_metrics(tmp_path / "no-such-folder" / "eddy.prom", outcome({}))


def test_a_folder_for_it_that_is_missing_is_told_before_the_refresh_and_not_when_it_is_live(
    tmp_path: Path,
) -> None:
    file = tmp_path / "no-such-folder" / "eddy.prom"
    with pytest.raises(EddyError, match="no file could be written there"):
        run_refresh(load_settings(), RefreshOptions(), None, False, file)
