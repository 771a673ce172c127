"""The live page in a real browser, before a real broker, worker and server."""

from __future__ import annotations

import re
import statistics
from pathlib import Path
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect

from eddy.stream.kafka.versions import announce, announce_shares
from tests.browser.conftest import Visit
from tests.browser.live_system import HOSTILE_ITEM, HOSTILE_USER, PAYLOAD, STARTS_S, LiveSystem
from tests.support.engines import item_id
from tests.support.waiting import eventually

CLICKS = 12
PART = re.compile(r"^0\.\d*[1-9]")
"""A number between 0 and 1."""

NBSP = "\N{NO-BREAK SPACE}"
"""Between a number and its unit."""

SWAPPED = 100
"""Users: more than have their rows encoded anew at a time, in the beginning."""

VIEWS: dict[str, str | re.Pattern[str]] = {
    "now": "Now",
    "person/alice": "A person",
    "user": "Be a user",
    "network": "Inside the network",
    "models": "Models",
    "items": "Items",
    f"items/{item_id(1)}": re.compile("(?!Items$)."),
}
"""Addresses of views, and their headings."""

SIZES = {"desktop": (1440, 900), "phone": (390, 844)}


def titles(page: Page) -> list[str]:
    """What a list recommends, best first."""
    return page.locator(".list .what > :first-child").all_inner_texts()


def settled(page: Page) -> None:
    """Wait until a view has something to show."""
    expect(page.locator("h1")).to_be_visible()
    expect(page.locator("[data-kind=loading]")).to_have_count(0)


def test_the_list_follows_each_click_on_an_item(visit: Visit) -> None:
    page = visit.open("user")
    expect(page.locator(".list li")).to_have_count(10)
    expect(page.get_by_text("Your state is still zero")).to_be_visible()
    before = titles(page)
    tiles = page.locator(".tiles button")
    for click in range(CLICKS):
        tiles.nth(click % tiles.count()).click()
        expect(page.locator("[data-totals]")).to_have_attribute(
            "data-totals", re.compile(rf"^(\S+ ){{{click}}}\S+$")
        )
    assert titles(page) != before
    expect(page.locator(".legs li")).to_have_count(5)
    expect(page.locator(".unrolled .path")).to_have_count(11)  # the last clicks, each as a step
    totals = [
        float(each) for each in (page.locator("[data-totals]").get_attribute("data-totals") or "").split()
    ]
    cuts = statistics.quantiles(totals, n=20, method="inclusive")
    print(
        f"from click to list on screen: p50 {cuts[9]:.0f} ms, p95 {cuts[18]:.0f} ms of {len(totals)} clicks"
    )


def test_an_item_of_the_list_can_be_clicked_as_well(visit: Visit) -> None:
    page = visit.open("user")
    page.locator(".list button").first.click()
    expect(page.locator(".legs b")).to_have_count(1)


def test_charts_move_with_the_events(visit: Visit, system: LiveSystem) -> None:
    page = visit.open("now")
    events = page.locator(".chart", has_text="Events").first
    line = events.locator(".line path")
    expect(line).to_have_attribute("d", re.compile("M.+"))
    before = line.get_attribute("d") or ""
    system.send(200)
    expect(line).not_to_have_attribute("d", before)
    expect(page.locator(".chart", has_text="MRR@20").locator(".chip b").first).to_have_text(
        re.compile(r"^\.\d{3}$")
    )
    expect(page.locator(".workers li")).to_have_count(1)
    expect(page.locator(".workers .squares i")).to_have_text(["0", "1"])


def test_single_values_of_charts_and_states_are_read_by_keyboard(visit: Visit) -> None:
    page = visit.open("now")
    chart = page.locator(".chart .surface").first
    expect(page.locator(".chart .line path").first).to_have_attribute("d", re.compile("M.+"))
    chart.focus()
    page.keyboard.press("End")
    expect(page.locator(".chart .readout").first).to_contain_text("events")
    page = visit.open("person/alice")
    page.locator(".hidden-state .surface").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".hidden-state output")).to_contain_text("unit")


def test_a_person_s_list_and_state_follow_their_events(visit: Visit, system: LiveSystem) -> None:
    page = visit.open("person/bruno")
    expect(page.locator(".list li")).to_have_count(10)
    count = page.locator(".timeline li").count()
    steps = page.locator(".hidden-state figcaption").inner_text()
    system.send(3, ["bruno"])
    expect(page.locator(".timeline li")).to_have_count(count + 3)
    expect(page.locator(".hidden-state figcaption")).not_to_have_text(steps)
    expect(page.locator(".list .why").first).not_to_be_empty()


