// A person's list, which re-orders itself before the reader's eyes, and says what moved and why.

import { el, redraw, still } from "../dom.js";
import { isolated, named, percent, shortened, signed } from "../format.js";
import { legend } from "../parts.js";

const MOVE_MS = 600,
  MOST_OF_A_TITLE = 60;
const PARTS = [
  ["--blue", "state and popularity"],
  ["--orange", "often follows the last items"],
  ["--purple", "own items again"],
];

/** Says what the bars and the percentages of a list are. */
export const listKey = () =>
  el(
    "div",
    { class: "key small soft" },
    el("span", { text: "Each bar: where the item’s likelihood comes from." }),
    legend(PARTS, "Parts of an item’s likelihood"),
    el("span", { text: "A percentage: as much of it would be gone without that event." }),
  );

/** A list; `show(items)` brings it up to date with items of an answer with explanations; returns what moved,
 *  as [{item, from, to}], from = null for what is new. onPick(item): makes the items buttons.
 */
export function recommendationList({ label, onPick = null }) {
  const node = el("ol", { class: "list", "aria-label": label });
  const rows = new Map(); // item id -> {row, item, place}
  return {
    node,
    show(items) {
      const first = rows.size === 0;
      const before = new Map(
        [...rows].map(([id, { row, item, place }]) => [id, { top: row.getBoundingClientRect().top, item, place }]),
      );
      const moves = [];
      const ordered = items.map((item, place) => {
        const old = before.get(item.item_id);
        const by = old ? old.place - place : null;
        const row = entry(item, place, by, first ? null : reason(item, old?.item, by), onPick);
        if (!first && by !== 0) moves.push({ item, from: old?.place ?? null, to: place });
        rows.set(item.item_id, { row, item, place });
        return row;
      });
      const kept = new Set(items.map((item) => item.item_id));
      for (const id of rows.keys()) if (!kept.has(id)) rows.delete(id);
      redraw(node, ...ordered);
      if (!first && !still()) animate(items, before, rows);
      return first ? [] : moves;
    },
    clear() {
      rows.clear();
      node.replaceChildren();
    },
  };
}

/** FLIP: each row begins where it was, and glides to where it is. */
function animate(items, before, rows) {
  for (const { item_id: id } of items) {
    const { row } = rows.get(id),
      old = before.get(id);
    const from = old
      ? { transform: `translateY(${old.top - row.getBoundingClientRect().top}px)` }
      : { opacity: 0, transform: "translateX(-0.75rem)" };
    if (old && Math.abs(old.top - row.getBoundingClientRect().top) < 1) continue;
    row.animate([from, { opacity: 1, transform: "none" }], { duration: MOVE_MS, easing: "cubic-bezier(.2,.7,.2,1)" });
  }
}

function entry(item, place, by, why, onPick) {
  const name = onPick
    ? el("button", {
        type: "button",
        class: "quiet",
        "data-keep": item.item_id,
        text: named(item),
        on: { click: () => onPick(item) },
      })
    : el("a", {
        href: `#/items/${encodeURIComponent(item.item_id)}`,
        "data-keep": item.item_id,
        text: named(item),
      });
  const moved = by === null ? (why ? "new" : "") : by > 0 ? `▲ ${by}` : by < 0 ? `▼ ${-by}` : "";
  return el(
    "li",
    { class: by === null && why ? "new" : by > 0 ? "up" : by < 0 ? "down" : null },
    el("span", { class: "place number soft", text: String(place + 1) }),
    el("span", { class: "what" }, name, el("span", { class: "why small soft", text: why ?? standing(item) })),
    shares(item),
    el(
      "span",
      { class: "moved small number" },
      moved && el("span", { class: "hidden", text: by > 0 ? "moved up" : by < 0 ? "moved down" : "" }),
      moved,
    ),
  );
}

/** The parts of an item's likelihood as one bar. */
function shares({ explanation }) {
  if (!explanation) return el("span", { class: "shares empty" });
  const values = [explanation.state_and_popularity_share, explanation.transitions_share, explanation.own_items_share];
  const text = PARTS.map(([, name], i) => `${name} ${percent(values[i])}`).join(", ");
  return el(
    "span",
    {
      class: "shares",
      role: "img",
      "aria-label": text,
      title: `${text}. On the scale of the score: state ${signed(explanation.state)}, popularity ${signed(explanation.popularity)}.`,
    },
    values.map((value, i) => el("i", { style: { width: `${value * 100}%`, background: `var(${PARTS[i][0]})` } })),
  );
}

/** Why an item is where it is, in a few words. */
function standing(item) {
  const { explanation, reason: kind, rules = [] } = item;
  if (kind === "pinned") return `pinned by ${rules.join(", ")}`;
  if (kind === "explored") return "shown to explore";
  if (explanation === undefined) return `score ${signed(item.score)}`;
  if (!explanation) return "popular now";
  const [mover] = explanation.moved_by ?? [];
  return mover ? becauseOf(mover) : `state ${signed(explanation.state)}, popularity ${signed(explanation.popularity)}`;
}

/** Why an item has moved: the part of its score that has changed most. */
function reason(item, old, by) {
  if (by === 0 || !item.explanation) return null;
  const now = item.explanation,
    then = old?.explanation;
  const movedBy = (because) => now.moved_by?.find((mover) => mover.because === because);
  if (old && !then) return "now ranked for this person";
  if (!then) return now.moved_by?.length ? becauseOf(now.moved_by[0]) : "it has come into the list";
  const changes = [
    [
      now.state - then.state,
      (d) =>
        d > 0 && movedBy("hidden_state")
          ? becauseOf(movedBy("hidden_state"))
          : `the state fits it ${d > 0 ? "better" : "less"} (${signed(d)})`,
    ],
    [now.popularity - then.popularity, (d) => `it is ${d > 0 ? "more" : "less"} popular (${signed(d)})`],
    [
      (now.transitions_share - then.transitions_share) * 4,
      (d) =>
        d > 0 && movedBy("often_follows")
          ? becauseOf(movedBy("often_follows"))
          : `the last items lead to it ${d > 0 ? "more" : "less"} often`,
    ],
    [
      (now.own_items_share - then.own_items_share) * 4,
      (d) => (d > 0 ? "it was visited before" : "its last visit is longer ago"),
    ],
  ]
    .filter(([change]) => Math.sign(change) === Math.sign(by))
    .toSorted((a, b) => Math.abs(b[0]) - Math.abs(a[0]));
  if (!changes.length || Math.abs(changes[0][0]) < 0.0005) return by > 0 ? "others have fallen" : "others have risen";
  return changes[0][1](changes[0][0]);
}

const titles = new Map();
const MOST_TITLES = 2000;

/** Remembers titles of items, so that reasons can name them. */
export function learnTitles(entries) {
  for (const each of entries) if (each.title) titles.set(each.item_id, each.title);
  for (const id of titles.keys()) {
    if (titles.size <= MOST_TITLES) break;
    titles.delete(id);
  }
}

/** What an event has done for an item: so much of its likelihood would be gone without the event. */
const becauseOf = (mover) => {
  const name = isolated(shortened(titles.get(mover.item_id) ?? mover.item_id, MOST_OF_A_TITLE));
  const share = percent(mover.share);
  if (mover.because === "same_item") return `it was visited before: ${share}`;
  if (mover.because === "often_follows") return `it often follows ${name}: ${share}`;
  return `the state remembers ${name}: ${share}`;
};
