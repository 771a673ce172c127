// Items: a search, one item with all that is known of it, and new items that wait for a version.

import { get, path } from "../api.js";
import { lineChart } from "../charts/line_chart.js";
import { el, onTyping } from "../dom.js";
import { moment, named, number, shortVersion } from "../format.js";
import { failure, heading, loading, section, state, table } from "../parts.js";

export const title = "Items";

const FOUND = 15;

export function open(root, { id, signal }) {
  if (id) return oneItem(root, id, signal);
  root.append(heading("Items", "What can be recommended: what is known of it, and how its popularity moves."));
  const field = el("input", { id: "items", type: "search", placeholder: "title or id", autocomplete: "off" });
  const found = el("div", {}, loading("items")),
    waiting = el("div", {}, loading("new items"));
  let asked = 0;
  async function show(text) {
    const mine = ++asked;
    try {
      const { items } = await get("v1/items", { q: text, limit: FOUND }, signal);
      if (mine !== asked) return;
      found.replaceChildren(
        items.length
          ? itemTable(text ? `Items that match “${text}”` : "The most popular items", items)
          : state(
              "empty",
              text ? `Nothing matches “${text}”` : "There are no items yet",
              text
                ? "Search by the beginning of an id or by words of the title."
                : "They appear with the first events, or with records on the topic items.",
            ),
      );
    } catch (error) {
      if (!signal.aborted && mine === asked) found.replaceChildren(failure(error));
    }
  }
  async function showNew() {
    try {
      const { items } = await get("v1/items", { new: true, limit: FOUND }, signal);
      waiting.replaceChildren(
        items.length
          ? itemTable("New items", items)
          : el("p", { class: "soft", text: "None: the live version knows every item." }),
      );
    } catch (error) {
      if (!signal.aborted) waiting.replaceChildren(failure(error));
    }
  }
  root.append(
    el("div", { class: "row" }, el("label", { for: "items", text: "Search" }), field),
    el("section", {}, found),
    section(
      "Waiting for a version",
      el("p", {
        class: "lead",
        text: "These items are not in the live version’s vocabulary. They are ranked by their popularity, their transitions and what their metadata say, until a version learns a vector for them.",
      }),
      waiting,
    ),
  );
  onTyping(field, show, signal);
  show("");
  showNew();
}

const itemTable = (caption, items) =>
  table(
    caption,
    ["Item", "Id", "Category", ">Popularity", "In the version", "Available"],
    items.map((item) => [
      el("a", { href: `#/items/${encodeURIComponent(item.item_id)}`, text: named(item) }),
      el("code", { text: item.item_id }),
      item.category.join(", "),
      number(item.popularity),
      item.in_version ? "yes" : "not yet",
      item.available ? "yes" : "no",
    ]),
  );

function oneItem(root, id, signal) {
  const body = el("div", { class: "block" }, loading(`item ${id}`));
  const top = heading(id);
  root.append(el("p", { class: "back" }, el("a", { href: "#/items", text: "← All items" })), top, body);
  Promise.all([
    get(path`v1/items/${id}`, {}, signal),
    get(path`v1/items/${id}/similar`, { k: 8 }, signal).catch(() => ({ items: [] })),
  ])
    .then(([item, similar]) => {
      top.firstChild.textContent = named(item);
      body.replaceChildren(...detail(item, similar.items));
    })
    .catch((error) => {
      if (!signal.aborted) body.replaceChildren(failure(error));
    });
}

function detail(item, similar) {
  const facts = {
    id: item.item_id,
    ...item.attributes,
    available: availability(item),
  };
  const text = (value) => (Array.isArray(value) ? value.join(", ") : value);
  const points = item.popularity_over_time ?? [];
  const chart = lineChart({
    title: "Popularity",
    unit: "decayed count of events",
    series: [{ name: "popularity", colour: "--blue" }],
    write: number,
    writeX: moment,
    height: 200,
    xTicks: ([from, to]) => [
      [from, moment(from)],
      [to, moment(to)],
    ],
  });
  if (points.length > 1)
    chart.draw(
      points.map((point) => point.time),
      [points.map((point) => point.count)],
      [points[0].time, points.at(-1).time],
    );
  const versions = item.versions ?? [];
  return [
    el(
      "div",
      { class: "columns" },
      el(
        "section",
        {},
        el(
          "dl",
          { class: "facts-list" },
          Object.entries(facts).map(([name, value]) =>
            el("div", {}, el("dt", { text: name.replaceAll("_", " ") }), el("dd", { text: text(value) })),
          ),
          el(
            "div",
            {},
            el("dt", { text: "popularity now" }),
            el("dd", { class: "number", text: number(item.popularity) }),
          ),
          el(
            "div",
            {},
            el("dt", { text: "has a vector in" }),
            el("dd", { text: versions.length ? versions.map(shortVersion).join(", ") : "no version yet" }),
          ),
        ),
      ),
      el(
        "section",
        {},
        points.length > 1
          ? chart.node
          : el("p", {
              class: "soft",
              text: `Popularity now: ${number(item.popularity)}. The server has watched this item since it was first asked for; its curve appears within a minute.`,
            }),
      ),
    ),
    section(
      "Similar items",
      similar.length
        ? el(
            "ol",
            { class: "similar" },
            similar.map((each) =>
              el(
                "li",
                {},
                el("a", { href: `#/items/${encodeURIComponent(each.item_id)}`, text: named(each) }),
                el("span", { class: "number small soft", text: number(each.score) }),
              ),
            ),
          )
        : el("p", {
            class: "soft",
            text: "None: similarity comes from a version’s vectors, and from what often follows.",
          }),
    ),
  ];
}

/** Whether an item may be listed, and when. */
function availability(item) {
  const bounds = [
    item.available_from === null ? null : `from ${moment(item.available_from)}`,
    item.available_until === null ? null : `until ${moment(item.available_until)}`,
  ].filter(Boolean);
  return [item.available ? "yes" : "not now", ...bounds].join(", ");
}