def test_an_erased_person_is_gone_from_the_page_and_comes_back_as_somebody_new(
    visit: Visit, system: LiveSystem
) -> None:
    system.send(3, ["dora"])
    page = visit.open("person/dora")
    expect(page.locator(".timeline li")).to_have_count(3)
    expect(page.locator(".hidden-state")).to_have_count(1)
    system.write(system.settings.topics.events, [("dora", None)])
    expect(page.get_by_text("dora\N{POP DIRECTIONAL ISOLATE} was erased")).to_be_visible()
    system.send(1, ["dora"])
    expect(page.locator(".timeline li")).to_have_count(1)
    expect(page.locator(".hidden-state figcaption")).to_contain_text("1 event")


def test_who_clicks_is_told_when_they_are_erased(visit: Visit, system: LiveSystem) -> None:
    page = visit.open("user")
    user = page.get_by_role("link", name=re.compile("^you-")).inner_text()
    page.locator(".tiles button").first.click()
    expect(page.locator(".unrolled .path")).to_have_count(1)
    system.write(system.settings.topics.events, [(user, None)])
    expect(page.get_by_text("You were erased")).to_be_visible()
    expect(page.locator(".unrolled")).to_have_count(0)
    page.locator(".tiles button").first.click()
    expect(page.locator(".unrolled .path")).to_have_count(1)
    expect(page.get_by_text("You were erased")).to_have_count(0)


def test_a_person_is_found_by_name_or_because_they_are_active(visit: Visit, system: LiveSystem) -> None:
    page = visit.open("person")
    system.send(4)
    page.get_by_role("button", name="Somebody active now").click()
    expect(page).to_have_url(re.compile("#/person/.+"))
    expect(page.locator(".list li")).to_have_count(10)
    page.get_by_label("Person", exact=True).fill("chen")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("#/person/chen$"))


def test_two_shares_and_a_swap_are_seen(visit: Visit, system: LiveSystem) -> None:
    first, second = system.versions
    page = visit.open("now")
    expect(page.locator(".facts")).to_contain_text("v000001 for 100 %")
    announce_shares(system.settings, [(first, 60), (second, 40)])
    system.send(40)
    expect(page.locator(".facts")).to_contain_text(re.compile(r"v000001 for 60\s%.*v000002 for 40\s%"))
    expect(page.locator(".chart", has_text="Recall@20").locator(".chip", has_text="v000002")).to_be_visible()
    announce(system.settings, second)
    expect(page.locator(".facts")).to_contain_text("v000002 for 100 %")
    page = visit.open("person/alice")
    expect(page.locator(".person")).to_contain_text("v000002")


def test_how_far_a_restore_has_come_is_shown_until_it_ends(visit: Visit, system: LiveSystem) -> None:
    """Both partitions have rows, of which those of one are restored."""
    users = [f"restored-{number}" for number in range(20)]
    system.send(len(users), users)
    row_of = "v1/users/{}/recommendations"
    eventually(lambda: all(system.ask(row_of.format(user))["known"] for user in users), 30, "their rows")
    page = visit.open("now")
    with system.held_worker("load_rows") as hold:
        restoring = page.locator(".workers li[data-state=restoring]", has_text="restoring rows")
        progress = restoring.get_by_role("progressbar")
        expect(progress).to_have_attribute("value", PART, timeout=1000 * STARTS_S)
        expect(restoring).to_contain_text(f"{int(float(progress.get_attribute('value') or 0) * 100)} %")
        hold.release.touch()
        expect(page.locator(".workers li[data-state=running]")).to_have_count(1)
        expect(page.get_by_role("progressbar")).to_have_count(0)


