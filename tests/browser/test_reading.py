"""What a reader looks at stays in hand while events come, whatever items and people are called."""

from __future__ import annotations

import json
import re
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, Route, expect

from eddy.stream.kafka.versions import announce_shares
from eddy.stream.records.schema import Event, encode
from tests.browser.conftest import Visit
from tests.browser.live_system import LiveSystem
from tests.support.waiting import eventually

FOCUSED = "document.activeElement.dataset.keep ?? document.activeElement.className"


def focused(page: Page) -> str:
    """What the element that has the focus is known by."""
    return str(page.evaluate(FOCUSED))


@pytest.mark.parametrize("part", [".timeline a", ".list a"])
def test_a_link_has_the_focus_still_when_a_person_s_events_come(
    visit: Visit, system: LiveSystem, part: str
) -> None:
    page = visit.open("person/alice")
    expect(page.locator(".list li")).to_have_count(10)
    expect(page.locator(".hidden-state")).to_have_count(1)
    page.locator(part).first.focus()
    place = page.locator(".person p.number").first
    before = place.inner_text()
    system.send(3, ["alice"])
    expect(place).not_to_have_text(before)
    assert page.evaluate("document.activeElement.matches('.timeline a, .list a')"), focused(page)


def test_a_value_of_the_hidden_state_that_is_read_stays_when_events_come(
    visit: Visit, system: LiveSystem
) -> None:
    page = visit.open("person/chen")
    surface, read = page.locator(".hidden-state .surface"), page.locator(".hidden-state output")
    caption = page.locator(".hidden-state figcaption")
    expect(caption).to_contain_text("GRU")
    surface.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    expect(read).to_contain_text("unit")
    unit_and_event, before = read.inner_text(), caption.inner_text()
    system.send(1, ["chen"])
    expect(caption).not_to_have_text(before)
    expect(read).to_have_text(unit_and_event)
    expect(surface).to_be_focused()


def test_the_colours_of_the_hidden_state_have_a_scale(visit: Visit) -> None:
    page = visit.open("person/alice")
    scale = page.locator(".hidden-state .scale")
    expect(scale).to_have_text(re.compile(r"a unit’s value −1\s*\+1"))
    fills = scale.locator("rect").evaluate_all("rects => rects.map(rect => rect.getAttribute('fill'))")
    assert len(set(fills)) == len(fills) > 20


def test_a_strip_of_the_networks_has_the_focus_while_they_play(visit: Visit) -> None:
    page = visit.open("network")
    page.get_by_role("button", name="Reset").click()
    strip = page.get_by_role("region", name="GRU, unrolled", exact=True)
    strip.focus()
    page.get_by_label("t = 0").evaluate(
        "slider => { slider.value = 3; slider.dispatchEvent(new Event('input')) }"
    )
    expect(strip.locator(".path")).to_have_count(3)
    expect(strip).to_be_focused()


def test_another_version_is_chosen_where_the_reader_is(visit: Visit, system: LiveSystem) -> None:
    announce_shares(system.settings, [(version, 50) for version in system.versions])
    eventually(
        lambda: all(each["loaded"] for each in system.ask("v1/versions")["versions"]), 30, "both versions"
    )
    page = visit.open("person/alice")
    choice = page.get_by_label("Side by side with")
    expect(choice.locator("option")).to_have_count(3)
    choice.focus()
    scrolled = page.evaluate("scrollTo(0, 400), scrollY")
    choice.select_option(system.versions[1].id)
    expect(page.locator(".hidden-state")).to_have_count(2)
    expect(page).to_have_url(re.compile(f"#/person/alice\\?with={system.versions[1].id}$"))
    expect(choice).to_be_focused()
    assert scrolled > 0
    assert page.evaluate("scrollY") == scrolled
    page.reload()
    expect(page.locator(".hidden-state")).to_have_count(2)
    choice.select_option("")
    expect(page.locator(".hidden-state")).to_have_count(1)


def test_a_version_that_is_gone_does_not_hide_a_person_s_state(visit: Visit) -> None:
    page = visit.open("person/alice?with=v000099-gone")
    expect(page.get_by_text("version v000099-gone is not loaded here")).to_be_visible()
    expect(page.locator(".hidden-state")).to_have_count(1)
    expect(page.locator(".list")).to_have_count(1)


def test_names_of_any_length_and_direction_leave_the_page_readable(visit: Visit, system: LiveSystem) -> None:
    titles = {"long": "W" * 10_000, "many-words": "word " * 2_000, "turned": "\N{RIGHT-TO-LEFT OVERRIDE}abc"}
    user = "u" * 1_000
    described = [(item, json.dumps({"item_id": item, "title": title})) for item, title in titles.items()]
    system.write(system.settings.topics.items, [(item, text.encode()) for item, text in described])
    now = system.ask("v1/live/history")["points"][-1]["time"]
    events = [Event(user, item, now + n) for n, item in enumerate(titles)]
    system.write(system.settings.topics.events, [(user, encode(event)) for event in events])
    eventually(lambda: system.ask(f"v1/users/{user}/recommendations")["known"], 30, "the user's row")
    visit.page.set_viewport_size({"width": 390, "height": 844})
    for view in (f"person/{user}", "items", "items/long", f"items/{quote('many-words')}", "user"):
        page = visit.open(view)
        expect(page.get_by_text(re.compile("WWWW.*…|word word.*…")).first).to_be_attached()
        height = page.evaluate("document.documentElement.scrollHeight")
        assert height < 6_000, f"{view}: {height} px"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
    page = visit.open(f"person/{user}")
    turned = page.locator(".why", has_text="\N{FIRST STRONG ISOLATE}").first
    expect(turned).to_have_text(re.compile("\N{FIRST STRONG ISOLATE}.*\N{POP DIRECTIONAL ISOLATE}: "))


