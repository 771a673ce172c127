"""The trial of canaries: which ranks count, when it looks, and what follows."""

from __future__ import annotations

import math

import pytest

from eddy.models.errors import EddyError
from eddy.stream.canary.trial import Limit, Trial
from eddy.stream.records.rank_counts import Told
from eddy.stream.records.schema import Announcement
from tests.unit.canary.ranks import BEGAN_MS, CANARY, EPOCH, LIVE, OTHER, announced, told

EVENTS = Limit(events=20_000)
HOUR = Limit(seconds=3600)


def judged(announcement: Announcement, records: list[Told], limit: Limit = EVENTS) -> Trial:
    """A trial that has heard of all these records, a second apart."""
    trial = Trial(announcement, limit)
    for number, record in enumerate(records):
        trial.take(BEGAN_MS + 1000 * number, record.sums)
    return trial


def verdict(trial: Trial) -> tuple[str, str, dict[str, int]] | None:
    """(kind, version, percents by version)"""
    if trial.verdict is None:
        return None
    decided, shares = trial.verdict.decided, trial.verdict.shares
    return decided.kind, decided.version, {share.version: percent for share, percent in shares}


def test_a_worse_canary_is_taken_back_before_the_trial_ends() -> None:
    trial = judged(announced(90, 10), told(1, 10_000, live=0.3, canary=0.1))
    assert verdict(trial) == ("taken back", CANARY, {LIVE: 100})
    assert trial.verdict is not None
    figures = trial.verdict.decided.figures
    assert figures["low"] < figures["difference"] < figures["high"] < 0
    assert figures["share_passed"] < 0.5
    assert (figures["canary_epoch"], figures["percent"]) == (EPOCH, 10)
    assert figures["mrr_at_20"] < figures["live_mrr_at_20"]
    assert "Worse" in trial.verdict.decided.reason


def test_a_better_canary_goes_live_before_the_trial_ends() -> None:
    trial = judged(announced(50, 50), told(2, 10_000, live=0.2, canary=0.35))
    assert verdict(trial) == ("promoted", CANARY, {CANARY: 100})


def test_a_canary_that_is_as_good_goes_live_when_the_trial_ends_and_no_sooner() -> None:
    for limit, at_end_ms in ((Limit(events=9_000), BEGAN_MS), (HOUR, BEGAN_MS + 3_600_000)):
        trial = Trial(announced(90, 10), limit)
        for record in told(3, 8_000, live=0.3, canary=0.3):
            trial.take(BEGAN_MS, record.sums)
        assert verdict(trial) is None
        trial.take(at_end_ms, told(4, 20_000, live=0.3, canary=0.3)[0].sums)
        assert verdict(trial) == ("promoted", CANARY, {CANARY: 100})
        assert trial.verdict is not None
        assert "Not worse" in trial.verdict.decided.reason


def test_a_canary_of_which_too_little_is_known_is_taken_back_when_the_time_is_over() -> None:
    trial = Trial(announced(90, 10), HOUR)
    trial.take(BEGAN_MS, told(1, 300, live=0.3, canary=0.3)[0].sums)
    trial.pass_time(BEGAN_MS + 3_599_000)
    assert verdict(trial) is None
    trial.pass_time(BEGAN_MS + 3_600_000)
    assert verdict(trial) == ("taken back", CANARY, {LIVE: 100})
    assert trial.verdict is not None
    assert "Too few" in trial.verdict.decided.reason
    assert all(math.isfinite(value) for value in trial.verdict.decided.figures.values())


def test_ranks_that_the_same_versions_made_at_another_epoch_do_not_count() -> None:
    before = told(1, 10_000, epoch=EPOCH - 2, live=0.3, canary=0.0)
    trial = judged(announced(90, 10), before)
    assert (verdict(trial), trial.events) == (None, 0)


def test_the_version_with_the_greatest_share_is_the_live_one_and_of_equal_ones_the_first() -> None:
    assert Trial(announced(10, 90), EVENTS).live.version == CANARY
    assert Trial(announced(50, 50), EVENTS).live.version == LIVE


def test_of_several_canaries_the_worse_one_gives_its_share_back_and_the_other_goes_on() -> None:
    trial = judged(announced(60, 20, 20), told(1, 15_000, live=0.3, canary=0.3, other=0.1))
    assert verdict(trial) == ("taken back", OTHER, {LIVE: 80, CANARY: 20})


def test_of_several_canaries_the_better_one_goes_live_for_all() -> None:
    trial = judged(announced(60, 20, 20), told(1, 15_000, live=0.2, canary=0.35, other=0.1))
    assert verdict(trial) == ("promoted", CANARY, {CANARY: 100})


def test_several_canaries_share_the_allowed_error() -> None:
    trials = [
        judged(announced(*percents), told(1, 30_000, live=0.3, canary=0.3, other=0.3), Limit(events=20_000))
        for percents in ((80, 20), (60, 20, 20))
    ]
    one, two = (trial.verdict.decided.figures["level"] for trial in trials if trial.verdict is not None)
    assert two == pytest.approx(one / 2)


def test_a_watcher_that_starts_again_takes_the_same_looks_at_the_same_counts() -> None:
    records = told(5, 12_000, live=0.3, canary=0.22)
    once = Trial(announced(90, 10), HOUR)
    for number, record in enumerate(records):  # it looks at the clock between records
        once.take(BEGAN_MS + 300_000 * number, record.sums)
        once.pass_time(BEGAN_MS + 300_000 * number + 200_000)
    again = Trial(announced(90, 10), HOUR)
    for number, record in enumerate(records):
        again.take(BEGAN_MS + 300_000 * number, record.sums)
    assert once.verdict is not None
    assert again.verdict is not None
    assert once.verdict.decided.figures == again.verdict.decided.figures


@pytest.mark.parametrize(
    "limit", [{}, {"seconds": 0}, {"events": -1}, {"seconds": math.inf}, {"seconds": math.nan}]
)
def test_a_trial_without_an_end_is_refused(limit: dict[str, float]) -> None:
    with pytest.raises(EddyError, match="limit"):
        Limit(**limit)  # type: ignore[arg-type]
