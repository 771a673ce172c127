// What the spectral radius of a reservoir does: two echo-state networks with the same weights and inputs begin in
// different states. If the past fades, they soon agree; if it does not, they never do.

import { el } from "../dom.js";
import { number } from "../format.js";
import { lineChart } from "../charts/line_chart.js";
import { legend } from "../parts.js";
import { echoState, run } from "./cells.js";
import { random, vector } from "./matrices.js";

const HIDDEN = 60,
  STEPS = 120,
  QUIET = 0.15; // weak inputs: strong ones saturate tanh and hide the radius

export function reservoirExperiment() {
  const draw = random(11);
  const inputs = Array.from({ length: STEPS }, () => vector(2, () => (2 * draw() - 1) * QUIET));
  const [one, other] = [0, 1].map(() => vector(HIDDEN, () => 2 * draw() - 1));
  const steps = Array.from({ length: STEPS + 1 }, (_, i) => i);
  const xTicks = () => [
    [0, "0"],
    [30, "30"],
    [60, "60"],
    [90, "90"],
    [STEPS, `${STEPS} events`],
  ];
  const common = { xTicks, writeX: (t) => `after ${t} events`, write: number };
  const starts = [
    { name: "start A", colour: "--blue" },
    { name: "start B", colour: "--orange", dashed: true },
  ];
  const traces = lineChart({ ...common, title: "One unit of both networks", unit: "h", series: starts, symmetric: 1 });
  const distance = lineChart({
    ...common,
    title: "Distance of the two states",
    unit: "relative to the start, logarithmic",
    series: [{ name: "distance", colour: "--purple" }],
    log: true,
    floor: 1e-8,
  });
  const slider = el("input", { type: "range", id: "radius", min: "0.1", max: "1.6", step: "0.05", value: "0.9" });
  const verdict = el("p", { class: "verdict", "aria-live": "polite" });
  const label = el("label", { for: "radius" });

  function update() {
    const radius = Number(slider.value);
    const cell = echoState(HIDDEN, 2, 3, { radius, leak: 1, sources: 10 });
    const [a, b] = [one, other].map((start) => [start, ...run(cell, inputs, start).map((step) => step.next)]);
    const apart = a.map((state, t) => Math.hypot(...state.map((value, i) => value - b[t][i])));
    const relative = apart.map((value) => Math.max(value / apart[0], 1e-8));
    traces.draw(
      steps,
      [a, b].map((states) => states.map((state) => state[4])),
      [0, STEPS],
    );
    distance.draw(steps, [relative], [0, STEPS]);
    label.textContent = `Spectral radius ρ = ${radius.toFixed(2)}`;
    const half = relative.findIndex((value) => value < 0.01);
    verdict.textContent =
      half > 0
        ? `The start is forgotten: after ${half} events the two states differ by less than 1 % of what they did. What a state holds are echoes of the last events only.`
        : relative.at(-1) < 0.5
          ? `The start fades slowly: after ${STEPS} events ${number(relative.at(-1) * 100)} % of the difference are left. Close to the edge, memory is longest.`
          : `The start is never forgotten: the two states stay apart although they read the same events. Such a reservoir tells where it began, not what it has read.`;
  }
  slider.addEventListener("input", update);
  update();
  return el(
    "div",
    {},
    el("div", { class: "row control" }, label, slider),
    verdict,
    el(
      "div",
      { class: "columns" },
      el(
        "div",
        {},
        traces.node,
        legend(
          starts.map(({ name, colour, dashed }) => [colour, name, dashed]),
          "Starts",
        ),
      ),
      distance.node,
    ),
  );
}
