"""What the charts draw, and what they say of their axes."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page, expect

from tests.browser.conftest import Visit

DRAW = """async ([options, points]) => {
  const { movingChart } = await import(new URL("page/charts/moving_chart.js", document.baseURI));
  const chart = movingChart({
    title: "Tried", series: [{ name: "one", colour: "--blue" }], read: (point) => [point.value], ...options,
  });
  document.querySelector("main").replaceChildren(chart.node);
  chart.draw(points);
}"""


def draw(page: Page, values: list[tuple[float, float | None]], **options: Any) -> None:
    """Draw values at seconds."""
    points = [{"time": 1.7e12 + 1000 * at, "value": value} for at, value in values]
    page.evaluate(DRAW, [options, points])
    expect(page.locator(".chart .line path")).to_have_count(1)


def path(page: Page) -> str:
    return page.locator(".chart .line path").get_attribute("d") or ""


def test_a_value_between_two_that_are_missing_is_drawn(visit: Visit) -> None:
    page = visit.open("items")
    expect(page.locator("h1")).to_be_visible()
    draw(page, [(0, 3), (1, None), (2, 5), (3, None), (4, 4)])
    parts = page.locator(".chart .line path").evaluate(
        "path => path.getAttribute('d').split('M').slice(1).map(part => part.endsWith('h0'))"
    )
    assert parts == [True] * 3


def test_the_time_in_which_nothing_was_seen_is_a_gap(visit: Visit) -> None:
    page = visit.open("items")
    expect(page.locator("h1")).to_be_visible()
    draw(page, [(at, 3) for at in (*range(10), *range(100, 110))])
    assert path(page).count("M") == 2
    draw(page, [(15 * at, 3) for at in range(10)], everyMs=15_000)
    assert path(page).count("M") == 1


def test_times_are_marked_at_whole_minutes(visit: Visit) -> None:
    page = visit.open("items")
    expect(page.locator("h1")).to_be_visible()
    for seconds, marks in (
        (50, ["1 min ago", "40 s ago", "20 s ago", "now"]),
        (200, ["2 min ago", "now"]),
        (270, ["4 min ago", "2 min ago", "now"]),
    ):
        draw(page, [(at, 3) for at in range(seconds)])
        shown = page.locator(".chart .tick", has_text="ago").or_(page.locator(".chart .tick", has_text="now"))
        expect(shown).to_have_text(marks)


def test_ranks_are_drawn_from_zero_and_answers_over_http_with_their_unit(visit: Visit) -> None:
    page = visit.open("now")
    recall = page.locator(".chart", has_text="Recall@20")
    expect(recall.locator(".tick").first).to_have_text("0")
    answers = page.locator(".chart", has_text="Answers over HTTP")
    expect(answers.locator(".chip b", has_text="ms").first).to_be_visible()


def test_a_chart_of_two_lines_has_a_key(visit: Visit) -> None:
    page = visit.open("network")
    for start in ("start A", "start B"):
        expect(page.get_by_role("list", name="Starts").get_by_text(start)).to_be_visible()


def test_a_version_has_one_colour_in_every_view(visit: Visit) -> None:
    page = visit.open("now")
    expect(page.locator("h1")).to_be_visible()
    colours = page.evaluate(
        """async () => {
          const { versionColours } =
            await import(new URL("page/views/version_colours.js", document.baseURI));
          return [["v000002-b"], ["v000001-a", "v000002-b"], ["v000001-a", "v000006-c"]].map((ids) =>
            Object.fromEntries(versionColours(ids)));
        }"""
    )
    assert colours[0]["v000002-b"] == colours[1]["v000002-b"] != colours[1]["v000001-a"]
    assert colours[2]["v000001-a"] != colours[2]["v000006-c"]


def test_clicks_keep_to_a_past_stream_s_clock_whatever_the_reader_s_clock_says(visit: Visit) -> None:
    page = visit.open("items")
    expect(page.locator("h1")).to_be_visible()
    fields = page.evaluate(
        """async () => {
          const { newEventClock } = await import(new URL("page/views/event_clock.js", document.baseURI));
          const real = Date.now;
          Date.now = () => 1380000000000 + 5000;
          const clock = newEventClock();
          clock.set(1380000000000, 1790000000000);
          const fields = clock.next();
          Date.now = real;
          return fields;
        }"""
    )
    assert fields == {"timestamp": 1380000000000}
