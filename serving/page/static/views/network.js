// Inside the network: five cells side by side, step by step, and what is measured of the live model.

import { untilAnswered, untilThere } from "../api.js";
import { horizonHistogram } from "../charts/histogram.js";
import { el, onScheme, redraw } from "../dom.js";
import { cellName, count, metric, shortVersion } from "../format.js";
import { fiveCells, run } from "../network/cells.js";
import { gradientFlow } from "../network/gradients.js";
import { insideCell } from "../network/inside.js";
import { random, vector } from "../network/matrices.js";
import { reservoirExperiment } from "../network/reservoir.js";
import { unrolled } from "../network/unrolled.js";
import { heading, legend, loading, section, showFailure, state } from "../parts.js";
import { gradientChart } from "./gradient_chart.js";
import { liveDynamics, somebodysSteps } from "./network_live.js";
import { newPlayer } from "./player.js";

export const title = "Inside the network";

const LENGTH = 9,
  LAGS = 40;
const SMALL = { hidden: 8, inputs: 4, seed: 7 },
  LARGE = { hidden: 16, inputs: 4, seed: 7 };

export function open(root, { signal }) {
  const model = { keep: 1, step: 0, chosen: 2, live: null, dynamics: null };
  const draw = random(5);
  const inputs = Array.from({ length: LAGS }, () => vector(SMALL.inputs, () => 2 * draw() - 1));

  const rows = el("div", { class: "networks" });
  const inside = el("div", { class: "panel" });
  const flow = gradientChart(LAGS);
  const horizon = el("div", {}, loading("the live model’s horizons"));
  const player = newPlayer(LENGTH, signal, (step, fresh) => {
    model.step = step;
    showRows(fresh);
  });
  const keep = el("input", { type: "range", id: "keep", min: "-2", max: "5", step: "0.5", value: String(model.keep) });
  const keepLabel = el("label", { for: "keep" });

  root.append(
    heading(
      "Inside the network",
      "A recurrent network reads one event at a time. What it knows is in its hidden state h, a strip of units below; each event changes it through the cell’s equations. Step through time and watch what is kept, what is let in, and how much of the last state still depends on each earlier one.",
    ),
    player.node,
    legend(
      [
        ["--blue", "kept as it is, as wide as the gates let it be; the RNN keeps nothing, all goes through U and tanh"],
        ["--green", "let in: new content"],
        ["--orange", "gradient ‖∂hₜ/∂hₛ‖ back to each earlier state, relative to the last"],
      ],
      "What the arrows mean",
    ),
    rows,
    el("p", {
      class: "small soft",
      text: "The five small cells have eight units, weights drawn from a seed and not trained, and read the same inputs x₁ … x₉; their shapes are true, their levels are not those of a trained model. Units: violet is negative, ochre positive.",
    }),
    section("Inside one cell", inside),
    section(
      "How far the gradient reaches",
      el("p", {
        class: "lead",
        text: "To learn that an event matters many steps later, the gradient must survive the way back. Through tanh alone it shrinks at each step. A gate that stays open lets it pass; open the gates and see.",
      }),
      el("div", { class: "row control" }, keepLabel, keep),
      el("div", { class: "columns" }, flow.node, horizon),
    ),
    section(
      "What the spectral radius does",
      el("p", {
        class: "lead",
        text: "An echo-state network learns none of its recurrent weights. All depends on their spectral radius ρ, the largest absolute eigenvalue: below 1 the past fades, above it can live for ever.",
      }),
      reservoirExperiment(),
    ),
  );

  function compute() {
    const { hidden, inputs: width, seed } = SMALL;
    model.cells = fiveCells(hidden, width, seed, model.keep);
    model.runs = model.cells.map((cell) => run(cell, inputs.slice(0, LENGTH)));
    const large = fiveCells(LARGE.hidden, LARGE.inputs, LARGE.seed, model.keep);
    model.flows = large.map((cell) => gradientFlow(cell, run(cell, inputs)));
    keepLabel.textContent =
      `Bias of the gates that keep (LSTM’s forget, GRU’s update): ${model.keep > 0 ? "+" : ""}${model.keep}`.replace(
        "-",
        "−",
      );
    flow.draw(model.flows, model.dynamics);
  }

  function showRows(fresh = false) {
    const { step } = model;
    const shown = model.cells.map((cell, i) => {
      const steps = model.runs[i].slice(0, step);
      const columns = steps.map((each, t) => ({
        state: each.next.slice(0, cell.hidden),
        kept: mean(each.kept),
        written: mean(each.written),
        label: `x${"₀₁₂₃₄₅₆₇₈₉"[t + 1]}`,
      }));
      return rowOf(
        cell.name,
        [cell.paper, ...cell.equations],
        i,
        unrolled({
          columns,
          start: vector(cell.hidden),
          flow: gradientFlow(cell, steps),
          length: LENGTH,
          fresh,
          name: cell.name,
        }),
      );
    });
    if (model.live) shown.push(liveRow(step, fresh));
    redraw(rows, ...shown);
    for (const each of rows.querySelectorAll(".scroll"))
      each.scrollLeft = (each.scrollWidth * step) / LENGTH - each.clientWidth * 0.6; // the newest step
    const cell = model.cells[model.chosen],
      at = Math.max(step, 1);
    inside.replaceChildren(insideCell(cell, model.runs[model.chosen][at - 1], at));
  }

  function rowOf(name, lines, index, picture) {
    const button = el("button", {
      type: "button",
      class: "quiet",
      "data-keep": String(index),
      "aria-pressed": String(index === model.chosen),
      text: name,
      on: {
        click() {
          model.chosen = index;
          showRows();
        },
      },
    });
    return el(
      "div",
      { class: index === model.chosen ? "network chosen" : "network" },
      el(
        "div",
        { class: "label" },
        button,
        lines.map((text, i) => el("span", { class: i ? "equation" : "small soft", text })),
      ),
      strip(name, picture),
    );
  }

  const strip = (name, picture) =>
    el(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": `${name}, unrolled`, "data-keep": name },
      picture,
    );

  function liveRow(step, fresh) {
    const { live, dynamics } = model;
    const name = `The live ${cellName(live.cell)}`;
    const picture = unrolled({
      columns: live.columns.slice(0, step),
      start: live.start,
      length: live.columns.length,
      fresh,
      name,
      flow: [1, ...dynamics.gradient_flow],
    });
    return el(
      "div",
      { class: "network live" },
      el(
        "div",
        { class: "label" },
        el("b", { text: name }),
        el(
          "span",
          { class: "small soft" },
          `${shortVersion(dynamics.version)}, ${count(dynamics.hidden)} units, of which eight are shown, on the last events of `,
          el("a", { href: `#/person/${encodeURIComponent(live.user)}`, text: live.user }),
          ". Gradients are means over many people.",
        ),
      ),
      strip(name, picture),
    );
  }

  async function askLive() {
    model.dynamics ??= await untilThere(async () => {
      const dynamics = await liveDynamics(signal);
      if (!dynamics)
        horizon.replaceChildren(state("empty", "No version is live yet", "Its horizons are shown here once one is."));
      return dynamics;
    }, signal);
    if (!model.dynamics) return;
    const radius = model.dynamics.spectral_radius;
    horizon.replaceChildren(
      horizonHistogram("Memory horizon of the live model", model.dynamics.horizon),
      el("p", { class: "small soft", text: radius === null ? "" : `Its spectral radius is ${metric(radius)}.` }),
    );
    flow.draw(model.flows, model.dynamics);
    model.live = await somebodysSteps(model.dynamics.version, LENGTH, signal);
    showRows();
  }

  /** What is measured already stays. */
  function onFailure(error) {
    if (!model.dynamics) showFailure(horizon, error);
  }

  keep.addEventListener("input", () => {
    model.keep = Number(keep.value);
    compute();
    showRows();
  });
  onScheme(() => showRows(), signal);
  compute();
  player.start();
  untilAnswered(askLive, onFailure, signal);
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
