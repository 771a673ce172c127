"""A stall is: the cluster answers, something is left to read or to commit, and nothing was committed for too
long.
"""

import pytest

from eddy.models.errors import EddyError
from eddy.stream.worker.liveness import StallWatch, Standing
from eddy.stream.worker.transport import Reading


def standing(
    done: int | None, end: int, position: int | None = None, handed: int | None = None, start: int = 0
) -> Standing:
    return Standing(done, None if position is None else Reading(position, end, handed, 0), start, end)


def test_standing_still_behind_the_log_ends_the_worker() -> None:
    watch = StallWatch(limit_s=100)
    assert watch.stalled_seconds({0: standing(5, 90)}, now=0) == 0
    assert watch.stalled_seconds({0: standing(5, 90)}, now=10) == 0
    assert watch.stalled_seconds({0: standing(5, 120)}, now=60) == 50
    with pytest.raises(EddyError, match=r"partitions \[0\] have 115 records more"):
        watch.stalled_seconds({0: standing(5, 120)}, now=111)


def test_any_progress_starts_the_count_anew() -> None:
    watch = StallWatch(limit_s=100)
    for now, committed in ((0, 5), (90, 5), (95, 6), (190, 6)):
        assert watch.stalled_seconds({0: standing(committed, 90), 1: standing(None, 30)}, now=now) < 100
    assert watch.stalled_seconds({0: standing(6, 90), 1: standing(None, 30)}, now=200) == 10


@pytest.mark.parametrize(
    "quiet",
    [
        pytest.param(standing(9, 9), id="all committed"),
        pytest.param(standing(9, 9, position=9, handed=9), id="all read and committed"),
        pytest.param(standing(9, 11, position=11, handed=9), id="transactions' markers at the end"),
        pytest.param(standing(5, 320, start=320), id="committed before what retention has removed"),
        pytest.param(standing(None, 320, start=320), id="a new group on an expired partition"),
        pytest.param(standing(None, 322, position=322, start=320), id="markers alone are left of the log"),
        pytest.param(standing(None, 320, position=320), id="restored, and nothing new since"),
        pytest.param(standing(400, 320, position=320), id="a log that was cut"),
    ],
)
def test_nothing_left_is_no_stall(quiet: Standing) -> None:
    watch = StallWatch(limit_s=1)
    assert quiet.left == 0
    for now in range(0, 1000, 100):
        assert watch.stalled_seconds({0: quiet}, now=now) == 0


@pytest.mark.parametrize(
    ("stuck", "left"),
    [
        pytest.param(standing(100, 500, position=200, handed=100), 300, id="not fetched"),
        pytest.param(standing(100, 500, position=500, handed=500), 400, id="fetched but not committed"),
        pytest.param(standing(None, 500, position=320, start=320), 180, id="from the log's start on"),
        pytest.param(standing(None, 500, start=320), 180, id="without a position"),
        pytest.param(standing(None, 1, position=0), 1, id="one record"),
    ],
)
def test_what_is_left_counts_however_it_is_stuck(stuck: Standing, left: int) -> None:
    watch = StallWatch(limit_s=1)
    assert stuck.left == left
    watch.stalled_seconds({0: stuck}, now=0)
    watch.stalled_seconds({0: stuck}, now=1)
    with pytest.raises(EddyError, match=f"have {left} records more"):
        watch.stalled_seconds({0: stuck}, now=10)


def test_an_absent_cluster_is_no_stall_of_ours() -> None:
    watch = StallWatch(limit_s=1)
    watch.stalled_seconds({0: standing(5, 90)}, now=0)
    for now in range(0, 1000, 100):
        assert watch.stalled_seconds({}, now=now) == 0
