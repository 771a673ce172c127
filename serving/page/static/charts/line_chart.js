// A line chart in SVG: axes with units, a readout under the pointer or by arrow keys, a summary in words.

import { el, set, svg } from "../dom.js";
import { decades, linear, logarithmic, pathThrough, powerText, ticks } from "./scales.js";

const RIGHT = 12,
  TOP = 10,
  BOTTOM = 24;

/** options: title; unit; series, each {name, colour, dashed, short (a name for where room is scarce), alone (needs no
 *  key)}; height (px). The y axis begins at 0 and reaches to `from` at least; or it is `symmetric` (from
 *  minus this to this), or `log` (from `floor` on; `marks`: what may be labelled, none: powers of ten). Texts: write (of a value), writeTick (on the
 *  y axis), writeX, xTicks (a domain -> [[x, text], …]). moving: the newest values are marked and told.
 *  `draw(xs, columns, domain)` shows values: columns[series][i] belongs to xs[i], null = none. Returns {node, draw}.
 */
export function lineChart(options) {
  const { title, unit, series, height = 160, write = String, writeX = String, left = 44 } = options;
  const writeTick =
    options.writeTick ?? (options.log ? powerText : (value) => (value === 0 ? "0" : plain(write(value))));
  const plot = svg("svg", { class: "plot", "aria-hidden": "true", height });
  const readout = el("output", { class: "readout" });
  const now = el("span", { class: "figures number" });
  const surface = el("div", { class: "surface", tabindex: "0", role: "img" }, plot);
  const node = el(
    "figure",
    { class: "chart" },
    el(
      "figcaption",
      { class: "row apart" },
      el("span", {}, el("strong", { text: title }), unit && el("span", { class: "soft", text: ` ${unit}` })),
      now,
    ),
    surface,
    readout,
  );
  const cursor = svg("line", { class: "cursor", y1: TOP, visibility: "hidden" });
  let shown = { xs: [], columns: [], domain: [0, 1] };
  let chosen = -1;
  let width = 320;

  const place = () => {
    const { xs, columns, domain } = shown;
    const [low, high] = range(columns, options);
    const floor = height - BOTTOM;
    return {
      x: linear(domain[0], domain[1], left, width - RIGHT),
      y: (options.log ? logarithmic : linear)(low, high, floor, TOP),
      low,
      high,
      floor,
      xs,
      columns,
    };
  };

  function redraw() {
    const { x, y, low, high, floor, xs, columns } = place();
    set(plot, { viewBox: `0 0 ${width} ${height}`, width });
    const empty = !columns.some((column) => column?.some((value) => usable(value, options)));
    const values = empty
      ? []
      : options.log
        ? (options.marks?.filter((mark) => mark >= low && mark <= high) ?? decades(low, high)).filter(
            (_, i, all) => all.length < 6 || (all.length - 1 - i) % 2 === 0,
          )
        : ticks(low, high, height > 140 ? 4 : 3);
    const grid = values.map((value) => [
      svg("line", { class: "grid", x1: left, x2: width - RIGHT, y1: y(value), y2: y(value) }),
      svg("text", { class: "tick", x: left - 8, y: y(value) + 4, "text-anchor": "end" }, writeTick(value)),
    ]);
    const feet = options.xTicks(shown.domain).map(([value, text], i, all) =>
      svg(
        "text",
        {
          class: "tick",
          x: x(value),
          y: height - 6,
          "text-anchor":
            i === 0 && x(value) < left + 30
              ? "start"
              : i === all.length - 1 && x(value) > width - 50
                ? "end"
                : "middle",
        },
        text,
      ),
    );
    const lines = series.map((one, s) => {
      const points = xs.map((at, i) => (usable(columns[s]?.[i], options) ? [x(at), y(columns[s][i])] : null));
      const last = points.findLast((point) => point !== null);
      return svg(
        "g",
        { style: { "--c": `var(${one.colour})` }, class: one.dashed ? "line dashed" : "line" },
        svg("path", { d: pathThrough(points) }),
        last && options.moving && svg("circle", { cx: last[0], cy: last[1], r: 3 }),
      );
    });
    const silence = empty
      ? [
          svg("line", { class: "grid", x1: left, x2: width - RIGHT, y1: floor, y2: floor }),
          svg(
            "text",
            { class: "tick", x: (left + width - RIGHT) / 2, y: (floor + TOP) / 2, "text-anchor": "middle" },
            "nothing measured yet",
          ),
        ]
      : [];
    plot.replaceChildren(...silence, ...grid.flat(), ...feet, ...lines, cursor);
    cursor.setAttribute("y2", floor);
    now.replaceChildren(
      ...(options.moving
        ? series.map((one, s) =>
            chip(
              one,
              columns[s]?.findLast((v) => v !== null && v !== undefined),
              write,
            ),
          )
        : []),
    );
    surface.setAttribute("aria-label", summary(options, columns));
    if (chosen >= 0) choose(chosen);
  }

  function choose(index) {
    const { x, xs, columns } = place();
    chosen = Math.min(Math.max(index, 0), xs.length - 1);
    if (chosen < 0) return;
    set(cursor, { x1: x(xs[chosen]), x2: x(xs[chosen]), visibility: "visible" });
    readout.replaceChildren(
      el("span", { text: writeX(xs[chosen]) }),
      ...series.map((one, s) =>
        el(
          "span",
          {},
          el("i", { class: "swatch", style: { "--c": `var(${one.colour})` } }),
          `${one.name} ${Number.isFinite(columns[s]?.[chosen]) ? write(columns[s][chosen]) : "–"}`,
        ),
      ),
    );
  }

  function leave() {
    chosen = -1;
    cursor.setAttribute("visibility", "hidden");
    readout.replaceChildren();
  }

  surface.addEventListener("pointermove", (event) => {
    const { x, xs } = place();
    const at = event.clientX - surface.getBoundingClientRect().left;
    let best = -1;
    xs.forEach((value, i) => {
      if (best < 0 || Math.abs(x(value) - at) < Math.abs(x(xs[best]) - at)) best = i;
    });
    choose(best);
  });
  surface.addEventListener("pointerleave", leave);
  surface.addEventListener("blur", leave);
  surface.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -1e9, End: 1e9 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    choose((chosen < 0 ? shown.xs.length - 1 : chosen) + step);
  });
  new ResizeObserver(([entry]) => {
    const next = Math.round(entry.contentRect.width);
    if (next > 0 && next !== width) {
      width = next;
      redraw();
    }
  }).observe(surface);

  return {
    node,
    draw(xs, columns, domain) {
      shown = { xs, columns, domain };
      redraw();
    },
  };
}

