"""Which events a refresh learns from and which it judges on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eddy.models.registry import publish
from eddy.models.rules import EVERY_EVENT
from eddy.refresh.windows import (
    MOST_JUDGED,
    NotYet,
    before,
    names_of,
    times_of,
    times_to_judge,
    until,
    window_at,
)
from tests.support.training import random_log
from tests.unit.models.test_registry import trained

pytestmark = pytest.mark.unit

EVENTS = random_log(n=1000)


def test_the_last_part_of_the_unseen_events_is_judged_and_as_many_before_it_tune() -> None:
    times = times_of(EVENTS, 600, 0.25)
    window = window_at(EVENTS, times)
    assert (window.tuning, window.start) == (800, 900)
    assert times.until_ms == EVENTS.timestamp[-1]
    learned = before(EVENTS, window.start)
    assert int(learned.timestamp[-1]) < times.since_ms


def test_events_at_one_moment_are_not_torn_apart() -> None:
    same = replace(EVENTS, timestamp=np.where(np.arange(1000) < 850, EVENTS.timestamp, EVENTS.timestamp[850]))
    times = times_of(same, 600, 0.25)
    assert window_at(same, times).start == 850


def test_a_window_is_no_longer_than_it_takes() -> None:
    long = random_log(n=3 * MOST_JUDGED)
    times = times_of(long, 0, 1.0)
    window = window_at(long, times)
    assert (window.tuning, window.start) == (MOST_JUDGED, 2 * MOST_JUDGED)


def test_later_events_do_not_change_what_a_refresh_is_about() -> None:
    times = times_of(EVENTS.take(slice(0, 700)), 0, 0.1)
    again = until(EVENTS, times.until_ms)
    assert len(again) == 700
    assert times_of(again, 0, 0.1) == times


def test_a_version_that_knows_an_event_of_the_future_is_told_as_the_reason_why_nothing_is_new(
    tmp_path: Path,
) -> None:
    given = trained()
    usual = publish(tmp_path, replace(given, metrics={"until_ms": int(EVENTS.timestamp[-1])}), {})
    ahead = publish(tmp_path, replace(given, metrics={"until_ms": 4_070_908_800_000}), {})
    assert names_of([usual]) == usual.id
    assert names_of([ahead]).startswith(f"{ahead.id} (trained on an event of 2099-01-01, a wrong time")
    with pytest.raises(NotYet, match="2099-01-01"):
        times_to_judge(EVENTS, [ahead], 1.0, EVERY_EVENT, "all")
