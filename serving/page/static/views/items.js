// Items: a search, one item with all that is known of it, and new items that wait for a version.

import { get, passes, path, untilAnswered, untilThere } from "../api.js";
import { el, onTyping, pause, successive } from "../dom.js";
import { isolated, metric, moment, named, shortVersion, shortened } from "../format.js";
import { heading, loading, section, showFailure, state, table } from "../parts.js";
import { popularityChart } from "./popularity_chart.js";

export const title = "Items";

const FOUND = 15;
const MOST_OF_AN_ID = 40;
const MOST_OF_A_TITLE = 300;
const AGAIN_MS = 15_000; // the server looks at popularities so often

export function open(root, { id, query, signal }) {
  if (id) return oneItem(root, id, signal);
  root.append(heading("Items", "What can be recommended: what is known of it, and how its popularity moves."));
  const field = el("input", {
    id: "items",
    type: "search",
    value: query.get("q"),
    placeholder: "title or id",
    autocomplete: "off",
  });
  const found = el("div", {}, loading("items")),
    waiting = el("div", {}, loading("new items"));
  const newSearch = successive(signal);
  function show(text) {
    const wanted = newSearch();
    const search = async () => {
      const { items } = await get("v1/items", { q: text, limit: FOUND }, wanted);
      const caption = text ? `Items that match “${isolated(shortened(text))}”` : "The most popular items";
      found.replaceChildren(
        ...(items.length ? [el("h2", { text: caption }), itemTable(caption, items)] : [nothingFound(text)]),
      );
      return items.length || text;
    };
    untilAnswered(
      () => untilThere(search, wanted),
      (error) => showFailure(found, error),
      wanted,
    );
  }
  async function showNew() {
    const { items } = await get("v1/items", { new: true, limit: FOUND }, signal);
    waiting.replaceChildren(
      items.length
        ? itemTable("New items", items)
        : el("p", { class: "soft", text: "None: the live version knows every item." }),
    );
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
  onTyping(
    field,
    (text) => {
      // The address says what is searched, so that it is there again when the reader comes back.
      history.replaceState(null, "", text ? `#/items?q=${encodeURIComponent(text)}` : "#/items");
      show(text);
    },
    signal,
  );
  show(field.value);
  untilAnswered(showNew, (error) => showFailure(waiting, error), signal);
}

const nothingFound = (text) =>
  text
    ? state(
        "empty",
        `Nothing matches “${isolated(shortened(text))}”`,
        "Search by the beginning of an id or by words of the title.",
      )
    : state(
        "empty",
        "There are no items yet",
        "They appear with the first events, or with records on the topic items.",
      );

const itemTable = (caption, items) =>
  table(
    caption,
    [
      "Item",
      { name: "Id", spare: true },
      "Category",
      { name: "Popularity (decayed count)", right: true },
      { name: "In the version", spare: true },
      { name: "Available", spare: true },
    ],
    items.map((item) => [
      el("a", { href: `#/items/${encodeURIComponent(item.item_id)}`, text: named(item) }),
      el("code", { text: shortened(item.item_id, MOST_OF_AN_ID) }),
      item.category.join(", "),
      item.popularity.toFixed(1),
      item.in_version ? "yes" : "not yet",
      item.available ? "yes" : "no",
    ]),
  );

function oneItem(root, id, signal) {
  const body = el("div", { class: "block" }, loading(`item ${isolated(shortened(id))}`));
  const top = heading(shortened(id));
  const popularity = popularityChart();
  root.append(el("p", { class: "back" }, el("a", { href: "#/items", text: "← All items" })), top, body);
  const ask = () => get(path`v1/items/${id}`, {}, signal);
  let halfLife, whole;

  async function showAll() {
    const [item, similar, popular] = await Promise.all([
      ask(),
      orNull(get(path`v1/items/${id}/similar`, { k: 8 }, signal)),
      orNull(get("v1/popular", { k: 1 }, signal)),
    ]);
    top.firstChild.textContent = named(item);
    body.replaceChildren(...detail(item, similar?.items, popularity));
    body.classList.remove("stale");
    halfLife = popular?.half_life_hours;
    popularity.draw(item, halfLife);
    whole = similar !== null && popular !== null;
    return true;
  }

  async function showPopularity() {
    popularity.draw(await ask(), halfLife);
    body.classList.remove("stale");
    return true;
  }

  /** What is there stays, grey, while the server cannot answer. */
  function onFailure(error) {
    if (popularity.node.isConnected && passes(error)) body.classList.add("stale");
    else showFailure(body, error);
  }

  async function follow() {
    let there = await untilAnswered(showAll, onFailure, signal);
    while (there && !signal.aborted) {
      await pause(AGAIN_MS, signal);
      if (!document.hidden) there = await untilAnswered(whole ? showPopularity : showAll, onFailure, signal);
    }
  }
  follow();
}

/** An answer; null where there may be one later, so that what else is known is shown meanwhile. */
const orNull = (answer) =>
  answer.catch((error) => {
    if (passes(error)) return null;
    throw error;
  });

/** similar: undefined where the server could not say. */
function detail(item, similar, popularity) {
  const facts = {
    id: item.item_id,
    ...(item.title && named(item) !== item.title ? { title: shortened(item.title, MOST_OF_A_TITLE) } : {}),
    ...item.attributes,
    available: availability(item),
    "has a vector in": item.versions.map(shortVersion).join(", ") || "no version yet",
  };
  const text = (value) => (Array.isArray(value) ? value.join(", ") : value);
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
        ),
      ),
      el("section", {}, popularity.node),
    ),
    section(
      "Similar items",
      similar?.length > 0 &&
        el("p", {
          class: "lead",
          text: "From 0 to 1: half by the cosine of the two items’ vectors, half by how often one follows the other.",
        }),
      similar?.length
        ? el(
            "ol",
            { class: "similar" },
            similar.map((each) =>
              el(
                "li",
                {},
                el("a", { href: `#/items/${encodeURIComponent(each.item_id)}`, text: named(each) }),
                el("span", { class: "number small soft", text: metric(each.score) }),
              ),
            ),
          )
        : el("p", {
            class: "soft",
            text: similar
              ? "None: similarity comes from a version’s vectors, and from what often follows."
              : "The server could not say. The page asks again by itself.",
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