def test_how_far_a_swap_has_come_is_shown_until_it_ends(visit: Visit, system: LiveSystem) -> None:
    users = [f"swapped-{number}" for number in range(SWAPPED)]
    system.send(SWAPPED, users)
    with system.held_worker("reencode_oldest") as hold:
        page = visit.open("now")
        running = page.locator(".workers li[data-state=running]")
        expect(running).to_contain_text(re.compile("lag 0 "), timeout=1000 * STARTS_S)
        shares = system.ask("v1/versions")["shares"]
        other = next(version for version in system.versions if shares.get(version.id) != 1)
        announce(system.settings, other)
        swapping = page.locator(".workers li[data-state=swapping]", has_text="moving rows to the new version")
        expect(swapping).to_contain_text("rows still at the version before")
        progress = swapping.get_by_role("progressbar")
        expect(progress).to_have_attribute("value", PART)
        expect(swapping).to_contain_text(f"{int(float(progress.get_attribute('value') or 0) * 100)} %")
        hold.release.touch()
        expect(running).to_have_count(1)
        expect(page.get_by_role("progressbar")).to_have_count(0)


def test_two_versions_are_shown_side_by_side(visit: Visit, system: LiveSystem) -> None:
    epoch = announce_shares(system.settings, [(version, 50) for version in system.versions]).epoch
    row = "v1/users/alice/recommendations"
    eventually(lambda: system.ask(row)["epoch"] == epoch, 30, "a row by the version that alice has now")
    eventually(
        lambda: all(each["loaded"] for each in system.ask("v1/versions")["versions"]), 30, "both versions"
    )
    own = system.ask(row)["version"]
    page = visit.open("person/alice")
    other = next(version.id for version in system.versions if version.id != own)
    page.get_by_label("Side by side with").select_option(other)
    expect(page.locator(".hidden-state")).to_have_count(2)
    captions = page.locator(".hidden-state figcaption b").all_inner_texts()
    assert sorted(captions) == ["GRU of v000001", "LSTM of v000002"]
    expect(page.locator(".list")).to_have_count(2)


def test_versions_are_promoted_and_taken_back_after_a_question(visit: Visit, system: LiveSystem) -> None:
    announce(system.settings, system.versions[1])
    page = visit.open("models")
    row = page.locator(".versions li", has_text=system.versions[0].id)
    row.get_by_role("button", name="Promote").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.locator(".share-bar")).to_have_attribute("aria-label", f"{system.versions[1].id}: 100{NBSP}%")
    row.get_by_role("button", name="Promote").click()
    page.get_by_role("dialog").get_by_role("button", name="Promote it").click()
    expect(page.locator(".share-bar")).to_have_attribute("aria-label", f"{system.versions[0].id}: 100{NBSP}%")
    page.get_by_role("button", name="Take back").click()
    page.get_by_role("dialog").get_by_role("button", name="Take it back").click()
    expect(page.locator(".share-bar")).to_have_attribute("aria-label", f"{system.versions[1].id}: 100{NBSP}%")


def test_a_version_is_given_to_the_share_of_users_that_the_reader_chooses(
    visit: Visit, system: LiveSystem
) -> None:
    live, canary = system.versions
    announce(system.settings, live)
    page = visit.open("models")
    bar = page.locator(".share-bar")
    row = page.locator(".versions li", has_text=canary.id)
    share = row.get_by_label("Share of the users")
    expect(bar).to_have_attribute("aria-label", f"{live.id}: 100{NBSP}%")
    expect(share).to_have_value("10")
    for refused in ("0", "100", "2.5", ""):
        share.fill(refused)
        row.get_by_role("button", name="Give it").click()
        expect(page.get_by_role("dialog")).to_have_count(0)
    share.fill("35")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text(f"{canary.id}: 35 %")
    page.get_by_role("dialog").get_by_role("button", name="Give it").click()
    expect(bar).to_have_attribute("aria-label", f"{live.id}: 65{NBSP}%, {canary.id}: 35{NBSP}%")
    assert system.ask("v1/versions")["shares"] == {live.id: 0.65, canary.id: 0.35}
    page.get_by_role("button", name="Take back").click()
    page.get_by_role("dialog").get_by_role("button", name="Take it back").click()
    expect(bar).to_have_attribute("aria-label", f"{live.id}: 100{NBSP}%")


def test_what_the_reader_has_typed_and_unfolded_stays_while_the_view_moves(
    visit: Visit, system: LiveSystem
) -> None:
    live, other = system.versions
    announce(system.settings, live)
    page = visit.open("models")
    row = page.locator(".versions li", has_text=other.id)
    share = row.get_by_label("Share of the users")
    share.fill("7")
    announce_shares(system.settings, [(live, 80), (other, 20)])
    expect(page.locator(".share-bar")).to_have_attribute(
        "aria-label", f"{live.id}: 80{NBSP}%, {other.id}: 20{NBSP}%"
    )
    expect(share).to_have_value("7")
    expect(share).to_be_focused()
    page = visit.open("now")
    page.get_by_text(re.compile("The last .* record")).click()
    system.write(system.settings.topics.events, [("nobody", b"not an event")])
    expect(page.locator(".reasons li")).to_have_count(2)
    expect(page.locator("details", has_text="The last 2 records")).to_have_attribute("open", "")


