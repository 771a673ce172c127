// Gradient flow against lag, of the five small cells and of the live model.

import { lineChart } from "../charts/line_chart.js";
import { el } from "../dom.js";
import { cellName } from "../format.js";
import { legend } from "../parts.js";

const COLOURS = ["--orange", "--blue", "--green", "--purple", "--yellow"];

/** lags: how many are shown. `draw(flows, dynamics)`: of `gradientFlow` for each cell, and the live model's or null. */
export function gradientChart(lags) {
  const names = ["RNN", "LSTM", "GRU", "minGRU", "echo state"];
  const live = { name: "live model", colour: "--ink", dashed: true };
  const series = [...names.map((name, i) => ({ name, colour: COLOURS[i] })), live];
  const chart = lineChart({
    title: "Gradient by lag",
    unit: "‖∂hₜ/∂hₜ₋ₖ‖ relative to k = 0, logarithmic",
    series,
    log: true,
    floor: 1e-9,
    height: 280,
    write: (x) => x.toPrecision(2),
    writeX: (lag) => `k = ${lag}`,
    xTicks: () => [
      [0, "0"],
      [10, "10"],
      [20, "20"],
      [30, "30"],
      [lags, `k = ${lags}`],
    ],
  });
  const keys = el("div");
  const node = el("div", {}, chart.node, keys);
  return {
    node,
    draw(flows, dynamics) {
      const places = Array.from({ length: lags + 1 }, (_, k) => k);
      chart.draw(places, [...flows, dynamics ? [1, ...dynamics.gradient_flow].slice(0, lags + 1) : []], [0, lags]);
      keys.replaceChildren(
        legend([
          ...names.map((name, i) => [COLOURS[i], name]),
          ...(dynamics ? [["--ink", `the live ${cellName(dynamics.cell)}, measured`, true]] : []),
        ]),
      );
    },
  };
}
