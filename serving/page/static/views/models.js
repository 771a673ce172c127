// Models: the versions, what is known of how good they are, who has them, and what was decided and why.

import { get, post } from "../api.js";
import { intervalPlot } from "../charts/interval_plot.js";
import { el } from "../dom.js";
import { cellName, count, metric, moment, percent, shortVersion, signed } from "../format.js";
import { failure, heading, legend, loading, section, state } from "../parts.js";
import { confirmed } from "./confirmation.js";

export const title = "Models";

const AGAIN_MS = 3000;
const COLOURS = ["--blue", "--orange", "--purple", "--green", "--yellow"];

export function open(root, { signal }) {
  const body = el("div", {}, loading("versions"));
  const said = el("p", { role: "status", class: "said" });
  root.append(heading("Models", "Weights are exchanged while the system runs. Each version is immutable; an announcement says which share of the users has which, and a gate decides with its reasons."), said, body);
  let shown = null, timer = null;

  async function show() {
    clearTimeout(timer);
    try {
      const answer = await get("v1/versions", {}, signal);
      const text = JSON.stringify(answer);
      if (text !== shown) {
        shown = text;
        body.replaceChildren(...parts(answer, act));
      }
      body.classList.remove("stale");
    } catch (error) {
      if (signal.aborted) return;
      if (shown === null || error.status) { body.replaceChildren(failure(error)); shown = null; }
      body.classList.add("stale");
    }
    timer = setTimeout(show, AGAIN_MS);
  }
  signal.addEventListener("abort", () => clearTimeout(timer));

  async function act({ question, detail, action, address, content }) {
    if (!(await confirmed(question, detail, action, signal))) return;
    try {
      const { answer } = await post(address, content, signal);
      said.textContent = `Done: that is epoch ${answer.epoch}. Workers move the rows in the background.`;
      show();
    } catch (error) {
      if (!signal.aborted) said.replaceChildren(error.status === 401 || error.status === 403 ? failure(error) : `That was refused: ${error.message}`);
    }
  }
  show();
}

function parts({ epoch, shares, versions }, act) {
  if (!versions.length) return [state("empty", "There is no version yet", "Train one with: eddy train --events FILE --announce")];
  const live = Object.entries(shares).sort((a, b) => b[1] - a[1]);
  const colours = new Map(live.map(([id], i) => [id, COLOURS[i % COLOURS.length]]));
  const reach = Math.max(0.005, ...versions.flatMap((each) => [each.decision?.interval, each.difference_to_first?.interval]).filter(Boolean).flat().map(Math.abs)) * 1.1;
  return [
    section(`Who has which version (epoch ${epoch ?? "–"})`, live.length
      ? el("div", {}, el("div", { class: "share-bar", role: "img", "aria-label": live.map(([id, share]) => `${id}: ${percent(share)}`).join(", ") },
        live.map(([id, share]) => el("i", { style: { width: `${share * 100}%`, background: `var(${colours.get(id)})` } }))), legend(live.map(([id, share]) => [colours.get(id), `${shortVersion(id)} ${percent(share)}`]), "Shares of users"),
        el("div", { class: "row block-small" }, el("button", { type: "button", text: "Take back the last announcement …", on: { click: () => act(takeBack()) } })))
      : state("empty", "No version is live", "Promote one below.")),
    section("Versions", el("ul", { class: "versions" }, versions.map((version) => versionRow(version, { shares, reach, colour: colours.get(version.id), act })))),
  ];
}