def test_records_of_decisions_that_cannot_be_read_are_named_beside_the_versions(visit: Visit) -> None:
    problem = "decisions/000001.json: not a decision that can be read"

    def with_problem(route: Route) -> None:
        route.fulfill(json={**route.fetch().json(), "problems": [problem]})

    visit.page.route("**/v1/versions", with_problem)
    page = visit.open("models")
    expect(page.locator(".problem")).to_have_text(problem)
    expect(page.locator(".versions li")).to_have_count(2)


def test_shares_of_several_versions_are_whole_percents_that_make_a_hundred(visit: Visit) -> None:
    page = visit.open("now")
    given, most = page.evaluate(
        """async () => {
          const { mostPercent, withShare } = await import(new URL("page/views/shares.js", document.baseURI));
          return [
            [
              withShare("c", 10, { a: 0.9, b: 0.1 }),
              withShare("c", 97, { a: 0.34, b: 0.33, d: 0.33 }),
              withShare("a", 50, { a: 0.9, b: 0.1 }),
              withShare("c", 33, { a: 0.98, b: 0.01, d: 0.01 }),
            ],
            [mostPercent("a", { b: 1 }), mostPercent("a", { a: 0.2, b: 0.4, c: 0.4 })],
          ];
        }"""
    )
    assert [sum(shares.values()) for shares in given] == [100] * 4
    assert all(share >= 1 for shares in given for share in shares.values())
    assert given[0] == {"a": 80, "b": 10, "c": 10}
    assert given[2] == {"a": 50, "b": 50}
    assert most == [99, 98]


def test_an_item_s_popularity_is_a_chart_that_says_what_it_counts(visit: Visit, system: LiveSystem) -> None:
    item = system.ask("v1/items?limit=1")["items"][0]["item_id"]
    page = visit.open(f"items/{item}")
    chart = page.locator(".chart", has_text="Popularity")
    expect(chart).to_contain_text("decayed count of events")
    expect(chart.locator(".tick", has_text="now")).to_be_visible()
    expect(chart.locator(".chip b")).to_have_text(re.compile(r"^\d"))
    expect(page.get_by_text(re.compile(r"counts half after \d+\s(h|min|days)"))).to_be_visible()


def test_without_a_key_the_page_asks_for_one_and_with_a_reading_key_it_says_what_is_missing(
    browser: Browser, system: LiveSystem
) -> None:
    visit = Visit(browser, system, None)
    page = visit.open("user")
    expect(page.get_by_text("This server asks for an API key").first).to_be_visible()
    page.get_by_role("button", name="API key", exact=True).click()
    page.get_by_label("Key", exact=True).fill(system.read_key)
    page.keyboard.press("Enter")
    expect(page.locator(".tiles button")).not_to_have_count(0)
    page.locator(".tiles button").first.click()
    expect(page.get_by_text("This key may not see that")).to_be_visible()
    assert not any(system.read_key in url for url in visit.requests)
    visit.close()


def test_the_page_says_that_it_is_disconnected_and_comes_back_by_itself(
    visit: Visit, system: LiveSystem
) -> None:
    page = visit.open("now")
    connection = page.locator("#connection")
    expect(connection).to_have_text("live")
    system.kill_server()
    expect(connection).to_have_text("disconnected, trying again")
    system.start_server()
    expect(connection).to_have_text("live")
    line = page.locator(".chart .line path").first
    before = line.get_attribute("d") or ""
    expect(line).not_to_have_attribute("d", before)


def test_what_looks_like_markup_stays_text(visit: Visit) -> None:
    page = visit.open(f"items/{HOSTILE_ITEM}")
    expect(page.locator("h1")).to_have_text(PAYLOAD)
    page = visit.open(f"person/{quote(HOSTILE_USER, safe='')}")
    expect(page.locator(".list li")).to_have_count(10)
    expect(page.get_by_label("Person", exact=True)).to_have_value(HOSTILE_USER)
    page = visit.open("items")
    page.get_by_label("Search").fill(PAYLOAD[:8])
    settled(page)
    page = visit.open("now")
    page.get_by_text(re.compile("The last .* record")).click()
    expect(page.get_by_role("cell", name=PAYLOAD)).to_be_visible()
    assert page.locator("main img, main script").count() == 0
    assert "owned" not in page.title()


