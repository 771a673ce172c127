// A line chart of the last minutes, which moves with every point.

import { duration, moment, number } from "../format.js";
import { lineChart } from "./line_chart.js";

const LEAST_MS = 60_000,
  FIVE_MINUTES = 300_000;

/** options: as lineChart's, `read` (point -> a value per series), and `mostMs`. `draw(points)` shows points {time, …}:
 *  the last `mostMs`, or as much as there is. */
export function movingChart({ read, write = number, mostMs = FIVE_MINUTES, ...options }) {
  const chart = lineChart({
    ...options,
    write,
    writeX: moment,
    moving: true,
    xTicks: ([from, to]) => [
      [from, `${duration(to - from)} ago`],
      [(from + to) / 2, `${duration((to - from) / 2)} ago`],
      [to, "now"],
    ],
  });
  return {
    node: chart.node,
    draw(points) {
      const end = points.at(-1)?.time ?? Date.now();
      const recent = points.filter((point) => point.time >= end - mostMs);
      const values = recent.map(read);
      // A young system fills its chart; the axis grows in steps of half a minute.
      const span = Math.min(Math.max(Math.ceil((end - (recent[0]?.time ?? end)) / 30_000) * 30_000, LEAST_MS), mostMs);
      chart.draw(
        recent.map((point) => point.time),
        options.series.map((_, s) => values.map((row) => row[s] ?? null)),
        [end - span, end],
      );
    },
  };
}
