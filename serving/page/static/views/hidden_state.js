// The hidden state through time: a heat map of units by events, and what each event kept and overwrote.

import { colourScale, diverging } from "../charts/diverging.js";
import { colour, el, onScheme } from "../dom.js";
import {
  cellName,
  duration,
  isolated,
  metric,
  moment,
  named,
  number,
  plural,
  shortVersion,
  shortened,
} from "../format.js";

const MOST_ROWS = 64,
  GATE_ROW = 34;

/** Units by how long they remember, those that forget soonest first. */
export const horizonOrder = (trace) =>
  trace.horizon
    .map((_, unit) => unit)
    .toSorted((a, b) => (trace.horizon[a] ?? Infinity) - (trace.horizon[b] ?? Infinity));

/** A figure of traces (`/v1/users/ID/trace`): `draw(trace)` shows one. The value that the reader has chosen stays chosen
 *  as events come. Redrawn with the colour scheme until the signal. */
export function hiddenState(signal) {
  const canvas = el("canvas", { class: "map" });
  const gates = el("canvas", { class: "gates" });
  const readout = el("output", { class: "small number" });
  const caption = el("figcaption", { class: "small row apart" });
  const scale = el("span");
  const surface = el("div", { class: "surface", tabindex: "0", role: "img" }, canvas, gates);
  let trace = null,
    order = [],
    rowHeight = 0, // px
    largest = 1,
    chosen = null; // {step (column), row}

  function paintAll() {
    if (!trace) return;
    const width = Math.max(surface.clientWidth, 60),
      columns = trace.steps.length + 1;
    const paint = diverging();
    scale.replaceChildren(colourScale(largest, "a unit’s value"));
    const heat = fit(canvas, width, order.length * rowHeight);
    const step = width / columns;
    for (let t = 0; t < columns; t++) {
      order.forEach((unit, row) => {
        heat.fillStyle = paint(trace.states[t][unit] / largest);
        heat.fillRect(Math.floor(t * step), row * rowHeight, Math.ceil(step), rowHeight);
      });
    }
    const bars = fit(gates, width, GATE_ROW);
    for (let t = 0; t < trace.steps.length; t++) {
      const x = (t + 1) * step,
        wide = Math.max(step - 2, 1);
      bars.fillStyle = colour("--blue");
      bars.fillRect(x, GATE_ROW * (1 - trace.kept[t]), wide / 2, GATE_ROW * trace.kept[t]);
      bars.fillStyle = colour("--green");
      bars.fillRect(x + wide / 2, GATE_ROW * (1 - trace.overwritten[t]), wide / 2, GATE_ROW * trace.overwritten[t]);
    }
    if (chosen) {
      heat.strokeStyle = colour("--ink");
      heat.strokeRect(
        Math.floor(chosen.step * step) + 0.5,
        chosen.row * rowHeight + 0.5,
        Math.ceil(step) - 1,
        rowHeight,
      );
    }
  }

  function choose(step, row) {
    if (!trace) return;
    chosen = { step: clamp(step, 0, trace.steps.length), row: clamp(row, 0, order.length - 1) };
    const unit = order[chosen.row],
      event = trace.steps[chosen.step - 1];
    const when = event
      ? `after ${isolated(named(event))} (${moment(event.timestamp)}), at which ${metric(trace.kept[chosen.step - 1])} was kept and ${metric(trace.overwritten[chosen.step - 1])} overwritten`
      : "before the first of these events";
    readout.textContent = `unit ${unit}, half its memory gone after ${number(trace.horizon[unit])} events: ${amount(trace.states[chosen.step][unit])} ${when}`;
    paintAll();
  }

  function leave() {
    chosen = null;
    readout.textContent = "";
    paintAll();
  }

  surface.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    choose(
      Math.floor(((event.clientX - box.left) / box.width) * ((trace?.steps.length ?? 0) + 1)),
      Math.floor((event.clientY - box.top) / rowHeight),
    );
  });
  surface.addEventListener("pointerleave", leave);
  surface.addEventListener("blur", leave);
  surface.addEventListener("keydown", (event) => {
    const [dt, drow] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [];
    if (dt === undefined) return;
    event.preventDefault();
    const { step, row } = chosen ?? { step: trace?.steps.length ?? 0, row: 0 };
    choose(step + dt, row + drow);
  });
  new ResizeObserver(paintAll).observe(surface);
  onScheme(paintAll, signal);
  const node = el(
    "figure",
    { class: "hidden-state" },
    caption,
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

  return {
    node,
    draw(fresh) {
      const event = chosen && trace.steps[chosen.step - 1];
      const unit = chosen && order[chosen.row];
      trace = fresh;
      order = spread(horizonOrder(trace));
      rowHeight = Math.min(Math.max(Math.floor(220 / order.length), 4), 12);
      const reached = trace.states.flat().reduce((top, value) => Math.max(top, Math.abs(value)), 0);
      largest = Math.max(1, Math.ceil(reached * 10) / 10);
      const { user_id: user, version, cell, hidden, steps } = trace;
      const between = steps.length > 1 ? ` in ${duration(steps.at(-1).timestamp - steps[0].timestamp)}` : "";
      const some = order.length < hidden ? `, of which ${order.length} are shown` : "";
      caption.replaceChildren(
        el(
          "span",
          {},
          el("b", { text: `${cellName(cell)} of ${shortVersion(version)}` }),
          el("span", { class: "soft", text: `  ${hidden} units${some}, ${plural(steps.length, "event")}${between}` }),
        ),
        scale,
      );
      surface.setAttribute(
        "aria-label",
        `Hidden state of ${shortened(user)} in ${version}: ${order.length} units over ${plural(steps.length, "event")}. Arrow keys read single values.`,
      );
      if (!chosen) return paintAll();
      const step = event ? steps.findLastIndex((each) => isSame(each, event)) + 1 : 0;
      const row = order.indexOf(unit);
      if (row < 0 || (event && !step)) leave(); // it has left the window
      else choose(step, row);
    },
  };
}

const isSame = (one, other) => one.timestamp === other.timestamp && one.item_id === other.item_id;

const amount = (value) => `${value < 0 ? "−" : ""}${metric(Math.abs(value))}`;

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