function versionRow(version, { shares, reach, colour, act }) {
  const { id, decision, live, difference_to_first: difference } = version;
  const figures = [["Recall@20", live?.recall_at_20], ["MRR@20", live?.mrr_at_20]];
  return el("li", { class: version.share > 0 ? "panel live" : "panel", style: colour ? { "--c": `var(${colour})` } : {} },
    el("div", {},
      el("h3", { text: id }),
      el("p", { class: "small soft", text: [cellName(version.cell ?? "cell unknown"), `${count(version.hidden)} units`, `${count(version.items)} items`, `made ${moment(version.made)}`, version.parent ? `trained from ${shortVersion(version.parent)}` : "trained from scratch", version.loaded ? "loaded" : "not loaded here"].join("  ·  ") }),
      version.problem ? el("p", { class: "problem", text: version.problem }) : null,
      lineage(version)),
    el("dl", { class: "figures-row number" },
      live ? figures.map(([name, value]) => el("div", {}, el("dt", { text: `${name}, live` }), el("dd", { text: metric(value) }))) : null,
      live ? el("div", {}, el("dt", { text: "events ranked" }), el("dd", { text: count(live.events) })) : null,
      metricsOf(version.metrics)),
    el("div", { class: "judgements" },
      decision ? judgement(decision.live ? "The gate let it go live" : "The gate said no", decision.reason, decision.interval && { mean: decision.difference, low: decision.interval[0], high: decision.interval[1] }, reach, "Difference to the version that was live") : null,
      difference ? judgement(`${difference.metric} beside the first live version, now`, `${signed(difference.mean)} [${signed(difference.interval[0])}, ${signed(difference.interval[1])}]`, { mean: difference.mean, low: difference.interval[0], high: difference.interval[1] }, reach, difference.metric) : null),
    el("div", { class: "buttons" },
      shares[id] !== 1 ? el("button", { type: "button", text: "Promote …", on: { click: () => act(promotion(id)) } }) : null,
      shares[id] !== 1 && Object.keys(shares).length ? el("button", { type: "button", text: "Give it 10 % …", on: { click: () => act(share(id, 10, shares)) } }) : null));
}

function judgement(head, text, interval, reach, label) {
  return el("div", { class: "judgement" }, el("div", {}, el("b", { class: "small", text: head }), el("p", { class: "small soft", text })),
    interval && Number.isFinite(interval.mean) ? el("div", {}, intervalPlot(interval, reach, label), el("p", { class: "ticks-row small soft" }, el("span", { text: signed(-reach) }), el("span", { text: "0" }), el("span", { text: signed(reach) }))) : null);
}

/** Up to four of the figures that a version was published with. */
function metricsOf(metrics) {
  const flat = Object.entries(metrics ?? {}).filter(([, value]) => typeof value === "number" && Math.abs(value) <= 1);
  return flat.slice(0, 4).map(([name, value]) => el("div", {}, el("dt", { text: metricName(name) }), el("dd", { text: metric(value) })));
}

/** recall_at_20 -> Recall@20 */
const metricName = (name) => name.replace(/^(recall|hr|hit_rate)(?=_at_)/, (word) => ({ recall: "Recall", hr: "HR", hit_rate: "HR" })[word]).replace(/^(mrr|ndcg)/, (word) => word.toUpperCase()).replace("_at_", "@").replaceAll("_", " ");

function lineage({ lineage: facts }) {
  const entries = Object.entries(facts ?? {});
  if (!entries.length) return null;
  const text = (value) => (typeof value === "object" && value !== null ? JSON.stringify(value) : String(value));
  return el("details", {}, el("summary", { class: "small", text: "Lineage" }), el("dl", { class: "facts-list small" }, entries.map(([name, value]) => el("div", {}, el("dt", { text: name.replaceAll("_", " ") }), el("dd", { text: text(value) })))));
}

const promotion = (id) => ({
  question: `Promote ${shortVersion(id)}?`, detail: `All users get ${id}. Workers move their rows in the background; answers do not stop.`, action: "Promote it",
  address: "v1/versions/announce", content: { shares: { [id]: 100 } },
});

const takeBack = () => ({
  question: "Take back the last announcement?", detail: "All users get the version that was live before. This is one more announcement, and can itself be taken back.", action: "Take it back",
  address: "v1/versions/rollback", content: {},
});

/** `percentage` of the users for a version; the others keep theirs in proportion. */
function share(id, percentage, shares) {
  const others = Object.entries(shares).filter(([other]) => other !== id);
  const rest = others.reduce((sum, [, value]) => sum + value, 0);
  const content = Object.fromEntries([...others.map(([other, value]) => [other, Math.round((value / rest) * (100 - percentage) * 100) / 100]), [id, percentage]]);
  return {
    question: `Give ${shortVersion(id)} to ${percentage} % of the users?`, detail: Object.entries(content).map(([each, value]) => `${each}: ${value} %`).join("\n"), action: "Give it", address: "v1/versions/announce", content: { shares: content },
  };
}