/** Whether a value can be drawn: on a logarithmic axis, only above 0 and not below the axis. */
const usable = (value, { log, floor = 0 }) =>
  value !== null && value !== undefined && Number.isFinite(value) && (!log || (value > 0 && value >= floor));

/** The ends of the y axis. */
function range(columns, options) {
  const { log, from = 0, symmetric, floor } = options;
  if (symmetric) return [-symmetric, symmetric];
  let low = Infinity,
    high = -Infinity;
  for (const column of columns)
    for (const value of column ?? [])
      if (usable(value, options)) {
        low = Math.min(low, value);
        high = Math.max(high, value);
      }
  if (low > high) return log ? [0.01, 1] : [0, from || 1];
  if (log) return [Math.max(10 ** Math.floor(Math.log10(low)), floor ?? 0), 10 ** Math.ceil(Math.log10(high) - 1e-9)];
  return [0, Math.max(from, high * 1.1)];
}

const plain = (text) =>
  (text.includes(".") && !text.startsWith(".") ? text.replace(/\.?0+$/, "") : text).replace("-", "−");

const chip = (one, value, write) =>
  el(
    "span",
    { class: "chip" },
    one.alone
      ? null
      : el("i", { class: one.dashed ? "swatch dashed" : "swatch", style: { "--c": `var(${one.colour})` } }),
    one.alone ? null : `${one.short ?? one.name} `,
    el("b", { text: value === undefined ? "–" : write(value) }),
  );

function summary({ title, unit = "", series, write = String }, columns) {
  const parts = series.map((one, s) => {
    const values = (columns[s] ?? []).filter((value) => value !== null && value !== undefined);
    if (!values.length) return `${one.name}: no values yet`;
    return `${one.name}: ${write(values.at(-1))} at the end, between ${write(Math.min(...values))} and ${write(Math.max(...values))}`;
  });
  return `${title} ${unit}. ${parts.join(". ")}. Arrow keys read single values.`;
}
