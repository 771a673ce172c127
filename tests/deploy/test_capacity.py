"""The capacity model: its table in README.md is what it prints now, and it answers as one expects."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from tests.deploy.files import DEPLOY, ROOT, loaded

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def capacity() -> ModuleType:
    return loaded(DEPLOY / "capacity.py")


def plan(capacity: ModuleType, events: float, users: float, **size: Any) -> Any:
    return capacity.plan(capacity.Size(events, users, **size), capacity.read_measured(), capacity.Assumed())


def test_the_table_of_the_readme_is_what_the_model_prints(capacity: ModuleType) -> None:
    printed = capacity.table(capacity.SIZES, capacity.read_measured(), capacity.Assumed())
    assert printed in (ROOT / "README.md").read_text(encoding="utf-8"), "run `python deploy/capacity.py`"


@pytest.mark.parametrize(("events", "users"), [(1, 1), (10_000, 1e6), (400_000, 3e7), (1e6, 1e8)])
def test_the_workers_keep_up_at_half_of_their_capacity(
    capacity: ModuleType, events: float, users: float
) -> None:
    needed = plan(capacity, events, users)
    assert 0.5 * needed.workers * needed.worker_events_per_s >= events
    assert needed.partitions >= needed.workers


def test_more_users_never_need_fewer_of_anything(capacity: ModuleType) -> None:
    few, many = plan(capacity, 100_000, 1e6), plan(capacity, 100_000, 1e8)
    assert many.workers >= few.workers
    assert many.server_memory > few.server_memory
    assert many.written["user-state"] > few.written["user-state"]


def test_a_checkpoint_writes_each_user_once(capacity: ModuleType) -> None:
    assert capacity.rows_per_event(1, 100) == pytest.approx(1 / 100)
    assert capacity.rows_per_event(1_000_000, 1) == pytest.approx(1)
    assert capacity.rows_per_event(1_000, 1_000_000) == pytest.approx(1_000 / 1_000_000, rel=0.01)


def test_without_lists_nothing_is_written_to_recommendations(capacity: ModuleType) -> None:
    assert plan(capacity, 10_000, 1e6, emit="off").written["recommendations"] == 0


@pytest.mark.parametrize("option", ["--events", "--users", "--checkpoint-ms"])
@pytest.mark.parametrize("given", ["0", "-5", "nan", "inf"])
def test_a_size_of_nothing_is_refused_in_a_line(option: str, given: str) -> None:
    done = subprocess.run(
        [sys.executable, DEPLOY / "capacity.py", "--events", "1000", option, given],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(f"invalid positive value: '{given}'")
