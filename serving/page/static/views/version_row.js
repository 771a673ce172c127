// One version: what it is, how good it is, and what was decided about it.

import { intervalPlot } from "../charts/interval_plot.js";
import { el } from "../dom.js";
import { cellName, count, metric, moment, shortVersion, signed } from "../format.js";

/** reach: half the axis of differences; colour: of its share; actions: buttons. */
export function versionRow(version, { reach, colour, actions }) {
  const { id, decision, live, difference_to_first: difference } = version;
  const figures = [
    ["Recall@20", live?.recall_at_20],
    ["MRR@20", live?.mrr_at_20],
  ];
  return el(
    "li",
    { class: version.share > 0 ? "panel live" : "panel", style: colour ? { "--c": `var(${colour})` } : {} },
    el(
      "div",
      {},
      el("h3", { text: id }),
      el("p", {
        class: "small soft",
        text: [
          cellName(version.cell ?? "cell unknown"),
          `${count(version.hidden)} units`,
          `${count(version.items)} items`,
          `made ${moment(version.made)}`,
          version.parent ? `trained from ${shortVersion(version.parent)}` : "trained from scratch",
          version.loaded ? "loaded" : "not loaded here",
        ].join("  ·  "),
      }),
      version.problem ? el("p", { class: "problem", text: version.problem }) : null,
      lineage(version),
    ),
    el(
      "dl",
      { class: "figures-row number" },
      live
        ? figures.map(([name, value]) =>
            el("div", {}, el("dt", { text: `${name}, live` }), el("dd", { text: metric(value) })),
          )
        : null,
      live ? el("div", {}, el("dt", { text: "events ranked" }), el("dd", { text: count(live.events) })) : null,
      metricsOf(version.metrics),
    ),
    el(
      "div",
      { class: "judgements" },
      decision
        ? judgement(
            `${decision.kind[0].toUpperCase()}${decision.kind.slice(1)} (${decision.decided_by}, ${moment(decision.decided_at)})`,
            decision.reason,
            decision.interval && { mean: decision.difference, low: decision.interval[0], high: decision.interval[1] },
            reach,
            `${decision.metric ?? "Difference"} beside the version that was live`,
          )
        : null,
      difference
        ? judgement(
            `${difference.metric} beside the version that most users have, live`,
            `${signed(difference.mean)} [${signed(difference.interval[0])}, ${signed(difference.interval[1])}]`,
            { mean: difference.mean, low: difference.interval[0], high: difference.interval[1] },
            reach,
            difference.metric,
          )
        : null,
    ),
    el("div", { class: "buttons" }, actions),
  );
}

function judgement(head, text, interval, reach, label) {
  return el(
    "div",
    { class: "judgement" },
    el("div", {}, el("b", { class: "small", text: head }), el("p", { class: "small soft", text })),
    interval && Number.isFinite(interval.mean)
      ? el(
          "div",
          {},
          intervalPlot(interval, reach, label),
          el(
            "p",
            { class: "ticks-row small soft" },
            el("span", { text: signed(-reach) }),
            el("span", { text: "0" }),
            el("span", { text: signed(reach) }),
          ),
        )
      : null,
  );
}

/** Up to four of the figures that a version was published with. */
function metricsOf(metrics) {
  const flat = Object.entries(metrics ?? {}).filter(
    ([name, value]) => /recall|mrr|ndcg|hr|hit/i.test(name) && typeof value === "number",
  );
  return flat
    .slice(0, 4)
    .map(([name, value]) => el("div", {}, el("dt", { text: metricName(name) }), el("dd", { text: metric(value) })));
}

/** recall_at_20 -> Recall@20 */
const metricName = (name) =>
  name
    .replace(/^(recall|hr|hit_rate)(?=_at_)/, (word) => ({ recall: "Recall", hr: "HR", hit_rate: "HR" })[word])
    .replace(/^(mrr|ndcg)/, (word) => word.toUpperCase())
    .replace("_at_", "@")
    .replaceAll("_", " ");

function lineage({ id, lineage: facts }) {
  const entries = Object.entries(facts ?? {});
  if (!entries.length) return null;
  const text = (value) => (typeof value === "object" && value !== null ? JSON.stringify(value) : String(value));
  return el(
    "details",
    { "data-keep": `lineage ${id}` },
    el("summary", { class: "small", text: "Lineage" }),
    el(
      "dl",
      { class: "facts-list small" },
      entries.map(([name, value]) =>
        el("div", {}, el("dt", { text: name.replaceAll("_", " ") }), el("dd", { text: text(value) })),
      ),
    ),
  );
}
