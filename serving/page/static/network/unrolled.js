// A recurrent network unrolled through time, drawn with its own numbers: the state at each step as a strip of
// units, what is kept and what is let in as widths of arrows, and the gradient that comes back from the last step.

import { diverging } from "../charts/diverging.js";
import { still, svg } from "../dom.js";
import { metric, shortened } from "../format.js";

const STEP = 96,
  LEFT = 40,
  UNIT = 7,
  STRIP = 18,
  WIDEST = 13;
const GRADIENT_Y = 30,
  BELOW_GRADIENT = 46;

/** columns: for each step up to the present one {state (units, -1 … 1), kept, written (0 … 1), label}; start: the
 *  state before the first; flow: ‖∂h_t/∂h_{t-lag}‖ by lag relative to lag 0, null = not drawn; length: steps that
 *  there will be; fresh: whether the last column has just come. Returns an SVG element.
 */
export function unrolled({ columns, start, flow, length, fresh, name }) {
  const paint = diverging();
  const units = start.length;
  const top = flow ? BELOW_GRADIENT : 4;
  const bottom = top + units * UNIT,
    middle = top + (units * UNIT) / 2;
  const height = bottom + 52,
    width = LEFT + Math.max(length, columns.length) * STEP + STRIP + 34;
  const x = (step) => LEFT + step * STEP; // of the strip after `step` events
  const last = columns.length;
  const parts = [];
  for (let step = 0; step < last; step++) {
    const { kept, written, label } = columns[step];
    const group = svg(
      "g",
      {},
      arrow(x(step) + STRIP + 2, middle, x(step + 1) - 3, middle, kept * WIDEST, "path", `kept ${metric(kept)}`),
      arrow(
        x(step + 1) + STRIP / 2,
        bottom + 26,
        x(step + 1) + STRIP / 2,
        bottom + 3,
        written * WIDEST,
        "write",
        `let in ${metric(written)}`,
      ),
      svg(
        "text",
        { class: "tick", x: x(step + 1) + STRIP / 2, y: bottom + 42, "text-anchor": "middle" },
        shortened(label, 14),
        svg("title", {}, label),
      ),
    );
    if (fresh && step === last - 1) appear(group);
    parts.push(group);
  }
  for (let step = last; step < length; step++) {
    parts.push(svg("rect", { class: "to-come", x: x(step + 1), y: top, width: STRIP, height: units * UNIT, rx: 2 }));
  }
  [start, ...columns.map((column) => column.state)].forEach((state, step) => {
    const strip = svg(
      "g",
      {},
      Array.from(state, (value, unit) =>
        svg("rect", { x: x(step), y: top + unit * UNIT, width: STRIP, height: UNIT - 1, fill: paint(value) }),
      ),
      svg("rect", {
        class: "frame",
        x: x(step) - 1.5,
        y: top - 1.5,
        width: STRIP + 3,
        height: units * UNIT + 2,
        rx: 2,
      }),
    );
    if (fresh && step === last) appear(strip);
    parts.push(strip);
  });
  if (flow && last) parts.push(...gradient(flow, last, x));
  return svg(
    "svg",
    {
      class: "unrolled",
      viewBox: `0 0 ${width} ${height}`,
      width,
      height,
      role: "img",
      "aria-label": words(name, columns, flow),
    },
    parts,
  );
}

/** The way back: from the last state to each earlier one, as wide as what is left of the gradient. */
function gradient(flow, last, x) {
  const parts = [];
  for (let step = last; step >= 0; step--) {
    const left = flow[last - step];
    if (left === undefined) break;
    if (step < last) {
      parts.push(
        svg("line", {
          class: "gradient",
          x1: x(step + 1) + STRIP / 2,
          x2: x(step) + STRIP / 2,
          y1: GRADIENT_Y,
          y2: GRADIENT_Y,
          "stroke-width": Math.max(left * WIDEST, 0.4),
        }),
      );
    }
    parts.push(
      svg(
        "text",
        { class: "tick", x: x(step) + STRIP / 2, y: GRADIENT_Y - 12, "text-anchor": "middle" },
        left >= 0.0095 || left === 0
          ? metric(left).slice(0, left === 1 ? 1 : 4)
          : left
              .toExponential(0)
              .replace("e-", "·10⁻")
              .replace(/⁻(\d+)/, (_, n) => `⁻${n.replaceAll(/\d/g, (d) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d])}`),
      ),
    );
  }
  return parts;
}

function arrow(x1, y1, x2, y2, width, kind, title) {
  const w = Math.max(width, 0.6) / 2,
    head = Math.max(w + 2.5, 3.5);
  const [dx, dy] = x1 === x2 ? [0, Math.sign(y2 - y1)] : [Math.sign(x2 - x1), 0];
  const [px, py] = [-dy, dx];
  const [bx, by] = [x2 - dx * 6, y2 - dy * 6];
  const at = (px0, py0) => `${px0.toFixed(1)} ${py0.toFixed(1)}`;
  const points = [
    [x1 + px * w, y1 + py * w],
    [bx + px * w, by + py * w],
    [bx + px * head, by + py * head],
    [x2, y2],
    [bx - px * head, by - py * head],
    [bx - px * w, by - py * w],
    [x1 - px * w, y1 - py * w],
  ];
  return svg("path", { class: kind, d: `M${points.map(([a, b]) => at(a, b)).join("L")}Z` }, svg("title", {}, title));
}

function appear(node) {
  if (!still()) node.animate([{ opacity: 0 }, { opacity: 1 }], { duration: 450, easing: "ease-out" });
}

function words(name, columns, flow) {
  if (!columns.length) return `${name}, unrolled: no step yet.`;
  const { kept, written } = columns.at(-1);
  const back = flow?.[columns.length];
  const reach = back === undefined ? "" : ` ${back.toPrecision(2)} of the gradient reaches back to the first state.`;
  return `${name}, unrolled over ${columns.length} steps. At the last step ${metric(kept)} of the state is kept and ${metric(written)} of the new content let in.${reach}`;
}
