"""The demo's figures: what they count, and what makes the demo fail."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import httpx
import numpy as np
import pytest

from eddy.demo.board import Board
from eddy.demo.data import generated, split, watched_user
from eddy.demo.freshness import Freshness
from eddy.demo.scrape import QUALITY, Scraper, over_versions
from eddy.demo.summary import Summary
from eddy.models.logs.events import Events
from eddy.stream.records.settings import load_settings

GOOD = Summary(
    events_in=103, events_applied=100, events_generated=0, dead_letters=3, recommendations_out=90, mode="all",
    events_ranked=80, recall_at_20=0.3, mrr_at_20=0.1, popularity_recall_at_20=0.2,
    popularity_mrr_at_20=0.05, with_backlog={},
    model_versions=2, refresh="went live", refresh_reason="mrr@20 is above", throughput_events_per_s=1000,
    p50_ms=40, p99_ms=200,
    freshness_events=50, http_answers=9, http_failures=0, watched_user="ada", watched_list_changes=3,
    quick=False, first_version_from_cache=False, seconds=200,
)  # fmt: skip


def log_of(users: list[int]) -> Events:
    n = len(users)
    return Events(
        user=np.array(users, np.int32), item=np.zeros(n, np.int32), timestamp=np.arange(n, dtype=np.int64),
        type=np.zeros(n, np.int16), value=np.full(n, np.nan, np.float32), users=["ada", "bob", "eve"],
        items=["heat"], types=["view"],
    )  # fmt: skip


def test_a_run_that_keeps_its_promises_has_no_failures() -> None:
    assert GOOD.failures(malformed=3, paced=50) == []


@pytest.mark.parametrize(
    "broken",
    [
        {"events_applied": 99},
        {"events_applied": 101},
        {"dead_letters": 2, "events_applied": 101},
        {"freshness_events": 49},
        {"model_versions": 1},
        {"http_failures": 1},
        {"recall_at_20": 0.2},
        {"mrr_at_20": 0.05},
    ],
)
def test_each_broken_promise_is_one_failure(broken: dict[str, float]) -> None:
    assert len(replace(GOOD, **broken).failures(malformed=3, paced=50)) == 1  # type: ignore[arg-type]


def test_a_second_version_that_the_gate_refused_is_no_broken_promise() -> None:
    assert replace(GOOD, model_versions=1, refresh="refused").failures(malformed=3, paced=50) == []


def test_freshness_ends_with_the_first_list_that_includes_the_event() -> None:
    fresh = Freshness(load_settings(), lambda answer: None)
    fresh.appended = {
        (0, 1): (b"ada", 1000),
        (0, 2): (b"ada", 1010),
        (0, 3): (b"bob", 1020),
        (1, 2): (b"eve", 1000),
    }
    fresh.readable = {(0, 2): 1050.0, (0, 3): 1040.0}
    # ada's first event has no list of its own: the one of her second includes it. eve's is not answered.
    assert sorted(fresh.milliseconds().tolist()) == [20, 40, 50]


def test_quality_counts_only_what_came_after_the_known_events() -> None:
    scraper = Scraper(httpx.AsyncClient(), "", Board())
    scraper.quality = {"events": 100.0, "recall_at_20": 0.9}
    scraper.count_quality_from_here()
    assert scraper.since() == {}
    scraper.quality = {"events": 200.0, "recall_at_20": 0.6}
    assert scraper.since() == pytest.approx({"events": 100, "recall_at_20": 0.3})


def test_the_figures_of_a_version_that_is_gone_count_on() -> None:
    """A worker tells of the versions in use."""
    told = [{"first": 30}, {"first": 40, "second": 10}, {"second": 20}]

    def answer(_: httpx.Request) -> httpx.Response:
        events = told.pop(0)
        lines = [f'{QUALITY}{{metric="events",version="{name}"}} {n}\n' for name, n in events.items()]
        return httpx.Response(200, text="".join(lines))

    async def scrape() -> list[float]:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            scraper, seen = Scraper(client, "http://worker/metrics", Board()), []
            for _ in range(3):
                await scraper.worker()
                seen.append(scraper.quality["events"])
            return seen

    assert asyncio.run(scrape()) == [30, 50, 60]


def test_generated_events_are_of_other_users_and_come_later() -> None:
    log = log_of([0, 1, 0])
    again = generated(log, 2)
    assert not set(again.users) & set(log.users)
    assert again.timestamp[0] > log.timestamp[-1] + 2
    assert np.diff(again.timestamp).tolist() == np.diff(log.timestamp).tolist()


def test_what_is_known_comes_before_what_is_live() -> None:
    known, live = split(log_of([0, 1, 0, 1, 2]))
    assert (len(known), len(live)) == (4, 1)
    assert known.timestamp[-1] < live.timestamp[0]


def test_the_watched_user_has_a_past_and_the_most_to_come() -> None:
    known, live = log_of([0] * 6 + [1] * 5), log_of([2, 2, 2, 1, 1, 0])
    assert watched_user(known, live) == "bob"


def test_the_quality_of_several_versions_is_the_mean_over_all_of_their_events() -> None:
    first, second = {"events": 30.0, "recall_at_20": 0.2}, {"events": 10.0, "recall_at_20": 0.6}
    assert over_versions([first, second]) == pytest.approx({"events": 40, "recall_at_20": 0.3})
    assert over_versions([]) == {}
