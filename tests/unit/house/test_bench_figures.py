"""The benchmark's own arithmetic: where it were wrong, every figure would be, and nobody would see it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.bench.memory import Samples
from tests.bench.observe import Curve, Window
from tests.bench.report import Origin, describe_origins, reduced_precision
from tests.bench.stages import allowed, rows_per_event
from tests.bench.throughput import ratio
from tests.bench.workload import Workload, message


def test_a_rate_counts_only_what_was_done_inside_the_window() -> None:
    curve = Curve([0.0, 10.0, 20.0], [0, 1_000, 5_000])
    assert curve.rate(Window(10, 5)) == pytest.approx(400)
    assert curve.rate(Window(5, 10)) == pytest.approx((3_000 - 500) / 10)


def test_a_window_in_which_the_backlog_ends_ends_with_the_backlog() -> None:
    curve = Curve([0.0, 10.0, 20.0, 30.0], [0, 1_000, 2_000, 2_000])
    assert curve.rate(Window(10, 20)) == pytest.approx(100)


def test_a_window_without_progress_has_no_rate() -> None:
    curve = Curve([0.0, 10.0, 20.0], [0, 1_000, 1_000])
    with pytest.raises(ValueError, match="nothing was done"):
        curve.rate(Window(12, 5))


def _runs(**rates: dict[str, float]) -> dict[str, Any]:
    return {
        name: {"rounds": {number: {"rate": rate} for number, rate in rounds.items()}}
        for name, rounds in rates.items()
    }


def test_a_ratio_pairs_the_same_rounds_and_leaves_out_those_that_one_program_missed() -> None:
    runs = _runs(ours={"1": 10.0, "2": 40.0, "3": 90.0}, theirs={"1": 10.0, "3": 30.0}, other={"4": 1.0})
    assert ratio(runs, "ours", "theirs") == pytest.approx(2.0)
    with pytest.raises(ValueError, match="same round"):
        ratio(runs, "ours", "other")


def test_rows_per_event_falls_as_users_repeat_within_a_checkpoint() -> None:
    user = np.tile(np.arange(100), 50)
    assert rows_per_event(user, 50) == pytest.approx(1.0)
    assert rows_per_event(user, 200) == pytest.approx(0.5, abs=0.01)


def test_allowed_is_the_rate_of_the_stages_one_after_another() -> None:
    stages = {
        "fetch_decode": 100.0, "c": 50.0, "score_cell_int8": 25.0, "encode_produce": 20.0,
        "changelog_rows": 10.0,
    }  # fmt: skip
    assert allowed(stages, "cell", "int8", 0.5, "c") == pytest.approx(1 / (0.01 + 0.02 + 0.04 + 0.05 + 0.05))


def test_memory_growth_is_the_last_quarter_over_the_median_after_the_first() -> None:
    events = list(range(0, 101, 5))
    flat = Samples(events, [100] * 5 + [1_000] * 16)
    assert flat.growth() == pytest.approx(0.0)
    assert Samples(events, [1_000] * 20 + [1_300]).growth() == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("taken", "recall", "measured"),
    [("int8", 0.995, "int8"), ("int8", 0.98, None), ("float32", 1.0, None)],
)
def test_a_reduced_precision_is_measured_where_users_get_it_and_its_lists_are_right(
    taken: str, recall: float, measured: str | None
) -> None:
    rows: list[dict[str, Any]] = [
        {"items": 10_000, "precision": "bfloat16", "taken": "bfloat16", "recall_at_10": 1.0},
        {"items": 10_000, "precision": "auto", "taken": taken, "recall_at_10": recall},
        {"items": 100_000, "precision": "auto", "taken": "bfloat16", "recall_at_10": 1.0},
    ]
    assert reduced_precision({"topk": rows}) == measured
    assert reduced_precision({}) is None


def test_the_page_says_of_which_run_each_section_is() -> None:
    earlier, later = Origin("0dc4df8", "2026-11-27", 1.09), Origin("5aee02b", "2026-11-30", 0.2)
    origins = {"topk": earlier, "throughput": earlier, "growth": later}
    assert describe_origins(origins) == (
        "topk, throughput: commit 0dc4df8, 2026-11-27, load before the run 1.09; "
        "growth: commit 5aee02b, 2026-11-30, load before the run 0.2"
    )


def test_the_workload_is_the_same_every_time_and_follows_zipf() -> None:
    workload = Workload(users=1_000, items=100)
    user, item = workload.draw(200_000)
    again, _ = workload.draw(200_000)
    np.testing.assert_array_equal(user, again)
    counts = np.sort(np.bincount(user, minlength=1_000))[::-1]
    assert counts[0] / counts[9] == pytest.approx(10, rel=0.1)
    assert item.max() < 100
    assert message(3, 7, 5) == (
        b"user-3", b'{"user_id":"user-3","item_id":"item-7","timestamp":5,"event_type":"view"}',
    )  # fmt: skip
