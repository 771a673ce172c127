"""How soon after a checkpoint the next one begins."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from eddy.stream.worker.checkpoint_pace import MOST_OFTEN, SHARE, interval_s
from tests.support.leaping_loop import in_leaping_time
from tests.support.memory_stage import memory_stage
from tests.unit.worker.conftest import Versions
from tests.unit.worker.doings import CHECKPOINT_MS, EVENTS


@pytest.mark.parametrize(
    ("took_s", "expected_s"),
    [(0.0, 0.05), (0.01, 0.05), (0.02, 0.08), (0.04, 0.16), (0.06, 0.2), (3.0, 0.2)],
    ids=["nothing to do", "quick", "ordinary", "slow", "busy", "stuck"],
)
def test_quick_checkpoints_follow_each_other_sooner_but_never_take_much_of_the_time(
    took_s: float, expected_s: float
) -> None:
    assert interval_s(took_s, 0.2) == pytest.approx(expected_s)


@pytest.mark.parametrize("longest_s", [0.001, 0.2, 60])
@pytest.mark.parametrize("took_s", [0, 0.005, 0.05, 0.5, 5])
def test_the_settings_bound_the_interval_on_both_sides(took_s: float, longest_s: float) -> None:
    interval = interval_s(took_s, longest_s)
    assert longest_s / MOST_OFTEN <= interval <= longest_s
    assert took_s / interval <= SHARE or interval == longest_s


@in_leaping_time
async def test_while_checkpoints_are_quick_rows_are_durable_long_before_the_interval_is_over(
    tmp_path: Path, versions: Versions
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        await stage.start_owner("a", checkpoint_ms=CHECKPOINT_MS)
        await stage.make_durable(EVENTS)
        began = asyncio.get_running_loop().time()
        await stage.make_durable(EVENTS)
        assert asyncio.get_running_loop().time() - began < CHECKPOINT_MS / 1000 / 2
        await stage.require_promises()


@in_leaping_time
async def test_after_a_checkpoint_that_took_long_the_next_one_waits_for_the_whole_interval(
    tmp_path: Path, versions: Versions
) -> None:
    async with memory_stage(tmp_path, versions.first) as stage:
        worker, clock = (
            await stage.start_owner("a", checkpoint_ms=CHECKPOINT_MS),
            asyncio.get_running_loop().time,
        )
        hold = stage.kafka.hold("end transaction", worker.client)
        stage.produce(EVENTS)
        await hold.reached.wait()
        began = clock()
        await stage.pass_time(CHECKPOINT_MS / 1000 / 2)
        hold.release()
        await stage.until_durable()
        await stage.make_durable(EVENTS)
        assert clock() - began >= CHECKPOINT_MS / 1000
        await stage.require_promises()
