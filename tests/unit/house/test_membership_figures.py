"""The arithmetic of the benchmark's section "membership"."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench.answered import Answered
from tests.bench.group import fewest_moves, moved_partitions
from tests.bench.report import table


def test_a_gap_is_the_longest_time_between_answers_of_one_partition() -> None:
    appended = [np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.0, 1.0])]
    answered = [np.array([0.1, 1.1, 4.6, 4.6]), np.array([0.5, 1.0])]
    seen = Answered(appended, answered, answered, until=5.0)
    assert seen.gap({0, 1}) == pytest.approx(3.5)
    assert seen.gap({1}) == pytest.approx(0.5)
    assert seen.delay({0, 1}) == pytest.approx(2.6)
    assert seen.late_until(1.0) == pytest.approx(4.6)
    assert seen.late_until(3.0) == 0


def test_an_event_without_an_answer_waits_until_the_end() -> None:
    answered, advanced = [np.array([0.1, np.nan])], [np.array([0.1])]
    seen = Answered([np.array([0.0, 1.0])], answered, advanced, until=5.0)
    assert seen.unanswered == 1
    assert seen.gap({0}) == pytest.approx(4.9)
    assert seen.delay({0}) == pytest.approx(4.0)


def test_a_gap_begins_with_the_first_event_and_ends_with_answers_to_earlier_ones() -> None:
    appended, answered = [np.array([10.0, 11.0])], [np.array([14.0, 14.0])]
    assert Answered(appended, answered, answered, until=15.0).gap({0}) == pytest.approx(4.0)
    advanced = [np.array([10.5, 11.5, 13.0, 14.0, 14.0])]
    assert Answered(appended, answered, advanced, until=15.0).gap({0}) == pytest.approx(1.5)


def test_no_partitions_have_no_gap() -> None:
    seen = Answered([np.array([0.0])], [np.array([0.1])], [np.array([0.1])], until=5.0)
    assert (seen.gap(()), seen.delay(()), seen.p99(())) == (None, None, None)


def test_the_rate_counts_from_the_first_answer_to_the_last() -> None:
    answered = [np.array([1.0, 2.0]), np.array([2.0, 3.0, np.nan])]
    seen = Answered([np.zeros(2), np.zeros(3)], answered, answered, until=9.0)
    assert seen.rate == pytest.approx(2.0)


def test_a_partition_moved_when_another_member_had_it_meanwhile() -> None:
    assert moved_partitions([{0: "a", 1: "b"}, {0: "a"}, {0: "a", 1: "a"}, {0: "a", 1: "b"}]) == {1}


@pytest.mark.parametrize(
    ("before", "after", "moves"),
    [
        ("aaaabbbb", "aaaabbbb", 0),
        ("aaaaaabbbbbb", "aaaabbbbcccc", 4),  # a third one joins
        ("aaaabbbbcccc", "aaaaaabbbbbb", 4),  # it leaves again
        ("aaaaaabbbbbb", "bbbbbbcccccc", 6),  # one is restarted under another id
        ("aaabb", "aabbc", 1),
        ("aaaabbbb", "bbbbaaaa", 0),  # none had to
    ],
)
def test_as_few_partitions_have_to_move_as_equal_shares_allow(before: str, after: str, moves: int) -> None:
    assert fewest_moves(dict(enumerate(before)), dict(enumerate(after))) == moves


def test_the_table_names_goals_beside_what_was_measured() -> None:
    change = {"change": "joins", "rows": 50_000, "moved": 4, "had_to_move": 4, "late_for_s": 1.5}
    stay, move = ({"gap_s": gap, "delay_s": gap, "p99_ms": 900.0} for gap in (0.75, 2.5))
    membership = {"rebalances": [{**change, "stay": stay, "move": move, "load_average": 1.0}]}
    text = table({"membership": membership}, dict.fromkeys(TARGETS))
    assert "gap s, stay (≤ 1)" in text
    assert "| joins | 50,000 | 4 / 4 | 0.75 | 2.5 |" in text


TARGETS = (
    "ratio_faust", "ratio_quix", "ratio_handwritten", "share_of_allowed", "off_share_of_decode", "p50_ms",
    "p99_ms", "topk100k_ratio", "topk100k_recall", "memory_growth",
)  # fmt: skip
