"""A run of the benchmark says what it could not measure, and keeps what it did."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eddy.models.errors import EddyError
from tests.bench import sections
from tests.bench.freshness_runs import name_of
from tests.bench.plan import QUICK
from tests.bench.sections import Run, freshness, results_of_each


def fail() -> Any:
    raise EddyError("the workers went on strike")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run that writes to a folder of its own."""
    monkeypatch.setattr(sections, "HERE", tmp_path)
    return Run(QUICK)


def test_what_is_missing_is_said_at_the_end_and_what_was_measured_is_kept(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run.section("memory", lambda: {"rss": 1})
    assert run.log.exit_code() == 0
    (run.target / "growth.json").write_text("recorded")
    run.section("membership", fail)
    run.section("growth", list)
    assert run.log.exit_code() == 1
    assert capsys.readouterr().err.splitlines() == [
        "missing: membership: the workers went on strike", "missing: growth: nothing was measured",
    ]  # fmt: skip
    assert json.loads((run.target / "memory.json").read_text())["memory"] == {"rss": 1}
    assert not (run.target / "membership.json").exists()
    assert (run.target / "growth.json").read_text() == "recorded"


def test_without_time_what_is_left_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "left", 0.0)
    run.section("memory", fail)
    assert results_of_each(run, "topk", [(1,)], 1.0) == []
    assert len(run.log.missing) == 2


def test_a_point_that_fails_is_missing_and_takes_no_other_one_with_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sections, "result_of", lambda _, point, **__: fail() if point else "measured")
    assert results_of_each(run, "topk", [(0,), (1,), (0,)], 1.0) == ["measured", "measured"]
    assert run.log.missing == ["the workers went on strike"]


def test_a_program_whose_freshness_fails_or_ends_early_takes_no_other_one_with_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = [*(each for each in QUICK.freshness), *(each for each, _ in QUICK.fresh_peers)]

    def measured(_: Any, program: Any, *__: Any) -> Iterator[dict[str, Any]]:
        yield {"run": name_of(program)}
        if name_of(program) == name_of(programs[0]):
            fail()

    monkeypatch.setattr(sections, "measure_freshness", measured)
    run.figures["throughput"] = {name_of(program): {"median": 1.0} for program in programs}
    rows = freshness(run, None)  # type: ignore[arg-type]
    assert len(rows) == len(programs) == len(run.log.missing)
    assert "strike" in run.log.missing[0]
    assert all("no time is left" in line for line in run.log.missing[1:])
