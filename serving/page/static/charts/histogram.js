// How many units remember for how long: a histogram over a logarithmic axis.

import { el, svg } from "../dom.js";
import { count } from "../format.js";

const EDGES = [0, 1, 2, 4, 8, 16, 32, 64, Infinity];
const NAMES = ["< 1", "1–2", "2–4", "4–8", "8–16", "16–32", "32–64", "≥ 64"];
const WIDTH = 480,
  HEIGHT = 180,
  LEFT = 40,
  BOTTOM = 42,
  TOP = 18;

/** title: of the chart; horizons: for each unit, the number of events after which its influence has halved. */
export function horizonHistogram(title, horizons) {
  const counts = NAMES.map(
    (_, i) =>
      horizons.filter(
        (h) =>
          ((h ?? Infinity) >= EDGES[i] && (h ?? Infinity) < EDGES[i + 1]) ||
          (i === NAMES.length - 1 && !(h < Infinity)),
      ).length,
  );
  const top = Math.max(...counts, 1);
  const step = (WIDTH - LEFT) / NAMES.length;
  const floor = HEIGHT - BOTTOM;
  const bars = counts.map((n, i) => {
    const height = (n / top) * (floor - TOP);
    return svg(
      "g",
      {},
      svg("rect", { class: "bar", x: LEFT + i * step + 3, y: floor - height, width: step - 6, height }),
      svg(
        "text",
        { class: "tick strong", x: LEFT + (i + 0.5) * step, y: floor - height - 5, "text-anchor": "middle" },
        n ? count(n) : "",
      ),
      svg("text", { class: "tick", x: LEFT + (i + 0.5) * step, y: floor + 16, "text-anchor": "middle" }, NAMES[i]),
    );
  });
  const label = `Memory horizon of ${horizons.length} units. ${NAMES.map((name, i) => `${name} events: ${counts[i]} units`).join(". ")}.`;
  return el(
    "figure",
    { class: "chart" },
    el("figcaption", {}, el("strong", { text: title })),
    svg(
      "svg",
      { class: "plot wide", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label },
      svg("line", { class: "grid", x1: LEFT, x2: WIDTH, y1: floor, y2: floor }),
      ...bars,
      svg(
        "text",
        { class: "tick", x: LEFT + (WIDTH - LEFT) / 2, y: HEIGHT - 6, "text-anchor": "middle" },
        "events until a unit's memory has halved",
      ),
      svg(
        "text",
        {
          class: "tick",
          x: 12,
          y: (floor + TOP) / 2,
          transform: `rotate(-90 12 ${(floor + TOP) / 2})`,
          "text-anchor": "middle",
        },
        "units",
      ),
    ),
  );
}
