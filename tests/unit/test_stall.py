"""A stall is: the cluster answers, the log has more, and nothing was committed for too long."""

import pytest

from models.errors import EddyError
from stream.stall import StallWatch


def test_standing_still_behind_the_log_ends_the_worker() -> None:
    watch = StallWatch(limit_s=100)
    assert watch.observe({0: 5}, {0: 90}, now=0) == 0
    assert watch.observe({0: 5}, {0: 90}, now=10) == 0
    assert watch.observe({0: 5}, {0: 120}, now=60) == 50
    with pytest.raises(EddyError, match=r"partitions \[0\] have 115 records more"):
        watch.observe({0: 5}, {0: 120}, now=111)


def test_any_progress_starts_the_count_anew() -> None:
    watch = StallWatch(limit_s=100)
    for now, committed in ((0, 5), (90, 5), (95, 6), (190, 6)):
        assert watch.observe({0: committed, 1: None}, {0: 90, 1: 30}, now=now) < 100
    assert watch.observe({0: 6, 1: None}, {0: 90, 1: 30}, now=200) == 10


def test_markers_of_transactions_at_the_end_are_no_stall() -> None:
    watch = StallWatch(limit_s=1)
    for now in range(0, 1000, 100):
        assert watch.observe({0: 9}, {0: 11}, now=now) == 0


def test_nothing_to_read_is_no_stall() -> None:
    watch = StallWatch(limit_s=1)
    for now in range(0, 1000, 100):
        assert watch.observe({0: 9}, {0: 9}, now=now) == 0


def test_an_absent_cluster_is_no_stall_of_ours() -> None:
    watch = StallWatch(limit_s=1)
    for now in range(0, 1000, 100):
        assert watch.observe({0: 5}, {}, now=now) == 0
