// Now: what the running system does at this moment, as moving charts, and what needs attention.

import { follow, get } from "../api.js";
import { movingChart } from "../charts/moving_chart.js";
import { el } from "../dom.js";
import { count, duration, metric, moment, percent, plural, shortCount, shortVersion } from "../format.js";
import { heading, loading, section, showFailure } from "../parts.js";
import { deadLetters } from "./dead_letters.js";
import { versionColours } from "./version_colours.js";
import { workerStrip } from "./workers.js";

export const title = "Now";

const MOST_POINTS = 600; // ten minutes
const MOST_VERSIONS = 5; // whose ranks are drawn
const ROUND_MS = [0.1, 1, 10, 100, 1000, 10_000, 60_000, 600_000, 3_600_000, 36_000_000];

export function open(root, { signal, onState }) {
  const body = el("div", {}, loading("the last minutes"));
  root.append(
    heading(
      "Now",
      "Events come in, each moves one person’s hidden state, and the lists follow. Each chart shows the last five minutes.",
    ),
    body,
  );
  const board = newBoard(signal);
  const points = [];
  let began = false;

  function show() {
    if (!points.length) return;
    board.draw(points);
    if (began) return;
    began = true;
    body.replaceChildren(board.node);
  }

  /** Fills in what the server still knows, also of the time in which the page was disconnected. */
  async function fillHistory() {
    const known = (await get("v1/live/history", {}, signal)).points;
    if (!known.length) return;
    const [first, last] = [known[0].time, known.at(-1).time];
    points.splice(
      0,
      points.length,
      ...points.filter((point) => point.time < first),
      ...known,
      ...points.filter((point) => point.time > last),
    );
    points.splice(0, points.length - MOST_POINTS);
    show();
  }

  follow("v1/live", {
    signal,
    onState(name, error) {
      onState(name);
      body.classList.toggle("stale", name === "lost");
      if (name === "open")
        fillHistory().catch((problem) => {
          if (!signal.aborted && !began) showFailure(body, problem);
        });
      if (name === "refused" || (name === "lost" && !began)) showFailure(body, error);
    },
    onMessage(event, point) {
      if (event !== "now") return;
      // What is not older than the newest was told before, perhaps by a clock that has been set back since.
      while (points.length && points.at(-1).time >= point.time) points.pop();
      points.push(point);
      points.splice(0, points.length - MOST_POINTS);
      show();
    },
  });
}

/** Everything below the heading; `draw(points)` brings it up to date. */
function newBoard(signal) {
  const one = (name, colour, more = {}) => ({ name, colour, ...more });
  const charts = [
    movingChart({
      title: "Events",
      unit: "per second",
      series: [one("events", "--blue", { alone: true })],
      from: 10,
      writeTick: shortCount,
      read: (p) => [p.events_per_s],
    }),
    movingChart({
      title: "Freshness",
      unit: "from an event’s append to its row, logarithmic",
      series: [one("p50", "--blue"), one("p99", "--orange")],
      log: true,
      write: duration,
      writeTick: duration,
      marks: ROUND_MS,
      read: (p) => [p.freshness_ms?.p50, p.freshness_ms?.p99],
    }),
    movingChart({
      title: "Lag",
      unit: "events not yet applied",
      series: [one("lag", "--blue", { alone: true })],
      from: 10,
      write: count,
      writeTick: shortCount,
      read: (p) => [p.lag],
    }),
    movingChart({
      title: "Answers over HTTP",
      unit: "time to answer, logarithmic",
      series: [one("p50", "--blue"), one("p99", "--orange")],
      log: true,
      write: duration,
      writeTick: duration,
      marks: ROUND_MS,
      read: (p) => [p.http?.p50_ms, p.http?.p99_ms],
    }),
  ];
  const attention = el("ul", { class: "attention", "aria-label": "What needs attention" });
  const facts = el("p", { class: "facts number" });
  const small = el("div", { class: "multiples" });
  const workers = el("div");
  const dead = deadLetters(signal);
  const node = el(
    "div",
    {},
    attention,
    facts,
    small,
    section("Workers and partitions", workers),
    section("Dead letters", dead.node),
  );
  let quality = [],
    shownVersions = null;

  return {
    node,
    draw(points) {
      const point = points.at(-1);
      const versions = point.versions
        .filter((each) => each.share > 0)
        .toSorted((a, b) => (a.version < b.version ? -1 : 1));
      const ids = rankedVersions(points);
      if (ids.join(" ") !== shownVersions) {
        shownVersions = ids.join(" ");
        quality = qualityCharts(ids);
        small.replaceChildren(...[...charts.slice(0, 3), ...quality, charts[3]].map((chart) => chart.node));
      }
      for (const chart of [...charts, ...quality]) chart.draw(points);
      showAttention(attention, point.attention);
      facts.textContent = [
        `${count(point.rows)} ${point.rows === 1 ? "person" : "people"}`,
        plural(point.items, "item"),
        versions.map((each) => `${shortVersion(each.version)} for ${percent(each.share)}`).join(", ") ||
          "no version yet",
        `the stream’s clock says ${moment(point.stream_time < 0 ? null : point.stream_time)}`,
      ].join("  ·  ");
      workers.replaceChildren(workerStrip(point));
      dead.follow(point.dead_letters);
    },
  };
}

/** Versions that the points tell of, oldest first: one that was exchanged stays until they forget it. */
function rankedVersions(points) {
  const ids = new Set(
    points.flatMap((point) =>
      point.versions.filter((each) => each.live || each.prequential).map((each) => each.version),
    ),
  );
  return [...ids].toSorted().slice(-MOST_VERSIONS);
}

/** Recall@20 and MRR@20 of each version, beside decayed popularity on the same events. */
function qualityCharts(ids) {
  const colours = versionColours(ids);
  const series = ids.flatMap((id) => {
    const colour = colours.get(id);
    return [
      { name: shortVersion(id), colour },
      {
        name: ids.length > 1 ? `popularity (${shortVersion(id)})` : "popularity",
        short: "popularity",
        colour: ids.length > 1 ? colour : "--grey",
        dashed: true,
      },
    ];
  });
  return [
    ["Recall@20", "recall_at_20"],
    ["MRR@20", "mrr_at_20"],
  ].map(([name, field]) =>
    movingChart({
      title: name,
      unit: "ranked before each event is applied",
      series,
      from: 0.1,
      write: metric,
      read: (point) =>
        ids.flatMap((id) => {
          const version = point.versions.find((each) => each.version === id);
          return [version?.prequential?.[field], version?.popularity?.[field]];
        }),
    }),
  );
}

const MARKS = { problem: "Problem", warning: "Warning", info: "Note" };

function showAttention(node, entries) {
  const shown = entries.length ? entries : [{ severity: "calm", text: "Nothing needs attention." }];
  const text = JSON.stringify(shown);
  if (node.dataset.shown === text) return;
  node.dataset.shown = text;
  node.replaceChildren(
    ...shown.map((entry) =>
      el(
        "li",
        { "data-severity": entry.severity },
        MARKS[entry.severity] && el("b", { text: MARKS[entry.severity] }),
        el("span", { text: entry.text }),
      ),
    ),
  );
}
