"""What happens to rows when the members of a group change, on the real broker."""

from __future__ import annotations

import re

import pytest

from tests.chaos.fleet import Worker
from tests.chaos.traffic import traffic
from tests.support.stage import PATIENCE_S, Stage
from tests.support.waiting import eventually


def sources(worker: Worker) -> dict[int, list[str]]:
    """Where the rows came from each time that a partition began anew at a worker, by partition."""
    sources: dict[int, list[str]] = {}
    for number, source in re.findall(
        r"partition (\d+): \d+ rows from (.*) in [\d.]+ s", worker.log().decode()
    ):
        sources.setdefault(int(number), []).append(source)
    return sources


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
    eventually(lambda: sources(second), PATIENCE_S, "a partition at the second worker")
    ((moved, came_from),) = sources(second).items()
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
    assert len(sources(first)[stayed]) == 1, "its rows were read once, at the beginning"
    assert sources(first)[moved][1:] == [nearest]
    stage.fleet.stop()
    assert stage.fleet.unexpected == []
    assert stage.verdict().problems == []
