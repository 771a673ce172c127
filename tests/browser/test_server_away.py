"""The server is away, busy, or exchanged: the page says so, and comes back by itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser.conftest import Visit
from tests.browser.live_system import LiveSystem
from tests.support.engines import item_id

Refuse = Callable[[Route], None]

ASKED_ONCE = {
    "items": ("**/v1/items*", "table"),
    f"items/{item_id(1)}": ("**/v1/items/*", ".facts-list"),
    "user": ("**/v1/items*", ".tiles button"),
    "network": ("**/dynamics", ".chart .bar"),
    "person/alice": ("**/trace*", ".hidden-state canvas"),
    "now": ("**/v1/dead-letters*", ".reasons"),
}
"""Views with what they ask once, and what they show when it is answered."""


def away(route: Route) -> None:
    route.abort("connectionrefused")


def busy(route: Route) -> None:
    route.fulfill(
        status=503, json={"status": 503, "title": "Service Unavailable", "detail": "too much is asked"}
    )


@pytest.mark.parametrize("view", ASKED_ONCE)
@pytest.mark.parametrize("refuse", [away, busy])
def test_what_could_not_be_answered_is_asked_again(visit: Visit, view: str, refuse: Refuse) -> None:
    asked, shown = ASKED_ONCE[view]
    visit.page.route(asked, refuse)
    page = visit.open(view)
    expect(page.get_by_text("The page tries again by itself").first).to_be_visible()
    page.unroute(asked)
    expect(page.locator(shown).first).to_be_visible()
    expect(page.get_by_text("The page tries again by itself")).to_have_count(0)


def test_a_view_that_is_opened_while_the_server_is_away_opens_when_it_is_back(
    visit: Visit, system: LiveSystem
) -> None:
    page = visit.open("now")
    expect(page.locator("#connection")).to_have_text("live")
    system.kill_server()
    page.get_by_role("link", name="Items").click()
    expect(page.get_by_text("Disconnected")).to_be_visible()
    system.start_server()
    expect(page.locator("h1")).to_have_text("Items")
    expect(page.get_by_role("region", name="The most popular items")).to_be_visible()


def test_an_item_that_is_looked_at_stays_while_the_server_is_away(visit: Visit) -> None:
    page = visit.page
    page.clock.install()
    visit.open(f"items/{item_id(1)}")
    facts = page.locator(".facts-list").first
    expect(facts).to_be_visible()
    page.route("**/v1/items/*", away)
    page.clock.run_for(16_000)
    expect(page.locator(".block.stale")).to_be_visible()
    expect(facts).to_be_visible()
    page.unroute("**/v1/items/*")
    page.clock.run_for(16_000)
    expect(page.locator(".block.stale")).to_have_count(0)


def test_a_page_whose_files_are_older_than_the_server_s_offers_to_load_them(visit: Visit) -> None:
    files = "**/page/views/items.js"
    newer = "import { ofTomorrow } from '../api.js'; ofTomorrow();"
    visit.page.route(files, lambda route: route.fulfill(content_type="text/javascript", body=newer))
    page = visit.open("now")
    expect(page.locator("h1")).to_have_text("Now")
    page.get_by_role("link", name="Items").click()
    expect(page.get_by_text("This page is older than its server")).to_be_visible()
    page.unroute(files)
    page.get_by_role("button", name="Load it anew").click()
    expect(page.locator("h1")).to_have_text("Items")


def alerts(page: Page) -> int:
    """How often an alert was told to those who listen to the page."""
    return int(page.evaluate("window.alerts"))


def test_that_the_server_is_away_is_told_once(visit: Visit) -> None:
    page = visit.page
    asked: list[str] = []

    def note(route: Route) -> None:
        asked.append(route.request.url)
        away(route)

    page.route("**/v1/items*", note)
    visit.open("now")
    expect(page.locator("h1")).to_have_text("Now")
    page.evaluate(
        """() => {
          window.alerts = 0;
          new MutationObserver((changes) => {
            for (const { addedNodes } of changes)
              for (const node of addedNodes) if (node.matches?.("[role=alert]")) window.alerts++;
          }).observe(document.body, { childList: true, subtree: true });
        }"""
    )
    visit.open("items")
    table, waiting = page.get_by_text("Disconnected").nth(0), page.get_by_text("Disconnected").nth(1)
    expect(table).to_be_visible()
    expect(waiting).to_be_visible()
    while len(asked) < 6:
        page.wait_for_event("request", lambda request: "/v1/items" in request.url)
    assert alerts(page) == 2


def test_a_button_for_a_key_is_not_taken_away_by_the_next_question(
    browser: Browser, system: LiveSystem
) -> None:
    visit = Visit(browser, system, "no such key")
    page = visit.open("models")
    enter = page.get_by_role("button", name="Enter a key")
    enter.focus()
    for _ in range(2):
        page.wait_for_event("requestfinished", lambda request: request.url.endswith("/v1/versions"))
    expect(enter).to_be_focused()
    visit.close()


def told(*points: dict[str, Any]) -> Refuse:
    """A stream of the installation that tells these points, and ends."""
    body = "".join(f"event: now\ndata: {json.dumps(point)}\n\n" for point in points)
    return lambda route: route.fulfill(content_type="text/event-stream", body=body)


def nothing_before(route: Route) -> None:
    """A server that has just started has no history."""
    route.fulfill(json={"interval_ms": 1000, "points": []})


def test_a_stream_that_the_page_does_not_understand_is_said_to_be_one_and_asked_ever_more_seldom(
    visit: Visit,
) -> None:
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        told({"time": 1})(route)

    visit.page.route("**/v1/live/history", nothing_before)
    visit.page.route("**/v1/live", answer)
    page = visit.open("now")
    expect(page.get_by_text("The page does not understand the answer")).to_be_visible()
    page.wait_for_timeout(6_000)
    assert 2 <= len(asked) <= 6, "with pauses of .5, .85, 1.4 and 2.5 s, not of .5 s each"
    assert visit.complaints
    visit.complaints.clear()


def test_a_server_s_clock_that_is_set_back_does_not_stop_the_charts(visit: Visit, system: LiveSystem) -> None:
    now = system.ask("v1/live/history")["points"][-1]
    ahead = {**now, "time": now["time"] + 3_600_000, "rows": 111}
    visit.page.route("**/v1/live/history", nothing_before)
    visit.page.route("**/v1/live", told(ahead, {**now, "rows": 222}))
    page = visit.open("now")
    expect(page.locator(".facts")).to_contain_text("222 people")


def test_what_is_like_an_item_is_asked_again_where_the_server_could_not_say(visit: Visit) -> None:
    page = visit.page
    page.clock.install()
    for question in ("**/similar*", "**/v1/popular*"):
        page.route(question, busy)
    visit.open(f"items/{item_id(1)}")
    expect(page.get_by_text("The server could not say")).to_be_visible()
    expect(page.get_by_text("None: similarity comes from")).to_have_count(0)
    expect(page.get_by_text("Nothing is counted before there is a version")).to_have_count(0)
    for question in ("**/similar*", "**/v1/popular*"):
        page.unroute(question)
    page.clock.run_for(16_000)
    expect(page.locator(".similar li").first).to_be_visible()
    expect(page.get_by_text("counts half after")).to_be_visible()


@pytest.mark.parametrize(
    ("view", "asked", "nothing", "said", "shown"),
    [
        ("items", "**/v1/items*", {"items": []}, "There are no items yet", "table"),
        ("user", "**/v1/items*", {"items": []}, "There are no items yet", ".tiles button"),
        (
            "network", "**/v1/versions", {"epoch": None, "shares": {}, "versions": []},
            "No version is live yet", ".chart .bar",
        ),
    ],
)  # fmt: skip
def test_what_is_not_there_yet_is_shown_as_soon_as_it_is(
    visit: Visit, view: str, asked: str, nothing: dict[str, Any], said: str, shown: str
) -> None:
    visit.page.route(asked, lambda route: route.fulfill(json=nothing))
    page = visit.open(view)
    expect(page.get_by_text(said)).to_be_visible()
    page.unroute(asked)
    expect(page.locator(shown).first).to_be_visible()
