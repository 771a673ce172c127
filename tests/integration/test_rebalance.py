"""What happens to rows when the members of a group change, on the real broker."""

from __future__ import annotations

import pytest

from tests.chaos.traffic import traffic
from tests.support.stage import PATIENCE_S, Stage
from tests.support.waiting import eventually


@pytest.mark.parametrize("standby", [False, True], ids=["alone", "with stand-by copies"])
def test_a_partition_that_stays_goes_on_with_its_rows_and_one_that_moves_begins_from_what_is_nearest(
    stage: Stage, standby: bool
) -> None:
    nearest = "a stand-by copy and the changelog's tail" if standby else "the changelog"
    first = stage.fleet.start(standby=standby)
    stage.send(traffic(1_000, users=50, seed=1))
    stage.await_end()
    # 1. Another worker joins and takes one of the two partitions.
    second = stage.fleet.start(standby=standby)
    eventually(second.sources, PATIENCE_S, "a partition at the second worker")
    ((moved, came_from),) = second.sources().items()
    assert came_from == [nearest]
    stage.send(traffic(1_000, users=50, seed=2))
    stage.await_end()
    of_moved = f'partition="{moved}"'
    eventually(
        lambda: not any(of_moved in name for name in first.metrics()), PATIENCE_S, "no figures of what moved"
    )
    # 2. It leaves, and the partition comes back.
    stage.fleet.remove(second)
    stage.send(traffic(1_000, users=50, seed=3))
    stage.await_end()
    stayed = 1 - moved
    assert len(first.sources()[stayed]) == 1, "its rows were read once, at the beginning"
    assert first.sources()[moved][1:] == [nearest]
    stage.fleet.stop()
    assert stage.fleet.unexpected == []
    assert stage.verdict().problems == []
