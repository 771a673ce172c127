// A line chart of the last minutes, which moves with every point.

import { duration, moment, number } from "../format.js";
import { lineChart } from "./line_chart.js";

const LEAST_MS = 60_000,
  FIVE_MINUTES = 300_000;
const TICK_MS = [20_000, 60_000, 120_000, 300_000, 600_000, 1_200_000]; // distances that are read without reckoning
const MOST_TICKS = 3;

/** options: as lineChart's, `read` (point -> a value per series), `mostMs`, and `everyMs`: points come so often, and where
 *  several are missing the line is broken. `draw(points)` shows points {time, …}: the last `mostMs`, or as much as there
 *  is. */
export function movingChart({ read, write = number, mostMs = FIVE_MINUTES, everyMs = 1000, ...options }) {
  const chart = lineChart({ ...options, write, writeX: moment, moving: true, xTicks: ticksAgo });
  return {
    node: chart.node,
    draw(points) {
      const end = points.at(-1)?.time ?? Date.now();
      const recent = withBreaks(
        points.filter((point) => point.time >= end - mostMs),
        5 * everyMs,
      );
      const values = recent.map((point) => (point.missing ? [] : read(point)));
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

/** Marks at round times before now, the earliest first. */
function ticksAgo([from, to]) {
  const step = TICK_MS.find((each) => (to - from) / each <= MOST_TICKS) ?? TICK_MS.at(-1);
  const n = Math.floor((to - from) / step + 1e-9);
  return Array.from({ length: n + 1 }, (_, i) => {
    const ago = (n - i) * step;
    return [to - ago, ago ? `${duration(ago)} ago` : "now"];
  });
}

/** Points, and one that says `missing` in each gap: what nobody has seen is not drawn. */
const withBreaks = (points, longest) =>
  points.flatMap((point, i) => {
    const before = points[i - 1];
    return before && point.time - before.time > longest
      ? [{ time: (before.time + point.time) / 2, missing: true }, point]
      : [point];
  });