def test_a_table_of_items_fits_a_phone(visit: Visit) -> None:
    visit.page.set_viewport_size({"width": 390, "height": 844})
    page = visit.open("items")
    table = page.get_by_role("region", name="The most popular items")
    expect(table.get_by_role("columnheader", name="Popularity")).to_be_in_viewport(ratio=1)
    assert table.evaluate("region => region.scrollWidth <= region.clientWidth")


def test_a_search_for_items_is_there_again_on_the_way_back(visit: Visit) -> None:
    page = visit.open("items")
    page.get_by_label("Search").fill("Golden Riv")
    found = page.get_by_role("region", name=re.compile("Items that match"))
    found.get_by_role("link").first.click()
    expect(page.get_by_role("link", name="← All items")).to_be_visible()
    page.go_back()
    expect(page.get_by_label("Search")).to_have_value("Golden Riv")
    expect(found).to_be_visible()
    expect(page).to_have_url(re.compile(r"#/items\?q=Golden%20Riv$"))


def test_more_dead_letters_are_kept_than_a_server_has_read(visit: Visit, system: LiveSystem) -> None:
    kept = system.ask("v1/dead-letters")
    visit.page.route(
        "**/v1/dead-letters*", lambda route: route.fulfill(json={**kept, "total": kept["total"] + 1_000})
    )
    page = visit.open("now")
    read = sum(kept["by_reason"].values())
    expect(page.get_by_text(f"{kept['total'] + 1_000:,} are kept. The last {read}")).to_be_visible()


def test_a_click_that_no_worker_reads_is_said_to_wait(visit: Visit, system: LiveSystem) -> None:
    page = visit.open("user")
    expect(page.locator(".tiles button")).not_to_have_count(0)
    system.fleet.stop()
    try:
        page.locator(".tiles button").first.click()
        expect(page.get_by_text("Kafka has the click")).to_be_visible()
    finally:
        system.fleet.start()
    expect(page.locator(".legs b")).to_have_count(1, timeout=60_000)
    expect(page.get_by_text("Kafka has the click")).to_have_count(0)


def test_on_paper_the_page_is_light_and_whole(visit: Visit) -> None:
    page = visit.page
    page.emulate_media(color_scheme="dark", media="print")
    visit.open("person/alice")
    expect(page.locator(".list li")).to_have_count(10)
    style = "getComputedStyle(document.documentElement).getPropertyValue('--ink')"
    assert page.evaluate(style) == "#1b1e22"
    assert page.locator(".timeline").evaluate("list => list.scrollHeight <= list.clientHeight")


def test_an_item_without_a_name_is_one_among_others(visit: Visit) -> None:
    """Rows know items by hashes, of which some have no name any more, or none yet."""

    def unnamed(route: Route) -> None:
        answer = route.fetch()
        trace = answer.json()
        trace["steps"][-1] |= {"item_id": None, "title": None}
        route.fulfill(response=answer, json=trace)

    visit.page.route("**/v1/users/*/trace*", unnamed)
    page = visit.open("network")
    live = page.locator(".network.live")
    expect(live).to_contain_text("The live")
    page.get_by_label(re.compile("^t = ")).fill("9")
    expect(live.locator("text title").last).to_have_text("an unnamed item")
    links = page.evaluate(
        """async () => {
          const { showEvents } = await import(new URL("page/views/timeline.js", document.baseURI));
          const list = document.createElement("ol");
          showEvents(list, [{ timestamp: 1, item_id: null, title: null, event_type: "view", value: null }]);
          return [list.querySelectorAll("li").length, list.querySelectorAll("a").length];
        }"""
    )
    assert links == [1, 0]


def test_the_largest_state_that_the_stream_serves_can_be_drawn(visit: Visit) -> None:
    page = visit.open("items")
    expect(page.locator("h1")).to_be_visible()
    columns = page.evaluate(
        """async () => {
          const { stepsOf } = await import(new URL("page/views/network_live.js", document.baseURI));
          const units = 65535, events = 49;
          const step = { item_id: "a", title: null };
          const trace = {
            cell: "gru", horizon: Array(units).fill(1), steps: Array(events).fill(step),
            states: Array.from({ length: events + 1 }, () => Array(units).fill(0.5)),
            kept: Array(events).fill(0.5), overwritten: Array(events).fill(0.5),
          };
          return stepsOf("u", trace, 9).columns.length;
        }"""
    )
    assert columns == 9
