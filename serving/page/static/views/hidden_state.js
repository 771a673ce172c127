// The hidden state through time: a heat map of units by events, and what each event kept and overwrote.

import { diverging } from "../charts/diverging.js";
import { el, onScheme } from "../dom.js";
import { cellName, duration, metric, moment, named, number, shortVersion } from "../format.js";

const MOST_ROWS = 64,
  GATE_ROW = 34;

/** Units by how long they remember, those that forget soonest first. */
export const horizonOrder = (trace) =>
  trace.horizon
    .map((_, unit) => unit)
    .toSorted((a, b) => (trace.horizon[a] ?? Infinity) - (trace.horizon[b] ?? Infinity));

/** The figure of a trace (`/v1/users/ID/trace`); redrawn with the colour scheme until the signal. */
export function hiddenState(trace, signal) {
  const order = spread(horizonOrder(trace));
  const steps = trace.steps.length;
  const rowHeight = Math.min(Math.max(Math.floor(220 / order.length), 4), 12); // px
  const canvas = el("canvas", { class: "map" });
  const gates = el("canvas", { class: "gates" });
  const readout = el("output", { class: "small number" });
  const label = `Hidden state of ${trace.user_id} in ${trace.version}: ${order.length} units over ${steps} events. Arrow keys read single values.`;
  const surface = el("div", { class: "surface", tabindex: "0", role: "img", "aria-label": label }, canvas, gates);
  const largest = Math.max(
    1,
    ...trace.states.map((state) => state.reduce((top, value) => Math.max(top, Math.abs(value)), 0)),
  );
  let chosen = null; // [step (column), row]

  function draw() {
    const width = Math.max(surface.clientWidth, 60),
      columns = steps + 1;
    const paint = diverging();
    const heat = fit(canvas, width, order.length * rowHeight);
    const step = width / columns;
    for (let t = 0; t < columns; t++) {
      order.forEach((unit, row) => {
        heat.fillStyle = paint(trace.states[t][unit] / largest);
        heat.fillRect(Math.floor(t * step), row * rowHeight, Math.ceil(step), rowHeight);
      });
    }
    const style = getComputedStyle(document.documentElement);
    const tone = (name) => style.getPropertyValue(name).trim();
    const bars = fit(gates, width, GATE_ROW);
    for (let t = 0; t < steps; t++) {
      const x = (t + 1) * step,
        wide = Math.max(step - 2, 1);
      bars.fillStyle = tone("--blue");
      bars.fillRect(x, GATE_ROW * (1 - trace.kept[t]), wide / 2, GATE_ROW * trace.kept[t]);
      bars.fillStyle = tone("--green");
      bars.fillRect(x + wide / 2, GATE_ROW * (1 - trace.overwritten[t]), wide / 2, GATE_ROW * trace.overwritten[t]);
    }
    if (chosen) {
      heat.strokeStyle = tone("--ink");
      heat.strokeRect(Math.floor(chosen[0] * step) + 0.5, chosen[1] * rowHeight + 0.5, Math.ceil(step) - 1, rowHeight);
    }
  }

  function choose(t, row) {
    chosen = [clamp(t, 0, steps), clamp(row, 0, order.length - 1)];
    const unit = order[chosen[1]],
      event = trace.steps[chosen[0] - 1];
    const value = trace.states[chosen[0]][unit];
    const when = event
      ? `after ${named(event)} (${moment(event.timestamp)}), at which ${metric(trace.kept[chosen[0] - 1])} was kept and ${metric(trace.overwritten[chosen[0] - 1])} overwritten`
      : "before the first of these events";
    readout.textContent = `unit ${unit}, half its memory gone after ${number(trace.horizon[unit])} events: ${value < 0 ? "−" : ""}${metric(Math.abs(value))} ${when}`;
    draw();
  }
  function leave() {
    chosen = null;
    readout.textContent = "";
    draw();
  }

  surface.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    choose(
      Math.floor(((event.clientX - box.left) / box.width) * (steps + 1)),
      Math.floor((event.clientY - box.top) / rowHeight),
    );
  });
  surface.addEventListener("pointerleave", leave);
  surface.addEventListener("blur", leave);
  surface.addEventListener("keydown", (event) => {
    const [dt, drow] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [];
    if (dt === undefined) return;
    event.preventDefault();
    const [t, row] = chosen ?? [steps, 0];
    choose(t + dt, row + drow);
  });
  new ResizeObserver(draw).observe(surface);
  onScheme(draw, signal);
  const between = steps > 1 ? duration(trace.steps.at(-1).timestamp - trace.steps[0].timestamp) : null;
  return el(
    "figure",
    { class: "hidden-state" },
    el(
      "figcaption",
      { class: "small" },
      el("b", { text: `${cellName(trace.cell)} of ${shortVersion(trace.version)}` }),
      el("span", {
        class: "soft",
        text: `  ${trace.hidden} units${order.length < trace.hidden ? `, of which ${order.length} are shown` : ""}, ${steps} events${between ? ` in ${between}` : ""}`,
      }),
    ),
    el(
      "div",
      { class: "axes" },
      el(
        "span",
        { class: "axis small soft" },
        el("span", { text: "forget soon" }),
        el("span", { text: "remember long" }),
        el("span", { class: "foot", text: "kept, new (0 to 1)" }),
      ),
      surface,
    ),
    el(
      "p",
      { class: "small soft row apart" },
      el("span", { text: "before" }),
      el("span", { text: "time →" }),
      el("span", { text: "last event" }),
    ),
    readout,
  );
}

/** At most MOST_ROWS of the units, evenly spread. */
function spread(order) {
  const n = Math.min(order.length, MOST_ROWS);
  return Array.from({ length: n }, (_, i) => order[Math.floor((i * order.length) / n)]);
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** A canvas of this size in CSS pixels, sharp on every screen; returns its cleared context. */
function fit(canvas, width, height) {
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.setProperty("width", `${width}px`);
  canvas.style.setProperty("height", `${height}px`);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return context;
}
