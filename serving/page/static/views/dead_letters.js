// Dead letters: records that nobody could use, by reason and with samples.

import { get, passes } from "../api.js";
import { el, redraw } from "../dom.js";
import { count, moment, plural } from "../format.js";
import { loading, showFailure, table } from "../parts.js";

/** A part of a view; `follow(total)` asks again when their number has changed. */
export function deadLetters(signal) {
  const node = el("div", {}, loading("dead letters"));
  let asked = null,
    asking = false;
  async function ask(total) {
    asking = true;
    asked = total;
    try {
      show(await get("v1/dead-letters", { limit: 20 }, signal));
    } catch (error) {
      if (signal.aborted) return;
      showFailure(node, error);
      if (passes(error)) asked = null; // the next point asks again
    }
    asking = false;
  }
  function show({ total, by_reason: reasons, samples }) {
    if (!total && !samples.length)
      return node.replaceChildren(
        el("p", { class: "soft", text: "None. Records that Eddy cannot read would be listed here with the reason." }),
      );
    const most = Object.entries(reasons).toSorted((a, b) => b[1] - a[1]);
    const read = most.reduce((sum, [, n]) => sum + n, 0);
    redraw(
      node,
      el("p", {
        class: "soft",
        text:
          read < total
            ? `${count(total)} are kept. The last ${count(read)} by reason:`
            : `${plural(read, "record")} that could not be used, by reason:`,
      }),
      el(
        "ul",
        { class: "reasons" },
        most.map(([reason, n]) => el("li", {}, el("b", { class: "number", text: count(n) }), reason)),
      ),
      el(
        "details",
        { "data-keep": "samples" },
        el("summary", { text: `The last ${plural(samples.length, "record")}` }),
        table(
          "Dead letters, newest first",
          ["Time", "Place", "Reason", "Key", "Value"],
          samples.map((each) => [
            moment(each.time),
            `${each.topic} ${each.partition}:${each.offset}`,
            each.reason,
            each.key,
            el("code", { text: each.value }),
          ]),
        ),
      ),
    );
  }
  return {
    node,
    follow(total) {
      if (total !== asked && !asking) ask(total);
    },
  };
}
