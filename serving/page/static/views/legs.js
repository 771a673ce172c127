// The milliseconds of each leg of a click: to Kafka, through the worker to the server, onto the screen.

import { el } from "../dom.js";
import { duration, plural } from "../format.js";
import { legend } from "../parts.js";

const LEGS = [
  ["--blue", "click → Kafka has it, acknowledged"],
  ["--green", "Kafka → worker → changelog → server"],
  ["--orange", "server → new list on screen"],
];
const KEPT = 50,
  SHOWN = 5;

/** Matches clicks (`acknowledged`, with the event's partition and offset) to lists (`listed`, with those of the
 *  row and when the server received it), in whichever order they come.
 */
export function newLegs() {
  const waiting = [],
    lists = [],
    totals = [];
  const bars = el(
    "ol",
    { class: "legs", "aria-label": "Your last clicks" },
    el("li", { class: "soft", text: "Click an item: the time of each leg is drawn here." }),
  );
  const summary = el("p", { class: "number soft small", role: "status" });
  const node = el("div", {}, legend(LEGS, "Legs"), bars, summary);
  let shown = [];

  function match() {
    const unmatched = waiting.filter((click) => {
      const list = lists.find((each) => each.partition === click.partition && each.offset >= click.offset);
      if (list) add(click, list);
      return !list;
    });
    waiting.splice(0, waiting.length, ...unmatched);
  }

  function add(click, list) {
    const total = list.shown - click.pressed;
    // The two middle moments are the server's clock; without it the two last legs cannot be told apart.
    const toKafka = Math.min(click.answered - click.pressed, total);
    const through =
      click.serverTime && list.received ? Math.min(Math.max(list.received - click.serverTime, 0), total - toKafka) : 0;
    const parts = [toKafka, through, total - toKafka - through];
    totals.push(total);
    totals.splice(0, totals.length - KEPT);
    shown = [{ total, parts }, ...shown].slice(0, SHOWN);
    const longest = Math.max(...shown.map((each) => each.total));
    bars.replaceChildren(...shown.map((each) => row(each, longest)));
    node.dataset.totals = totals.map((each) => each.toFixed(1)).join(" ");
    const sorted = totals.toSorted((a, b) => a - b);
    const at = (share) => sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)];
    summary.textContent = `${plural(totals.length, "click")}: from click to list ${duration(at(0.5))} in the middle, ${duration(at(0.95))} at the 95th percentile.`;
  }

  return {
    node,
    /** Whether an acknowledged click's list is still to come. */
    waits: ({ partition, offset }) => waiting.some((each) => each.partition === partition && each.offset === offset),
    acknowledged(click) {
      waiting.push(click);
      waiting.splice(0, waiting.length - KEPT);
      match();
    },
    listed(list) {
      lists.push(list);
      lists.splice(0, lists.length - KEPT);
      match();
    },
  };
}

function row({ total, parts }, longest) {
  const text = LEGS.map(([, name], i) => `${name}: ${duration(parts[i])}`).join(", ");
  return el(
    "li",
    {},
    el("b", { class: "number", text: duration(total) }),
    el(
      "span",
      { class: "leg-bar", role: "img", "aria-label": text, title: text },
      parts.map((part, i) =>
        el("i", { style: { width: `${(part / longest) * 100}%`, background: `var(${LEGS[i][0]})` } }),
      ),
    ),
    el("span", { class: "number small soft", text: parts.map(duration).join(" + ") }),
  );
}