def test_the_small_networks_compute_what_their_equations_say(visit: Visit) -> None:
    """The Jacobian that the page finds by differences is the RNN's own, diag(1 - h'^2) U."""
    page = visit.open("network")
    settled(page)
    largest = page.evaluate(
        """async () => {
          const { rnn, run } = await import(new URL("page/network/cells.js", document.baseURI));
          const { jacobian } = await import(new URL("page/network/gradients.js", document.baseURI));
          const cell = rnn();
          const inputs = [[0.3, -1, 0.5, 0.2], [1, 0.1, -0.4, 0.7]].map((x) => Float64Array.from(x));
          const [, step] = run(cell, inputs);
          const found = jacobian(cell, step.x, step.before);
          return Math.max(...found.flatMap((row, i) => Array.from(row, (value, j) =>
            Math.abs(value - (1 - step.next[i] ** 2) * cell.recurrent[i][j]))));
        }"""
    )
    assert 0 < largest < 1e-8


def test_clicks_on_a_stream_of_the_past_do_not_move_its_clock(visit: Visit) -> None:
    page = visit.open("now")
    past, past_again, present = page.evaluate(
        """async () => {
          const { newEventClock } = await import(new URL("page/views/event_clock.js", document.baseURI));
          const clock = newEventClock();
          clock.set(1380000000000, 1790000000000);
          const past = [clock.next(), clock.next()];
          clock.set(1790000000000, 1790000001000);
          return [...past, clock.next()];
        }"""
    )
    assert (past, past_again) == ({"timestamp": 1380000000000}, {"timestamp": 1380000000001})
    assert present == {}


def test_the_networks_are_stepped_through_by_the_reader(visit: Visit) -> None:
    page = visit.open("network")
    page.get_by_role("button", name="Reset").click()
    rows = page.locator(".networks .network").first
    expect(rows.locator(".path")).to_have_count(0)
    page.get_by_role("button", name="Step").click()
    expect(rows.locator(".path")).to_have_count(1)
    page.get_by_label("t = 1").fill("9")
    expect(rows.locator(".path")).to_have_count(9)
    expect(page.locator(".network.live")).to_contain_text("The live")
    page.get_by_label(re.compile("Spectral radius")).fill("1.5")
    expect(page.get_by_text("The start is never forgotten")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_is_accessible(
    browser: Browser, system: LiveSystem, scheme: str, screenshots: Path | None
) -> None:
    for size, (width, height) in SIZES.items():
        visit = Visit(
            browser, system, system.write_key, color_scheme=scheme, reduced_motion="reduce",
            viewport={"width": width, "height": height},
        )  # fmt: skip
        for view, heading in VIEWS.items():
            page = visit.open(view)
            expect(page.locator("h1")).to_have_text(heading)  # not that of the view before
            settled(page)
            if view == "user":
                page.locator(".tiles button").nth(2).click()
                expect(page.locator(".unrolled")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (view, size)
            if screenshots is not None:
                page.screenshot(
                    path=screenshots
                    / f"{view.split('/')[0]}{'-one' * view.startswith('items/')}-{scheme}-{size}.png",
                    full_page=True,
                )
            if size == "desktop":
                results = Axe().run(page)
                serious = [
                    each
                    for each in results.response["violations"]
                    if each["impact"] in ("serious", "critical")
                ]
                assert serious == [], f"{view}: {results.generate_report()}"
        visit.close()


def test_a_first_visit_loads_less_than_300_kb(visit: Visit) -> None:
    page = visit.open("now")
    settled(page)
    sizes = page.evaluate(
        "performance.getEntriesByType('resource')"
        ".filter(each => each.name.includes('/page/')).map(each => each.decodedBodySize)"
    )
    assert len(sizes) > 5
    assert 0 < sum(sizes) < 300_000
    first = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    eventually(lambda: page.evaluate(first) is not None)
    print(f"{sum(sizes):,} bytes in {len(sizes)} files, first paint after {page.evaluate(first):.0f} ms")
