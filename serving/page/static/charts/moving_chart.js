// A line chart of the last minutes, which moves with every point.

import { moment, number } from "../format.js";
import { lineChart } from "./line_chart.js";

const SPAN_MS = 300_000;

/** options: as lineChart's, and `read` (point -> a value per series). `draw(points)` shows points {time, …}. */
export function movingChart({ read, write = number, ...options }) {
  const chart = lineChart({
    ...options, write, writeX: moment, moving: true,
    xTicks: ([from, to]) => [[from, "5 min ago"], [(from + to) / 2, "2½ min"], [to, "now"]],
  });
  return {
    node: chart.node,
    draw(points) {
      const end = points.at(-1)?.time ?? Date.now();
      const recent = points.filter((point) => point.time >= end - SPAN_MS);
      const values = recent.map(read);
      chart.draw(recent.map((point) => point.time), options.series.map((_, s) => values.map((row) => row[s] ?? null)), [end - SPAN_MS, end]);
    },
  };
}
