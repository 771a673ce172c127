// A difference with its interval: dot and whisker around zero.

import { signed } from "../format.js";
import { svg } from "../dom.js";
import { linear } from "./scales.js";

const WIDTH = 180,
  HEIGHT = 28;

/** low, mean, high: the interval and its middle; reach: what the half axis stands for. */
export function intervalPlot({ low, mean, high }, reach, label) {
  const x = linear(-reach, reach, 6, WIDTH - 6);
  const side = low > 0 ? "--green" : high < 0 ? "--orange" : "--grey";
  return svg(
    "svg",
    {
      class: "interval",
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      width: WIDTH,
      height: HEIGHT,
      role: "img",
      style: { "--c": `var(${side})` },
      "aria-label": `${label}: ${signed(mean)}, 95 % interval ${signed(low)} to ${signed(high)}`,
    },
    svg("line", { class: "zero", x1: x(0), x2: x(0), y1: 2, y2: HEIGHT - 2 }),
    svg("line", { class: "whisker", x1: x(low), x2: x(high), y1: HEIGHT / 2, y2: HEIGHT / 2 }),
    ...[low, high].map((end) =>
      svg("line", { class: "whisker", x1: x(end), x2: x(end), y1: HEIGHT / 2 - 5, y2: HEIGHT / 2 + 5 }),
    ),
    svg("circle", { cx: x(mean), cy: HEIGHT / 2, r: 4.5 }),
  );
}
