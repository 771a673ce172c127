// Workers, the partitions that they own, and how far a restore or a swap of versions has come.

import { el } from "../dom.js";
import { count, duration, number } from "../format.js";

const STATES = {
  running: "running",
  restoring: "restoring rows",
  swapping: "moving rows to the new version",
  gone: "gone",
};

/** The strip for a point of `v1/live`. */
export function workerStrip(point) {
  const lost = point.partitions_without_worker;
  if (!point.workers.length)
    return el("p", { class: "soft", text: "No worker is at work. Start one with: eddy worker" });
  return el(
    "ul",
    { class: "workers" },
    point.workers.map(workerRow),
    lost.length
      ? el(
          "li",
          { "data-state": "gone" },
          el("b", { text: "no worker" }),
          squares(lost),
          el("span", { class: "soft", text: "Events on these partitions wait." }),
        )
      : null,
  );
}

function workerRow(worker) {
  const done = worker.progress ?? 1;
  const busy = worker.state === "restoring" || worker.state === "swapping";
  return el(
    "li",
    { "data-state": worker.state },
    el("b", { text: worker.worker }),
    squares(worker.partitions),
    el(
      "span",
      { class: "doing" },
      el("span", { text: STATES[worker.state] ?? worker.state }),
      busy
        ? el("progress", { max: "1", value: String(done), "aria-label": `${worker.worker}: ${STATES[worker.state]}` })
        : null,
      busy ? el("span", { class: "number", text: `${Math.floor(done * 100)} %` }) : null,
    ),
    el("span", {
      class: "number soft",
      text:
        worker.state === "gone"
          ? `last seen ${duration(worker.seen_ms_ago)} ago`
          : `${number(worker.events_per_s)} events/s  ·  lag ${count(worker.lag)}  ·  ${count(worker.rows)} rows  ·  epoch ${worker.epoch ?? "–"}${worker.rows_of_older_epochs ? `  ·  ${count(worker.rows_of_older_epochs)} rows still at the version before` : ""}`,
    }),
  );
}

const MOST_SQUARES = 32;

const squares = (partitions) =>
  el(
    "span",
    { class: "squares" },
    el("span", { class: "hidden", text: `partitions ${partitions.join(", ") || "none"}` }),
    partitions.slice(0, MOST_SQUARES).map((partition) => el("i", { "aria-hidden": "true", text: String(partition) })),
    partitions.length > MOST_SQUARES
      ? el("i", { class: "more", "aria-hidden": "true", text: `+${partitions.length - MOST_SQUARES}` })
      : null,
  );
