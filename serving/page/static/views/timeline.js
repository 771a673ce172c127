// A person's events, the last first.

import { el, redraw } from "../dom.js";
import { duration, given, moment, named } from "../format.js";

const MOST_EVENTS = 50;

const key = (event) => `${event.timestamp} ${event.item_id} ${event.event_type}`;

/** Adds events that are not there yet; the list stays bounded and in order of time. */
export function addEvents(known, fresh) {
  const there = new Set(known.map(key));
  known.push(...fresh.filter((event) => !there.has(key(event))));
  known.sort((a, b) => a.timestamp - b.timestamp);
  known.splice(0, known.length - MOST_EVENTS);
}

/** Shows events in a list element; what has just come is lit up. */
export function showEvents(node, known) {
  const seen = new Set([...node.children].map((row) => row.dataset.key));
  redraw(
    node,
    ...known.toReversed().map((event, i, all) => {
      const before = all[i + 1];
      return el(
        "li",
        { "data-key": key(event), class: seen.size && !seen.has(key(event)) ? "arrived" : null },
        el("span", { class: "number small soft", text: moment(event.timestamp) }),
        el(
          "span",
          {},
          itemOf(event),
          el("span", {
            class: "small soft",
            text: `${event.event_type ?? ""}${event.value === null || event.value === undefined ? "" : ` ${given(event.value)}`}${before ? `, ${duration(event.timestamp - before.timestamp)} after the one before` : ""}`,
          }),
        ),
      );
    }),
  );
}

/** A link to an event's item; one that has no name has no page either. */
const itemOf = (event) =>
  event.item_id === null
    ? el("span", { text: named(event) })
    : el("a", {
        href: `#/items/${encodeURIComponent(event.item_id)}`,
        "data-keep": key(event),
        text: named(event),
      });
