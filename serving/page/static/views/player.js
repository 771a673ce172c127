// Steps through time: play, step, reset and a slider.

import { el, still } from "../dom.js";

const TICK_MS = 1100;

/** Calls show(step, whether it is one further than before) for steps from 0 to `length`. */
export function newPlayer(length, signal, show) {
  let step = 0,
    timer = null;
  const play = el("button", { type: "button", class: "primary", on: { click: () => (timer ? stop() : go()) } });
  const slider = el("input", {
    type: "range",
    id: "time",
    min: "0",
    max: String(length),
    step: "1",
    on: {
      input: () => {
        stop();
        at(Number(slider.value));
      },
    },
  });
  const label = el("label", { for: "time" });
  const node = el(
    "div",
    { class: "player row" },
    play,
    el("button", {
      type: "button",
      text: "Step",
      on: {
        click: () => {
          stop();
          at(step === length ? 0 : step + 1);
        },
      },
    }),
    el("button", {
      type: "button",
      text: "Reset",
      on: {
        click: () => {
          stop();
          at(0);
        },
      },
    }),
    label,
    slider,
  );

  function at(next) {
    const fresh = next === step + 1;
    step = next;
    slider.value = String(step);
    label.textContent = `t = ${step}`;
    show(step, fresh);
  }
  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  }
  function go() {
    play.textContent = "Pause";
    if (step === length) at(0);
    timer = setInterval(() => (step === length ? stop() : at(step + 1)), TICK_MS);
  }
  signal.addEventListener("abort", stop);
  return {
    node,
    start() {
      if (still()) {
        stop();
        at(length);
      } else {
        at(1);
        go();
      }
    },
  };
}
