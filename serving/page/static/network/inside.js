// Inside one cell at one step: the equations beside the numbers that they work on.

import { diverging } from "../charts/diverging.js";
import { el, svg } from "../dom.js";
import { metric } from "../format.js";

const UNIT = 22,
  HEIGHT = 30;

/** cell: of cells.js; step: of `run`; number: of the step, from 1. */
export function insideCell(cell, step, number) {
  const { hidden } = cell;
  const rows = [
    ["x", "the input", strip(step.x)],
    ["h", "the state before", strip(step.before.slice(0, hidden))],
  ];
  if (cell.state > hidden) rows.push(["c", "the cell state before", strip(step.before.slice(hidden))]);
  for (const [name, opening] of Object.entries(step.gates))
    rows.push([`${name} gate`, `open ${metric(mean(opening))} on average`, valves(opening)]);
  if (cell.state > hidden) rows.push(["c′", "the cell state after", strip(step.next.slice(hidden))]);
  rows.push(["h′", "the state after", strip(step.next.slice(0, hidden))]);
  return el(
    "div",
    { class: "inside" },
    el(
      "div",
      {},
      el("h3", { text: `${cell.name} (${cell.paper}), step ${number}` }),
      cell.equations.map((text) => el("p", { class: "equation", text })),
    ),
    el(
      "dl",
      {},
      rows.map(([name, what, picture]) =>
        el("div", {}, el("dt", {}, el("span", { class: "symbol", text: name }), ` ${what}`), el("dd", {}, picture)),
      ),
    ),
  );
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const list = (values) => Array.from(values, (value) => value.toFixed(2)).join(", ");

function strip(values) {
  const paint = diverging();
  return svg(
    "svg",
    { width: values.length * UNIT, height: 18, role: "img", "aria-label": list(values) },
    Array.from(values, (value, i) =>
      svg(
        "rect",
        { x: i * UNIT, y: 1, width: UNIT - 2, height: 16, rx: 2, fill: paint(value) },
        svg("title", {}, value.toFixed(3)),
      ),
    ),
  );
}

/** Gates as valves: how far each unit's is open. */
function valves(values) {
  return svg(
    "svg",
    { width: values.length * UNIT, height: HEIGHT, role: "img", "aria-label": list(values) },
    Array.from(values, (value, i) =>
      svg(
        "g",
        {},
        svg("title", {}, value.toFixed(3)),
        svg("rect", { class: "valve", x: i * UNIT, y: 0, width: UNIT - 2, height: HEIGHT, rx: 2 }),
        svg("rect", {
          class: "opening",
          x: i * UNIT,
          y: HEIGHT * (1 - value),
          width: UNIT - 2,
          height: HEIGHT * value,
          rx: 2,
        }),
      ),
    ),
  );
}
